"""Any selector, source by source: the budget is shared over the sources first."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dsel.constraints import Called, NotNegative, Text
from dsel.cost import Cost
from dsel.errors import need
from dsel.selector.base import Choose, Selection, Selector, Step, Train, Work, in_whole
from dsel.selector.sampling import allocate
from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)


@dataclass
class PerSource(Selector):
    """`selector=per_source selector@selector.then=kmq`: `then` chooses its share of each source as if it were all.

    shares: `proportional` to what a source has to the power `temperature` (1: as the pool is, 0: the same for all), or
    by `weights`, {source: weight}, where those not named get none. What a source is too small to give is shared out
    among the others, in the end among those of weight 0. The shares are exact. A method in rounds goes through them in
    all sources together: one model is trained on what each of them asks for.
    """

    then: Annotated[Selector, Called("a selector, as selector@selector.then=kmq chooses one")]
    shares: Literal["proportional", "weights"] = "proportional"
    temperature: NotNegative = 1.0
    weights: Mapping[Text, NotNegative] | None = None

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        self.needs = frozenset(getattr(self.then, "needs", ()))  # type: ignore[misc]

    def check(self) -> None:
        self.then.check()
        fits = (self.weights is not None) == (self.shares == "weights")
        need(fits, "selector.weights={source: weight, …} goes with selector.shares=weights")
        some = self.weights is None or any(weight > 0 for weight in self.weights.values())
        need(some, "selector.weights: wants a source with a weight above 0")

    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        names, labels = np.unique(np.asarray(study.pool.sources, dtype=object).astype(str), return_inverse=True)
        sizes = np.bincount(labels)
        weights = self._weights(names, sizes)
        shares = allocate(study.budget, sizes, weights)
        beside = int(shares[weights == 0].sum())
        if beside:
            log.warning("selector.weights: these sources have too few: %d examples come from the others", beside)
        kept = [np.flatnonzero(labels == source) for source in np.flatnonzero(shares).tolist()]
        parts = [
            replace(study.restrict(own), budget=share)
            for own, share in zip(kept, shares[shares > 0].tolist(), strict=True)
        ]
        for found in zip(*(self.then.steps(part, learner) for part in parts), strict=True):
            yield _joined([in_whole(step, own) for step, own in zip(found, kept, strict=True)])

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        return self.then.plan(n, budget, epochs)

    def cost(self, n: int, d: int, budget: int, k: int) -> Cost:
        return self.then.cost(n, d, budget, k)

    def _weights(self, names: npt.NDArray[np.str_], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What each source's share is in proportion to."""
        if self.weights is None:
            return sizes.astype(np.float64) ** self.temperature
        unknown = sorted(set(self.weights) - set(names.tolist()))
        has = ", ".join(names[:8])
        need(not unknown, f"selector.weights: the pool has no source {', '.join(unknown)}; it has {has}")
        return np.array([float(self.weights.get(name, 0)) for name in names.tolist()])


def _joined(steps: Sequence[Step]) -> Step:
    """One step of those of all sources."""
    first = steps[0]
    if isinstance(first, Train):
        return replace(first, examples=np.concatenate([step.examples for step in steps]))
    selection = _all([step.selection for step in steps if isinstance(step, Choose)])
    on = None if first.on is None else np.concatenate([step.examples for step in steps])
    return replace(first, selection=selection, on=on)


def _all(parts: Sequence[Selection]) -> Selection:
    """One selection of several; what only some of them know is left out."""

    def column(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else np.concatenate(values)

    return Selection(
        np.concatenate([part.indices for part in parts]),
        clusters=column("clusters"),
        weights=column("weights"),
        scores=column("scores"),
        repeats=any(part.repeats for part in parts),
    )
