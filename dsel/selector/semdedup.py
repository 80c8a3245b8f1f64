"""SemDeDup: near-duplicates leave the pool before another selector sees it (Abbas et al. 2023, arXiv 2303.09540)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from dsel.arrays import Indices, unit_rows
from dsel.constraints import Between, Called
from dsel.progress import tracked
from dsel.selector.base import Selector, Step, Train, Work
from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)

BLOCK = 2048


def redundancy(embeddings: ArrayLike, labels: ArrayLike, centroids: ArrayLike) -> npt.NDArray[np.float32]:
    """How similar each example is to one that is kept before it: cosine, float32[n]; -1 for the first of a cluster.

    Inside a cluster examples come in rising similarity to the centroid, ties by index, so the least typical of a group
    of copies is the one kept. embeddings [n, d], rows of any length; labels int[n] in 0..k-1; centroids [k, d].
    Raises ValueError for NaN or zero rows, named.
    """
    x, groups = unit_rows(embeddings), np.asarray(labels)
    centres = np.asarray(centroids, dtype=np.float32)
    centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    typical = np.einsum("nd,nd->n", x, centres[groups])
    order = np.lexsort((typical, groups))
    out = np.full(len(x), -1, dtype=np.float32)
    clusters = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    for members in tracked(clusters, "near-copies within clusters", total=len(clusters), unit="clusters"):
        for start in range(0, len(members), BLOCK):
            rows = members[start : start + BLOCK]
            similar = x[rows] @ x[members[: start + len(rows)]].T
            later = np.arange(similar.shape[1])[None, :] >= start + np.arange(len(rows))[:, None]
            similar[later] = -1
            out[rows] = similar.max(axis=1)
    return out


@dataclass
class SemDedup(Selector):
    """`selector=semdedup selector@selector.then=kmq`: `then` chooses among what is left.

    An example goes when its `redundancy` is above `threshold`. Where less than the budget would be left, the least
    redundant stay. Everything a selector reads (embeddings, clusters, quality) is the pool's own, without the copies.
    """

    then: Annotated[Selector, Called("a selector, as selector@selector.then=kmq chooses one")]
    threshold: Annotated[float, Between(-1, 1)] = 0.95  # a cosine

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "clustering"})

    def __post_init__(self) -> None:
        theirs = frozenset(getattr(self.then, "needs", ()))  # `check_types` says what is none
        self.needs = frozenset({"embeddings", "clustering"}) | theirs  # type: ignore[misc]

    def check(self) -> None:
        self.then.check()

    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        kept = self.kept(study)
        for step in self.then.steps(study.restrict(kept), learner):
            if isinstance(step, Train):
                yield replace(step, examples=kept[step.examples])
            else:
                selection = replace(step.selection, indices=kept[step.selection.indices])
                yield replace(step, selection=selection, on=None if step.on is None else kept[step.on])

    def kept(self, study: Study) -> Indices:
        """The examples that are left, by index: at least as many as the budget."""
        found = study.clustering
        similar = redundancy(study.embeddings, found.labels, found.centroids)
        kept = np.flatnonzero(similar <= self.threshold)
        if len(kept) < study.budget:
            kept = np.sort(np.argsort(similar, kind="stable")[: study.budget])
        log.info("semdedup: %d of %d examples are left", len(kept), len(study.pool))
        return kept

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        return self.then.plan(n, budget, epochs)
