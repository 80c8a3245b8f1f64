"""SemDeDup: near-duplicates leave the pool before another selector sees it (Abbas et al. 2023, arXiv 2303.09540)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from dsel.arrays import Floats, Indices
from dsel.blocks import Matrix, Where, blocks, lengths, matrix, read, torch_device
from dsel.constraints import Between, Called
from dsel.cost import Cost
from dsel.progress import tracked
from dsel.selector.base import Selector, Step, Work, in_whole
from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)

BLOCK = 1024


def redundancy(
    embeddings: ArrayLike, labels: ArrayLike, centroids: ArrayLike, *, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """How similar each example is to one that is kept before it: cosine, float32[n]; -1 for the first of a cluster.

    Inside a cluster examples come in rising similarity to the centroid, ties by index, so the least typical of a group
    of copies is the one kept. Time: m² · d / 2 multiplications for a cluster of m. Memory: a block of products, and 20
    bytes an example, whatever the clusters' sizes.

    Args:
        embeddings: [n, d], rows of any length; float32 and float16 are not copied.
        labels: int[n] in 0..k-1.
        centroids: [k, d].
        device: where products are computed: `auto`, `cpu` or `cuda`. They differ by rounding.

    Raises:
        ValueError: for NaN or zero rows, named.
    """
    x, groups = matrix(embeddings), np.asarray(labels)
    scale = lengths(x)
    centres = np.asarray(centroids, dtype=np.float32)
    centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    typical, out = np.empty(len(x), dtype=np.float32), np.full(len(x), -1, dtype=np.float32)
    for part, block in blocks(x, 8 * x.shape[1]):
        typical[part] = np.einsum("nd,nd->n", block / scale[part, None], centres[groups[part]])
    nearest = _nearest(x, scale, device)
    order = np.lexsort((typical, groups))
    clusters = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    for members in tracked(clusters, "near-copies within clusters", total=len(clusters), unit="clusters"):
        for start in range(0, len(members), BLOCK):
            rows = members[start : start + BLOCK]
            for lo in range(0, start, BLOCK):
                out[rows] = np.maximum(out[rows], nearest(rows, members[lo : lo + BLOCK], before=False))
            out[rows] = np.maximum(out[rows], nearest(rows, rows, before=True))
    return out


def _nearest(x: Matrix, scale: Floats, device: str) -> Callable[..., Floats]:
    """The highest cosine of each of some rows with others, or, `before`, with those of the same that come before it."""
    place = torch_device(device)
    if place is not None:
        from dsel.selector.on_torch import highest_cosines

        return highest_cosines(x, scale, place)

    own = np.triu(np.ones((BLOCK, BLOCK), dtype=bool))

    def nearest(rows: Indices, others: Indices, *, before: bool) -> Floats:
        ours = read(x, rows) / scale[rows, None]
        similar: Floats = ours @ (ours if before else read(x, others) / scale[others, None]).T
        if before:
            np.copyto(similar, -1, where=own[: len(rows), : len(rows)])
        return similar.max(axis=1)  # type: ignore[no-any-return]

    return nearest


@dataclass
class SemDedup(Selector):
    """`selector=semdedup selector@selector.then=kmq`: `then` chooses among what is left.

    An example goes when its `redundancy` is above `threshold`. Where less than the budget would be left, the least
    redundant stay. Everything a selector reads (embeddings, clusters, quality) is the pool's own, without the copies.
    """

    then: Annotated[Selector, Called("a selector, as selector@selector.then=kmq chooses one")]
    threshold: Annotated[float, Between(-1, 1)] = 0.95  # a cosine
    device: Where = "auto"

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "clustering"})

    def __post_init__(self) -> None:
        theirs = frozenset(getattr(self.then, "needs", ()))  # `check_types` says what is none
        self.needs = frozenset({"embeddings", "clustering"}) | theirs  # type: ignore[misc]

    def check(self) -> None:
        torch_device(self.device, "selector.device")
        self.then.check()

    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        kept = self.kept(study)
        for step in self.then.steps(study.restrict(kept), learner):
            yield in_whole(step, kept)

    def kept(self, study: Study) -> Indices:
        """The examples that are left, by index: at least as many as the budget."""
        found = study.clustering
        similar = redundancy(study.embeddings, found.labels, found.centroids, device=self.device)
        kept = np.flatnonzero(similar <= self.threshold)
        if len(kept) < study.budget:
            kept = np.sort(np.argsort(similar, kind="stable")[: study.budget])
        log.info("semdedup: %d of %d examples are left", len(kept), len(study.pool))
        return kept

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        return self.then.plan(n, budget, epochs)

    def cost(self, n: int, d: int, budget: int, k: int) -> Cost:
        then = self.then.cost(n, d, budget, k)
        own = float(n) * n * d / k  # clusters of one size; others take more
        return Cost(own + then.operations, max(48.0 * n, then.memory), self.device)
