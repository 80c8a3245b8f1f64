"""What is spent: seconds, floating-point operations and tokens, counted where they are spent and kept with what for.

A token that a model of N parameters reads takes 2 N operations, a multiplication and an addition for each parameter
(Kaplan et al. 2020, arXiv 2001.08361, §2.1; Hoffmann et al. 2022, arXiv 2203.15556, §3): `dsel.model.flops`. What
nobody counts, as a server's work or a tokenizer's, is not nothing: its operations are None, and its seconds known.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dsel.distributed import processors
from dsel.files import read_json, write_json

FILE = "spent.json"


@dataclass
class Spent:
    """What something has cost whoever made it, now or long ago.

    seconds: on the clock. flops: floating-point operations; None where nobody has counted. tokens: those that models
    have read or written. device: what computed.
    """

    seconds: float = 0.0
    flops: float | None = None
    tokens: int = 0
    device: str | None = None

    def add(self, flops: float | None, tokens: int = 0) -> None:
        """Count so much more."""
        if flops is not None:
            self.flops = (self.flops or 0.0) + flops
        self.tokens += tokens

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3)}


_open: ContextVar[Spent | None] = ContextVar("spent", default=None)


@contextmanager
def counted() -> Iterator[Spent]:
    """Counts what is spent inside, but for what a `counted` inside of it counts: that is for its own account."""
    spent, start = Spent(), time.monotonic()
    token = _open.set(spent)
    try:
        yield spent
    finally:
        _open.reset(token)
        spent.seconds += time.monotonic() - start
        spent.device = spent.device or device()


def spend(flops: float, tokens: int = 0) -> None:
    """Say that so many operations are done, to whoever counts."""
    account = _open.get()
    if account is not None:
        account.add(flops, tokens)


def settle(shard: Spent, *, before: bool) -> None:
    """Take over what was counted for a part of the work, maybe by another process.

    before: the part was there already, left by a killed run, so that its seconds are not on the clock.
    """
    account = _open.get()
    if account is not None:
        account.add(shard.flops, shard.tokens)
        account.seconds += shard.seconds * before
        account.device = shard.device or account.device


def device() -> str:
    """What this process computes on: the GPU that it has begun to use, or its processors."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return f"{processors()} processors"


def keep(spent: Spent, folder: Path) -> None:
    """Leave in the artifact's folder what it has cost, so that whoever finds it knows."""
    write_json(folder / FILE, spent.to_dict())


def kept(folder: Path) -> Spent | None:
    """What `keep` has left; None in the folder of an artifact that was made before anybody counted."""
    return read(read_json(folder / FILE)) if (folder / FILE).exists() else None


def read(found: Any) -> Spent | None:
    """A `Spent` of what `to_dict` gives; None of None."""
    return None if found is None else Spent(**found)
