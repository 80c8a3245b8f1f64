"""Exact checking, for pools whose tasks have one right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsel.errors import need
from dsel.selector.feedback.base import Doubles, Feedback, Indices
from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner


@dataclass
class Verifier(Feedback):
    """S is 1 where the reference alone is right, −1 where the model's answer alone is, else 0."""

    def check_study(self, study: Study) -> None:
        need(
            study.verify is not None,
            f"selector/feedback=verifier: the pool {study.pool.name} carries no answers; choose another feedback",
        )

    def score(self, study: Study, learner: Learner, rounds: Sequence[Indices], answers: Sequence[str]) -> Doubles:
        assert study.verify is not None  # `check_study` has seen to it
        chosen = np.concatenate(rounds)
        right = study.verify(chosen, study.pool.take(chosen).responses)
        return right.astype(np.float64) - study.verify(chosen, answers)
