"""What an experiment asks of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """Where a run is mirrored to. `facts` are those of its record, `folder` is the run's."""

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads nothing heavy."""

    def start(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Open the run."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """One point of a training curve."""

    def finish(self, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Hand over what the run left; returns where it is."""
        ...

    def fail(self) -> None:
        """Mark the run as failed, if it was started."""
