"""What a selector is: a generator of steps. A static method is an iterative one with a single step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from dsel.cost import Cost
from dsel.errors import need
from dsel.pool import Message
from dsel.study import Study
from dsel.trainer.base import Training

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
        found = np.asarray(self.indices)
        whole = found.dtype.kind in "iu" and found.ndim == 1
        need(whole, f"a selection's indices are whole numbers [m], not {found.dtype} {list(found.shape)}")
        twice = not self.repeats and len(np.unique(found)) != len(found)
        need(not twice, "a selection names an example twice in a round, and does not say that it repeats")


@dataclass(frozen=True)
class Choose:
    """A round: the `selection` joins the subset, and the model is trained, as `training` has it.

    on: the examples that it is trained on, indices int64[m] into the pool, where they are not those of the selection.
    """

    selection: Selection
    training: Training = Training()
    on: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        given = type(self.selection).__name__
        need(isinstance(self.selection, Selection), f"what a selector chooses is a Selection(indices), not {given}")

    @property
    def examples(self) -> npt.NDArray[np.int64]:
        """What the model is trained on: indices int64[m] into the pool."""
        return self.selection.indices if self.on is None else self.on


@dataclass(frozen=True)
class Train:
    """A warm-up: the model is trained on `examples`, indices int64[m] into the pool, and nothing is chosen."""

    examples: npt.NDArray[np.int64]
    training: Training = Training()


Step = Choose | Train


def in_whole(step: Step, kept: npt.NDArray[np.int64]) -> Step:
    """A step over some examples of a pool, those at `kept`, as one over the pool."""
    if isinstance(step, Train):
        return replace(step, examples=kept[step.examples])
    selection = replace(step.selection, indices=kept[step.selection.indices])
    return replace(step, selection=selection, on=None if step.on is None else kept[step.on])


@dataclass(frozen=True)
class Work:
    """What a selector has done with the model in training.

    trainings: (examples, epochs) of each, warm-ups included, in order. answers: how many it generates. scored: how many
    examples or texts are read at most to score them, by the model or a scorer.
    """

    trainings: Sequence[tuple[int, float]]
    answers: int = 0
    scored: int = 0


class Selector(ABC):
    """A method is its `steps`. A selector's fields are its options; what a run has come to is in the generator alone.

    `needs` lists what the method reads, so that what is missing is found out before anything is computed: resources
    (`dsel.resources`), a component that it makes something else with (`clusterer`), and the `model` as it learns.
    `probes` are conversations of the method's own making that it has the model read, so that its chat template can be
    tried on them.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    probes: ClassVar[Sequence[list[Message]]] = ()

    def check(self) -> None:
        """Raise `ConfigError` when an option is out of range. Loads nothing heavy."""

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        """What a run over n examples comes to, known before it starts; `epochs` are the trainer's."""
        return Work([(budget, epochs)])

    def cost(self, n: int, d: int, budget: int, k: int) -> Cost:
        """What choosing itself takes, for n examples of d dimensions in k clusters: some vectors of n, by default."""
        return Cost(memory=100.0 * n)

    def clusters(self, budget: int) -> int | None:
        """How many clusters it has made of its own, whatever `clusterer.k` says: one that `needs` the `clusterer`."""
        return None

    @abstractmethod
    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        """Choose, or have the model trained, step by step; the run ends when there are no more.

        A step is carried out before the next one is asked for, so `learner` is the base model up to the first `yield`,
        and after each the model as trained by then.

        Args:
            study: The selection problem. What is drawn at random is drawn from its `rng`.
            learner: The model in training; None where nothing is trained, which those that need the `model` never see.

        Yields:
            `Choose` for each round, `Train` for a training that chooses nothing.
        """


class Static(Selector):
    """A method that chooses once and never looks at the model: subclasses write `select`."""

    def steps(self, study: Study, learner: Learner | None) -> Iterator[Step]:
        yield Choose(self.select(study))

    @abstractmethod
    def select(self, study: Study) -> Selection:
        """`study.budget` distinct examples."""
