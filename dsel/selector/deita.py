"""Deita's diversity filter: walk down the quality ranking, skip what is too close to something kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles, Floats, Indices, check_budget, finite_scores
from dsel.blocks import Matrix, Where, lengths, matrix, read, torch_device
from dsel.cost import Cost
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
    device: str = "cpu",
) -> Indices:
    """Keep the best examples that are not near-copies of better ones, at most `budget`, best first.

    A block of ranked candidates meets all that is kept in products of matrices, and then only itself. Whatever float32
    cannot place on one side of the threshold is decided in float64, so the indices do not depend on the BLAS, the block
    or the device. Time: of each candidate looked at, as many products as examples are kept by then, fewer where an
    early one rules it out: n · budget · d multiplications at worst. Memory: the kept examples and 24 bytes a candidate.

    Args:
        embeddings: [n, d]; float32 and float16 are not copied.
        quality: [n], higher is better, ties to the lowest index.
        budget: how many to keep at most.
        threshold: metric="cosine" rejects an example whose cosine similarity to the nearest kept one is above it (Liu
            et al. 2024, hkust-nlp/deita); metric="l2" rejects when the squared Euclidean distance, of rows as given, is
            below it (the re-implementation of Yu et al. 2024).
        metric: `cosine` or `l2`.
        device: where candidates meet what is kept: `auto`, `cpu` or `cuda`.

    Returns:
        int64[<= budget]: fewer when the pool runs out first.

    Raises:
        ValueError: for NaN rows (and zero rows, for cosine), named, and a bad budget.
    """
    if metric not in ("cosine", "l2"):
        raise ValueError(f'metric must be "cosine" or "l2", not {metric!r}')
    x = matrix(embeddings)
    n, d = x.shape
    budget = check_budget(budget, n)
    ranking = np.argsort(-finite_scores(quality, n), kind="stable")
    scale = lengths(x) if metric == "cosine" else np.ones(n, dtype=np.float32)
    # Both rules read "reject when closeness > limit": the similarity, or minus the squared distance.
    limit = threshold if metric == "cosine" else -threshold

    kept, kept_x = np.empty(budget, dtype=np.int64), np.empty((budget, d), dtype=np.float32)
    size = 0
    meet, step = _meet(kept_x, metric, device)
    blocks = range(0, n, BLOCK)
    for start in tracked(blocks, "near-copies of better examples", total=len(blocks), unit="blocks"):
        block = ranking[start : start + BLOCK]
        block_x = read(x, block) / scale[block, None]
        # The first to be kept rule out most: what they rule out need not meet the others.
        for lo in range(0, size, step):
            those = slice(lo, min(lo + step, size))
            nearest, margin = meet(block_x, those)
            open_ = nearest <= limit + margin
            for i in np.flatnonzero(open_ & (nearest >= limit - margin)):
                open_[i] = (_exact(x, block[i], kept[those], metric) <= limit).all()
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


def _meet(kept: Floats, metric: str, device: str) -> tuple[Callable[[Floats, slice], tuple[Floats, float]], int]:
    """What gives some rows their closeness to the nearest of a slice of the kept, and how long a slice suits it."""
    place = torch_device(device)
    if place is not None:
        from dsel.selector.on_torch import closest

        highest = closest(kept, metric, place)
        return lambda rows, those: (highest(rows, those), _margin(rows, kept[those], metric)), len(kept)

    def meet(rows: Floats, those: slice) -> tuple[Floats, float]:
        close, margin = _closeness(rows, kept[those], metric)
        return close.max(axis=1), margin

    return meet, BLOCK


def _closeness(a: Floats, b: Floats, metric: str) -> tuple[Floats, float]:
    """float32[len(a), len(b)], and how far rounding can have taken it from the truth."""
    dots = a @ b.T
    if metric == "l2":
        dots *= 2
        dots -= np.einsum("nd,nd->n", a, a)[:, None]
        dots -= np.einsum("nd,nd->n", b, b)
    return dots, _margin(a, b, metric)


def _margin(a: Floats, b: Floats, metric: str) -> float:
    if metric == "cosine":
        return ROUNDING
    return ROUNDING * 2 * float(np.einsum("nd,nd->n", a, a).max() + np.einsum("nd,nd->n", b, b).max())


def _exact(x: Matrix, row: int, others: Indices, metric: str) -> Doubles:
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
    device: Where = "auto"

    def check(self) -> None:
        torch_device(self.device, "selector.device")

    def cost(self, n: int, d: int, budget: int, k: int) -> Cost:
        return Cost(2.0 * n * d * budget, 48.0 * n + 4.0 * d * budget, self.device)  # where little is kept at first

    def select(self, study: Study) -> Selection:
        quality = study.quality_or_fail()
        chosen = filter_ranked(
            *(study.embeddings, quality, study.budget),
            threshold=self.threshold,
            metric=self.metric,
            device=self.device,
        )
        missing = study.budget - len(chosen)
        if missing and self.fill:
            log.warning("the filter kept %d examples; the best %d it rejected fill the budget", len(chosen), missing)
            ranking = np.argsort(-quality, kind="stable")
            chosen = np.concatenate([chosen, ranking[~np.isin(ranking, chosen)][:missing]])
        return Selection(chosen, scores=quality[chosen])
