"""LESS: the gradients of the pool that point where the targets' do (Xia et al. 2024, arXiv 2402.04333)."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Floats
from dsel.component import knob
from dsel.constraints import Above, AtLeast, AtMost, Count, Positive, Seed
from dsel.errors import need
from dsel.pool import Pool
from dsel.questions import Gradients
from dsel.selector.base import Choose, Selection, Selector, Step, Train, Work
from dsel.study import Study
from dsel.trainer.base import Training

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)

FILE = "gradients.npy"
VERSION = 2  # of Adam's steps: another one, other features
ROWS = 8192  # of a pool's features that are compared at once


def influence(
    pool: Sequence[ArrayLike],
    targets: Sequence[ArrayLike],
    rates: Sequence[float],
    subtasks: Sequence[NDArray[np.int64]],
    *,
    subtask: str = "mean_gradient",
    reduce: str = "max",
) -> Floats:
    """How much training on each example lowers the loss on the targets: float32[n] (Xia et al. 2024, Eq. 6).

    Args:
        pool: for each checkpoint the features of the pool, float32[n, d].
        targets: for each checkpoint those of the targets, float32[m, d].
        rates: for each the mean learning rate of its epoch; only how they compare matters.
        subtasks: which targets, by number, each subtask has.
        subtask: the cosine to the mean of a subtask's gradients, or with `mean_cosine` the mean of the cosines to each
            of them, as the released code has it. Features are brought to length one in either case.
        reduce: the `max` over subtasks, or their `mean`; see `over_subtasks`.
    """
    shares = np.asarray(rates, dtype=np.float64) / np.sum(rates)
    total = sum(
        np.float32(share) * similarities(here, there, subtasks, subtask=subtask)
        for here, there, share in zip(pool, targets, shares, strict=True)
    )
    return np.asarray(over_subtasks(total, reduce), dtype=np.float32)


def over_subtasks(total: NDArray[np.floating], reduce: str) -> NDArray[np.floating]:
    """The `max`, or the `mean`, of similarities [n, subtasks] over subtasks: [n].

    A subtask that nothing is like or unlike, as none of its targets has a gradient, does not count: its 0 would stand
    before whatever points away from the others.
    """
    known = total.any(axis=0)
    found = total if known.all() or not known.any() else total[:, known]
    return found.max(axis=1) if reduce == "max" else found.mean(axis=1)


def similarities(pool: ArrayLike, targets: ArrayLike, subtasks: Sequence[NDArray[np.int64]], *, subtask: str) -> Floats:
    """The cosines of `influence` at one checkpoint, float32[n, subtasks].

    An example without a gradient has 0, and so have all for a subtask without one; a target without counts in no mean.
    """
    wanted = _of_length_one(targets) if subtask == "mean_cosine" else np.asarray(targets, dtype=np.float32)
    given = np.flatnonzero(wanted.any(axis=1))
    means = np.zeros((len(subtasks), wanted.shape[1]), dtype=np.float32)
    for mean, rows in zip(means, subtasks, strict=True):
        some = rows[np.isin(rows, given)]
        if some.size:
            mean[:] = wanted[some].mean(axis=0)
    means = means if subtask == "mean_cosine" else _of_length_one(means)
    x = np.asanyarray(pool)
    out = np.empty((len(x), len(means)), dtype=np.float32)
    for start in range(0, len(x), ROWS):
        out[start : start + ROWS] = _of_length_one(x[start : start + ROWS]) @ means.T
    return out


def _of_length_one(rows: ArrayLike) -> Floats:
    x = np.asarray(rows, dtype=np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-30))


@dataclass
class ByGradients(Selector):
    """What methods have in common that compare gradients with the targets' after a warm-up on a part of the pool.

    The warm-up trains LoRA on the share `warmup` of the pool for as many epochs as there are `checkpoints`, with the
    trainer's settings. At each of them examples are compared with the subtasks of the targets (`compare`), weighted by
    the epoch's mean learning rate, and the budget's highest by the `reduce` over subtasks are chosen, those without a
    gradient last; the base model is then finetuned on them. projection: of gradients, to so many `dimensions` by a
    random matrix of ±1 (`rademacher`), or `none`. memory: gigabytes that gradients may take before they are projected.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "targets"})

    warmup: Annotated[float, Above(0), AtMost(1)] = 0.05
    checkpoints: Count = 4
    projection: Literal["rademacher", "none"] = "rademacher"
    dimensions: Count = 8192
    reduce: Literal["max", "mean"] = "max"
    max_length: Annotated[int, AtLeast(64)] = 2048
    seed: Seed = 0
    memory: Positive = knob(2.0)

    def check(self) -> None:
        fits = self.projection == "none" or self.dimensions % 8 == 0
        need(fits, f"selector.dimensions={self.dimensions}: wants a multiple of 8")

    @abstractmethod
    def compare(
        self, study: Study, learner: Learner, target: Pool, subtasks: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.floating]:
        """How like each subtask's the gradients of the pool's examples are, by the model as it stands: [n, subtasks].

        target: the examples of the targets. subtasks: which of them each subtask has, by number.
        """

    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        n, target = len(study.pool), study.target_or_fail()
        subtasks = target.by_subtask()
        warm = np.sort(study.rng.permutation(n)[: self._warm(n)])
        total, rates = np.zeros((n, len(subtasks))), 0.0
        for epoch in range(1, self.checkpoints + 1):
            yield Train(warm, Training(1, restart=epoch == 1, part=(epoch, self.checkpoints), moments=True))
            rate = learner.rate()
            total += rate * self.compare(study, learner, target.pool, subtasks)
            rates += rate
            words = "are not finite: the warm-up has diverged, trainer.learning_rate is too high"
            need(bool(np.isfinite(total).all()), f"gradients of checkpoint {epoch} {words}")
        scores = over_subtasks(total, self.reduce) / rates
        nothing = ~total.any(axis=1)
        if nothing.any():
            log.warning("%d examples have no gradient (%s): they come last", nothing.sum(), self._unread)
        chosen = np.lexsort((-scores, nothing))[: study.budget]
        yield Choose(Selection(chosen, scores=scores[chosen].astype(np.float32)))

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        return Work([(self._warm(n), 1)] * self.checkpoints + [(budget, epochs)], scored=n * self.checkpoints)

    def wanted(self, study: Study, learner: Learner, target: Pool) -> NDArray[np.floating]:
        """The `features` of the targets. Raises `ConfigError` where none of them has a gradient."""
        found = self.features(study, learner, target)
        without = int(np.count_nonzero(~found.any(axis=1)))
        need(without < len(found), f"the targets have no gradients: {self._unread}")
        if without:
            log.warning("%d of %d targets have no gradient (%s): they do not count", without, len(found), self._unread)
        return found

    @property
    def _unread(self) -> str:
        """Why an example has no gradient."""
        return f"no response within selector.max_length={self.max_length} tokens, or the model's own limit"

    def _warm(self, n: int) -> int:
        return max(1, round(self.warmup * n))

    @property
    def projected(self) -> int | None:
        """The numbers of a gradient after its projection; None where there is none."""
        return self.dimensions if self.projection == "rademacher" else None

    def known_by(self, learner: Learner, pool: Pool) -> dict[str, Any]:
        """What the gradients of some examples depend on: part of the key of all that is made of them."""
        return {
            "model": learner.state, "pool": pool.fingerprint, "max_length": self.max_length, "seed": self.seed,
            "dimensions": self.projected,
        }  # fmt: skip

    def features(
        self, study: Study, learner: Learner, pool: Pool, step: str | None = None, onto: Path | None = None
    ) -> NDArray[np.floating]:
        """The gradients of some examples, or Adam's steps with them, projected: [n, d], memory-mapped.

        onto: a file of directions, float32[r, d], of an artifact of the cache: their products with those, [n, r].
        """

        def build(folder: Path) -> None:
            model = learner.snapshot(moments=step is not None)
            worker = Gradients(model, self.max_length, self.projected, self.seed, step, self.memory * 1e9, onto)
            study.engine.fill(worker, pool.messages, folder / FILE, title="gradients", sizes=pool.lengths)

        more: dict[str, Any] = {} if onto is None else {"onto": onto.parent.name}
        if step is not None:
            more["version"] = VERSION
        key = {**self.known_by(learner, pool), "step": step, **more}
        folder = study.artifact("gradients", "gradients", key, build, items=len(pool))
        return np.asarray(np.load(folder / FILE, mmap_mode="r"))


@dataclass
class Less(ByGradients):
    """`selector=less`: a warm-up on a random part of the pool, and the gradients at each of its checkpoints.

    Of each example of the pool the step that Adam would take with its gradient is compared with the gradients of the
    targets. eps: see `dsel.model.gradients.adam_steps`. subtask, reduce: see `influence`. The others are those of
    `ByGradients`. Paper and released code differ: `eps=code subtask=mean_cosine` is the code.
    """

    eps: Literal["paper", "code"] = "paper"
    subtask: Literal["mean_gradient", "mean_cosine"] = "mean_gradient"

    def compare(
        self, study: Study, learner: Learner, target: Pool, subtasks: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.floating]:
        there = self.wanted(study, learner, target)  # first: without it there is nothing to compare the pool with
        here = self.features(study, learner, study.pool, step=self.eps)
        return similarities(here, there, subtasks, subtask=self.subtask)
