"""No training: the run ends with the subset, or evaluates the model as it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NoTrainer:
    trains = False
    save = False

    def check(self) -> None:
        pass
