"""Deita's diversity filter: walk down the quality ranking, skip what is too close to something kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles, Floats, Indices, check_budget, finite_rows, finite_scores, lengths
from dsel.progress import tracked
from dsel.selector.base import Selection, Static
from dsel.study import Study

log = logging.getLogger(__name__)

BLOCK = 512
# Well above the rounding of a float32 dot product of a few thousand terms, relative to the vectors' lengths.
ROUNDING = 1e-5


def filter_ranked(
    embeddings: ArrayLike,
    quality: ArrayLike,
    budget: int,
    *,
    threshold: float = 0.9,
    metric: Literal["cosine", "l2"] = "cosine",
) -> Indices:
    """Keep the best examples that are not near-copies of better ones, at most `budget`, best first.

    embeddings [n, d]; quality [n], higher is better, ties to the lowest index. Returns int64[<= budget]:
    fewer when the pool runs out first. metric="cosine" rejects an example whose cosine similarity to the
    nearest kept one is above `threshold` (Liu et al. 2024, hkust-nlp/deita); metric="l2" rejects when the
    squared Euclidean distance, of rows as given, is below it (the re-implementation of Yu et al. 2024).

    A block of ranked candidates meets all that is kept in one matrix product, and then only itself. Whatever
    float32 cannot place on one side of the threshold is decided in float64, so the indices do not depend on
    the BLAS or on the block. Raises ValueError for NaN rows (and zero rows, for cosine), named, and a bad
    budget.
    """
    if metric not in ("cosine", "l2"):
        raise ValueError(f'metric must be "cosine" or "l2", not {metric!r}')
    x = finite_rows(embeddings)
    n, d = x.shape
    budget = check_budget(budget, n)
    ranking = np.argsort(-finite_scores(quality, n), kind="stable")
    scale = lengths(x) if metric == "cosine" else np.ones(n, dtype=np.float32)
    # Both rules read "reject when closeness > limit": the similarity, or minus the squared distance.
    limit = threshold if metric == "cosine" else -threshold

    kept, kept_x = np.empty(budget, dtype=np.int64), np.empty((budget, d), dtype=np.float32)
    size = 0
    blocks = range(0, n, BLOCK)
    for start in tracked(blocks, "near-copies of better examples", total=len(blocks), unit="blocks"):
        block = ranking[start : start + BLOCK]
        block_x = x[block] / scale[block, None]
        # The first to be kept rule out most: what they rule out need not meet the others.
        for lo in range(0, size, BLOCK):
            nearest, margin = _closeness(block_x, kept_x[lo : min(lo + BLOCK, size)], metric)
            nearest = nearest.max(axis=1)
            open_ = nearest <= limit + margin
            for i in np.flatnonzero(open_ & (nearest >= limit - margin)):
                open_[i] = (_exact(x, block[i], kept[lo : min(lo + BLOCK, size)], metric) <= limit).all()
            block, block_x = block[open_], block_x[open_]
        if not block.size:
            continue
        near, margin = _closeness(block_x, block_x, metric)
        rivals = np.triu(near >= limit - margin, 1)
        open_ = np.ones(len(block), dtype=bool)
        for i in np.flatnonzero(rivals.any(axis=1)):
            if open_[i]:
                close = np.flatnonzero(rivals[i])
                open_[close[_exact(x, block[i], block[close], metric) > limit]] = False
        block, block_x = block[open_][: budget - size], block_x[open_][: budget - size]
        kept[size : size + len(block)], kept_x[size : size + len(block)] = block, block_x
        size += len(block)
        if size == budget:
            break
    return kept[:size]


def _closeness(a: Floats, b: Floats, metric: str) -> tuple[Floats, float]:
    """float32[len(a), len(b)], and how far rounding can have taken it from the truth."""
    dots = a @ b.T
    if metric == "cosine":
        return dots, ROUNDING
    a_squares, b_squares = np.einsum("nd,nd->n", a, a), np.einsum("nd,nd->n", b, b)
    dots *= 2
    dots -= a_squares[:, None]
    dots -= b_squares
    return dots, ROUNDING * 2 * float(a_squares.max() + b_squares.max())


def _exact(x: Floats, row: int, others: Indices, metric: str) -> Doubles:
    one, many = x[row].astype(np.float64), x[others].astype(np.float64)
    if metric == "l2":
        return -np.square(many - one).sum(axis=1)
    # Rounded, so that a cosine that equals the threshold on paper does so here.
    return np.round(many @ one / np.sqrt(np.square(many).sum(axis=1) * (one @ one)), 12)


@dataclass
class Deita(Static):
    """`selector=deita`: `filter_ranked`. When the filter leaves less than the budget, the best of what it rejected
    fill up (`fill`), so that methods are compared at the same budget; the published code stops short."""

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "quality"})
    threshold: float = 0.9
    metric: Literal["cosine", "l2"] = "cosine"
    fill: bool = True

    def select(self, study: Study) -> Selection:
        quality = study.quality_or_fail()
        chosen = filter_ranked(study.embeddings, quality, study.budget, threshold=self.threshold, metric=self.metric)
        missing = study.budget - len(chosen)
        if missing and self.fill:
            log.warning("the filter kept %d examples; the best %d it rejected fill the budget", len(chosen), missing)
            ranking = np.argsort(-quality, kind="stable")
            chosen = np.concatenate([chosen, ranking[~np.isin(ranking, chosen)][:missing]])
        return Selection(chosen, scores=quality[chosen])
