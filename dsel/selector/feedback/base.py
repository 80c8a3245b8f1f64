"""What every feedback is: a score of the reference less that of the model's own answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Feedback(ABC):
    """S_i = score(x_i ⊕ y_gold) − score(x_i ⊕ y_gen) for each of m chosen examples (Yu et al. 2024, Eq. 4)."""

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads nothing heavy."""

    def check_study(self, study: Study) -> None:
        """Raise `ConfigError` when it does not suit the pool. Computes nothing."""

    @abstractmethod
    def score(self, study: Study, learner: Learner, rounds: Sequence[Indices], answers: Sequence[str]) -> Doubles:
        """float64[m]: the reference's score less the answer's.

        rounds: the m examples, by the round that chose them, indices into `study.pool`. answers: the model's own answer
        to each of them, in this order.
        """
