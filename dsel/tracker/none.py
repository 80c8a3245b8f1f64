"""No tracker: the run folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(init=False)
class NoTracker:
    """Takes, and leaves, whatever an experiment's file sets for the tracker it was written with."""

    def __init__(self, **options: Any) -> None:
        pass

    def check(self) -> None:
        pass

    def start(self, folder: Path, facts: Mapping[str, Any]) -> None:
        pass

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def finish(self, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def fail(self) -> None:
        pass
