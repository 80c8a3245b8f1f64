"""Ask and tell: a static method is an iterative one with a single round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from dsel.pool import Message
from dsel.study import Study
from dsel.trainer.base import Training

if TYPE_CHECKING:
    from dsel.learner import Learner


@dataclass(frozen=True)
class Selection:
    """One round's choice: indices int64[m] into the pool, in the order chosen, and what each was chosen by.

    clusters: the cluster of each, int[m]. weights: that cluster's weight, float[m]. scores: the quality, float[m].
    repeats: whether an example may be there twice, which is an error otherwise. training: what the model is trained on
    next, and how.
    """

    indices: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int64] | None = None
    weights: npt.NDArray[np.float64] | None = None
    scores: npt.NDArray[np.float32] | None = None
    repeats: bool = False
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if not self.repeats and len(np.unique(self.indices)) != len(self.indices):
            raise ValueError("a selection names an example twice")


@dataclass(frozen=True)
class Work:
    """What a selector has done with the model in training.

    trainings: (examples, epochs) of each, in order. answers: how many it generates. scored: how many examples or texts
    are read at most to score them, by the model or a scorer.
    """

    trainings: Sequence[tuple[int, float]]
    answers: int = 0
    scored: int = 0


class Selector(ABC):
    """`begin` with a study; then `tell` it the model as it stands, `ask` for a choice, train on it, until None.

    `needs` lists what the method reads (embeddings, clustering, quality, and the model that is told), so that what is
    missing is found out before anything is computed. `probes` are conversations of the method's own making that it
    has the model read, so that its chat template can be tried on them.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    probes: ClassVar[Sequence[list[Message]]] = ()
    study: Study

    def check(self) -> None:
        """Raise `ConfigError` when an option is out of range. Loads nothing heavy."""

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        """What a run over n examples comes to, known before it starts; `epochs` are the trainer's."""
        return Work([(budget, epochs)])

    def begin(self, study: Study) -> None:
        self.study = study

    def tell(self, learner: Learner) -> None:
        """Look at the model: the base model before the first choice, then as trained on the choices so far."""

    @abstractmethod
    def ask(self) -> Selection | None:
        """The next round's choice, or None when done."""


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
