"""A timed stage of a run, as its record lists it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Stage:
    """One stage of a run. `seconds` is its own time: stages inside it are counted as themselves.

    cut: what of its texts was not read, as `dsel.reading.note_cut` counts it.
    """

    name: str
    seconds: float = 0.0
    items: int | None = None
    cached: bool = False
    cut: list[dict[str, Any]] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return 0.0 if not self.items else self.items / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        rate = {} if self.items is None else {"items": self.items, "per_second": round(self.per_second, 2)}
        cut = {"cut": self.cut} if self.cut else {}
        return {"name": self.name, "seconds": round(self.seconds, 3), "cached": self.cached, **rate, **cut}


@contextmanager
def unrecorded(name: str) -> Iterator[Stage]:
    """A stage that is timed, and that no record lists."""
    stage, start = Stage(name), time.monotonic()
    try:
        yield stage
    finally:
        stage.seconds = time.monotonic() - start
