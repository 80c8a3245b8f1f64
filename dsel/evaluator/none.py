"""No evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(init=False)
class NoEvaluator:
    """Takes, and leaves, whatever an experiment's file sets for the evaluator it was written with."""

    evaluates = False

    def __init__(self, **options: Any) -> None:
        pass

    def check(self) -> None:
        pass
