"""Examples drawn by their loss under the model as it stands (DataFlex: Liang et al. 2026)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles, Indices
from dsel.constraints import AtLeast, Count, NotNegative, Share
from dsel.errors import need
from dsel.questions import Losses
from dsel.selector.base import Choose, Selection, Selector, Step, Work
from dsel.selector.sampling import gumbel_top
from dsel.study import Study
from dsel.trainer.base import Training

if TYPE_CHECKING:
    from dsel.learner import Learner

Focus = Literal["low", "medium", "high"]
FILE = "losses.npy"


def weights(
    losses: ArrayLike, *, focus: str = "high", weight: float = 5.0, low: float = 0.33, high: float = 0.66
) -> Doubles:
    """How likely each example is to be drawn, in proportion: float64[n].

    Args:
        losses: float[n]; NaN for an example without a loss, which has the weight 0.
        focus: which of the three parts that the quantiles `low` and `high` make of the losses counts more; a loss at a
            quantile is below it.
        weight: of an example in it, where that of the others is 1.
    """
    values = np.asarray(losses, dtype=np.float64)
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    first, second = np.quantile(values[known], [low, high])
    part = {"low": values <= first, "medium": (values > first) & (values <= second), "high": values > second}[focus]
    return np.where(known, np.where(part, weight, 1.0), 0.0)


def draw(weights: ArrayLike, budget: int, rng: np.random.Generator) -> Indices:
    """`budget` distinct examples, drawn one after another in proportion to their weight among those left.

    Args:
        weights: float[n], not negative; those of weight 0 come after all others, by index.
        budget: how many, from 1 to n.
        rng: gives n numbers whatever is drawn.

    Returns:
        int64[budget] in the order drawn (Gumbel-top-k: Kool et al. 2019).
    """
    with np.errstate(divide="ignore"):
        return gumbel_top(np.log(np.asarray(weights, dtype=np.float64)), budget, rng)


@dataclass
class ByLoss(Selector):
    """What methods have in common that draw a fresh subset for each of `epochs` epochs of one training, by losses.

    The first epoch's subset is drawn evenly. Before each later one the model as trained so far reads the whole pool, up
    to `max_length` tokens of an example, for the mean loss over its responses, and `budget` examples are drawn by what
    the method makes of that.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model"})

    epochs: Count = 3
    max_length: Annotated[int, AtLeast(64)] = 2048

    reads_first: ClassVar[bool] = False  # whether the base model's losses are asked for too

    @abstractmethod
    def weigh(self, losses: Doubles, first: Doubles | None, time: float) -> Doubles:
        """How likely each example is to be drawn, float64[n].

        losses: float64[n] by the model as it stands, NaN where an example has none. first: the base model's, where the
        method `reads_first`. time: which share of the draws by loss this is, above 0 up to 1.
        """

    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        n = len(study.pool)
        first = self._losses(study, learner) if self.reads_first and self.epochs > 1 else None
        for epoch in range(1, self.epochs + 1):
            if epoch == 1:
                chosen, scores = study.rng.permutation(n)[: study.budget], None
            else:
                losses = self._losses(study, learner)
                likely = self.weigh(losses, first, (epoch - 1) / (self.epochs - 1))
                chosen = draw(likely, study.budget, study.rng)
                scores = losses[chosen].astype(np.float32)
                study.note("loss", epoch, {"index": np.arange(n), "loss": losses, "weight": likely})
            part = Training(epochs=1, restart=epoch == 1, part=(epoch, self.epochs))
            yield Choose(Selection(chosen, scores=scores), part)

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        read = self.epochs - 1 + (self.reads_first and self.epochs > 1)
        return Work([(budget, 1)] * self.epochs, scored=n * read)

    def _losses(self, study: Study, learner: Learner) -> Doubles:
        """Of each example's responses by the model as it stands, float64[n], NaN for one that has none left."""

        def build(folder: Path) -> None:
            worker = Losses(learner.snapshot(), self.max_length, whole=False)
            found = study.engine.map(worker, study.pool.messages, folder, title="losses", sizes=study.pool.lengths)
            np.save(folder / FILE, found)

        key = {"model": learner.state, "pool": study.pool.fingerprint, "max_length": self.max_length}
        folder = study.artifact("losses", "losses", key, build)
        return np.asarray(np.load(folder / FILE), dtype=np.float64)


@dataclass
class Loss(ByLoss):
    """`selector=loss`: for each epoch a fresh subset, in which the losses that the `focus` is on count more.

    focus, weight, low, high: see `weights`. epochs, max_length: see `ByLoss`.
    """

    focus: Focus = "high"
    weight: NotNegative = 5.0
    low: Share = 0.33
    high: Share = 0.66

    def check(self) -> None:
        need(self.low <= self.high, f"selector.low={self.low}: wants at most selector.high={self.high}")

    def weigh(self, losses: Doubles, first: Doubles | None, time: float) -> Doubles:
        return weights(losses, focus=self.focus, weight=self.weight, low=self.low, high=self.high)
