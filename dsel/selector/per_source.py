"""Any selector, source by source: the budget is shared over the sources first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dsel.constraints import Called, NotNegative, Text
from dsel.errors import need
from dsel.selector.base import Selection, Selector, Static
from dsel.selector.sampling import allocate
from dsel.study import Study


@dataclass
class PerSource(Static):
    """`selector=per_source selector@selector.then=kmq`: `then` chooses its share of each source as if it were all.

    shares: `proportional` to what a source has to the power `temperature` (1: as the pool is, 0: the same for all), or
    by `weights`, {source: weight}, where those not named get none. What a source is too small to give is shared out
    among the others. The shares are exact.
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
        rounds = f"selector.then: {type(self.then).__name__} chooses in rounds; wants a selector that does not"
        need(isinstance(self.then, Static), rounds)
        fits = (self.weights is not None) == (self.shares == "weights")
        need(fits, "selector.weights={source: weight, …} goes with selector.shares=weights")

    def select(self, study: Study) -> Selection:
        names, labels = np.unique(np.asarray(study.pool.sources, dtype=object).astype(str), return_inverse=True)
        sizes = np.bincount(labels)
        parts = []
        for source, share in enumerate(allocate(study.budget, sizes, self._weights(names, sizes)).tolist()):
            if share:
                kept = np.flatnonzero(labels == source)
                chosen = self.then.select(replace(study.restrict(kept), budget=share))  # type: ignore[attr-defined]
                parts.append(replace(chosen, indices=kept[chosen.indices]))
        return _joined(parts)

    def _weights(self, names: npt.NDArray[np.str_], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What each source's share is in proportion to."""
        if self.weights is None:
            return sizes.astype(np.float64) ** self.temperature
        unknown = sorted(set(self.weights) - set(names.tolist()))
        has = ", ".join(names[:8])
        need(not unknown, f"selector.weights: the pool has no source {', '.join(unknown)}; it has {has}")
        return np.array([float(self.weights.get(name, 0)) for name in names.tolist()])


def _joined(parts: list[Selection]) -> Selection:
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
