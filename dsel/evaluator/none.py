"""No evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a run begins with this module, and stays light
    from pathlib import Path

    from dsel.cache import Cache
    from dsel.evaluator.base import Metric, Subject
    from dsel.pool import Pool


@dataclass(init=False)
class NoEvaluator:
    """Takes, and leaves, whatever an experiment's file sets for the evaluator it was written with."""

    evaluates = False

    def __init__(self, **options: Any) -> None:
        pass

    def check(self) -> None:
        pass

    def need_tasks(self, cache: Cache) -> None:
        pass

    def evaluate(self, learner: Subject, pool: Pool, heldout: Pool, cache: Cache, folder: Path) -> dict[str, Metric]:
        return {}
