"""A timed stage of a run, as its record lists it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dsel.spent import Spent


@dataclass
class Stage:
    """One stage of a run. `seconds` is its own time: stages inside it are counted as themselves.

    cut: what of its texts was not read, as `dsel.reading.note_cut` counts it. artifact: what of the cache it has made
    or found. spent: what that has cost, whoever made it, or else the stage; None where that is not known. discarded: a
    training that the model of the run has not come from.
    """

    name: str
    seconds: float = 0.0
    items: int | None = None
    cached: bool = False
    cut: list[dict[str, Any]] = field(default_factory=list)
    artifact: str | None = None
    spent: Spent | None = None
    discarded: bool = False

    @property
    def per_second(self) -> float:
        return 0.0 if not self.items else self.items / max(self.seconds, 1e-9)

    @property
    def cost(self) -> Spent | None:
        """What it, or what it has found, has cost; None where that is not known."""
        if self.spent is None:
            return None if self.cached else Spent(self.seconds)
        return self.spent if self.artifact is not None else replace(self.spent, seconds=self.seconds)

    def to_dict(self) -> dict[str, Any]:
        rate = {} if self.items is None else {"items": self.items, "per_second": round(self.per_second, 2)}
        more: dict[str, Any] = {"cut": self.cut} if self.cut else {}
        if self.artifact is not None:
            more["artifact"] = self.artifact
        if self.cost is not None and self.spent is not None:
            more["spent"] = self.cost.to_dict()
        if self.discarded:
            more["discarded"] = True
        return {"name": self.name, "seconds": round(self.seconds, 3), "cached": self.cached, **rate, **more}


@contextmanager
def unrecorded(name: str) -> Iterator[Stage]:
    """A stage that is timed, and that no record lists."""
    stage, start = Stage(name), time.monotonic()
    try:
        yield stage
    finally:
        stage.seconds = time.monotonic() - start
