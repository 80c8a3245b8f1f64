"""No training: the run ends with the subset, or evaluates the model as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(init=False)
class NoTrainer:
    """Takes, and leaves, whatever an experiment's file sets for the trainer it was written with."""

    trains = False
    epochs = 0.0
    max_length = 0
    save = False
    merge = False

    def __init__(self, **options: Any) -> None:
        pass

    def check(self) -> None:
        pass
