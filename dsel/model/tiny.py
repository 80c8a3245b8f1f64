"""The embedded default model: a small Llama that builds itself on first use, and is cached."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel.cache import Cache
from dsel.component import digest
from dsel.constraints import Count, Seed
from dsel.model.causal_lm import CausalLM
from dsel.progress import progress

log = logging.getLogger(__name__)


@dataclass
class Tiny(CausalLM):
    """`model=tiny`: pretrained from the procedural raw text by `dsel.model.pretraining`, once (about a minute).

    It is known by its seed, size and the source code that made it: change one and it is made anew.
    """

    hub: str = ""
    seed: Seed = 0
    steps: Count = 450
    hidden: Count = 256
    layers: Count = 3
    built: Path | None = dataclasses.field(default=None, init=False, metadata={"identity": False})

    def extra_identity(self) -> dict[str, Any]:
        return super().extra_identity() | ({"source": _source()} if self.path is None else {})

    def prepare(self, cache: Cache) -> bool:
        if self.path is not None:
            return True

        def build(folder: Path) -> None:
            from dsel.model.pretraining import pretrain

            log.info("pretraining the tiny model: once, about a minute on two cores")
            with progress("pretraining tiny", total=self.steps, unit="steps") as advance:
                pretrain(
                    folder, seed=self.seed, steps=self.steps, hidden=self.hidden, layers=self.layers, advance=advance
                )

        key = {
            "seed": self.seed,
            "steps": self.steps,
            "hidden": self.hidden,
            "layers": self.layers,
            "source": _source(),
        }
        self.built, found = cache.artifact("models", key, build, lease=True)
        return found

    @property
    def place(self) -> str:
        return str(self.built) if self.path is None else super().place


def _source() -> str:
    """Digest of the code that the weights depend on."""
    package = Path(__file__).resolve().parent.parent
    parts = [package / "model" / "pretraining.py"]
    parts += [package / "data" / f"{m}.py" for m in ("facts", "kinds", "lookups", "operations", "procedural")]
    return digest([p.read_text(encoding="utf-8") for p in parts])
