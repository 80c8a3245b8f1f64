"""Ask and tell: a static method is an iterative one with a single round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner


@dataclass(frozen=True)
class Selection:
    """One round's choice: indices int64[m] into the pool, in the order chosen, and what each was chosen by.

    clusters: the cluster of each, int[m]. weights: that cluster's weight, float[m]. scores: the quality, float[m].
    repeats: whether an example may be there twice, which is an error otherwise.
    """

    indices: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int64] | None = None
    weights: npt.NDArray[np.float64] | None = None
    scores: npt.NDArray[np.float32] | None = None
    repeats: bool = False

    def __post_init__(self) -> None:
        if not self.repeats and len(np.unique(self.indices)) != len(self.indices):
            raise ValueError("a selection names an example twice")


class Selector(ABC):
    """`begin` with a study, then `ask` for a round's choice, train on it, `tell` it the learner, until `ask` is None.

    `needs` lists what the method reads of the study (embeddings, clustering, quality), so that what is missing is
    found out before anything is computed.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    study: Study

    def check(self) -> None:
        """Raise `ConfigError` when an option is out of range. Loads nothing heavy."""

    def begin(self, study: Study) -> None:
        self.study = study

    @abstractmethod
    def ask(self) -> Selection | None:
        """The next round's choice, or None when done."""

    def tell(self, learner: Learner) -> None:
        """What the model trained on the choice so far has to say."""


class Static(Selector):
    """A method that chooses once and never looks at the model: subclasses write `select`."""

    done = False

    def ask(self) -> Selection | None:
        if self.done:
            return None
        self.done = True
        return self.select(self.study)

    @abstractmethod
    def select(self, study: Study) -> Selection:
        """`study.budget` distinct examples."""
