"""What an experiment asks of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from dsel.cache import Cache
from dsel.component import content_of, knob
from dsel.constraints import Count, File
from dsel.contamination import WORDS
from dsel.errors import need_path
from dsel.pool import Pool


@runtime_checkable
class Data(Protocol):
    """Where a pool comes from."""

    holdout: float  # a fraction or count kept out of the pool

    def check(self) -> None:
        """Raise `ConfigError` when it cannot be read here. Loads nothing heavy."""

    def load(self, cache: Cache | None = None) -> Pool:
        """All usable examples. Raises `ConfigError` when there is none.

        cache: where a pool that is read is kept, and found when its files and options are the same.
        """
        ...


@dataclass(kw_only=True)
class Decontaminated:
    """What becomes of examples that have what is evaluated on: the targets, the evaluator's texts, and a file's.

    decontaminate: `report` counts them, of the pool and of what is chosen; `remove` takes them out of the pool before
        anything is chosen; `off` looks for nothing.
    decontaminate_with: a file with more of such texts: instruction data in any format, of which the user's turns count,
        or a text a line in a file that ends in `.txt`.
    decontaminate_words: how many words that follow each other an example shares with such a text.

    As counting changes nothing, they are part of what a run is known by only where examples are removed.
    """

    decontaminate: Literal["report", "remove", "off"] = knob("report")
    decontaminate_with: File | None = knob(None)
    decontaminate_words: Count = knob(WORDS)

    def check_decontamination(self) -> None:
        """Raise `ConfigError` for a file that is not there."""
        if self.decontaminate_with is not None:
            need_path(self.decontaminate_with, option="data.decontaminate_with")


def removes(data: Data) -> Mapping[str, Any]:
    """What decides which examples are taken out, for a run's key; nothing where none is."""
    if not isinstance(data, Decontaminated) or data.decontaminate != "remove":
        return {}
    found = {"words": data.decontaminate_words, "with": content_of(data.decontaminate_with)}
    return {"decontaminate": found}
