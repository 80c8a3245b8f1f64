"""Draws without replacement: from all examples, or from clusters by their weights, as the k-means methods do."""

from __future__ import annotations

import logging
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles, Indices, check_budget, check_indices, finite_scores
from dsel.errors import need

log = logging.getLogger(__name__)

Allocation = Literal["proportional", "equal"]
Draw = Literal["softmax", "proportional", "uniform"]
DRAWS = get_args(Draw)
LAST = 1e3  # below all logits and far beyond any Gumbel noise: examples of no quality come after all others


def gumbel_top(
    log_weights: ArrayLike, budget: int, rng: np.random.Generator, *, then: ArrayLike | None = None
) -> Indices:
    """`budget` distinct examples, drawn one after another in proportion to their weight among those left.

    Args:
        log_weights: float[n]; −∞ for a weight of 0: these come after all others, in the order of `then`.
        budget: how many, from 1 to n.
        rng: gives n numbers whatever is drawn.
        then: float[n], the smallest first; by index where it is not given.

    Returns:
        int64[budget] in the order drawn (Gumbel-top-k: Kool et al. 2019, §3.2).
    """
    values = np.asarray(log_weights, dtype=np.float64)
    check_budget(budget, len(values))
    keys = values + rng.gumbel(size=len(values))
    order = np.argsort(-keys, kind="stable") if then is None else np.lexsort((np.asarray(then), -keys))
    return order[:budget]


def sample(
    labels: ArrayLike,
    quality: ArrayLike | None,
    budget: int,
    rng: np.random.Generator,
    *,
    weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    allocation: Allocation = "proportional",
    draw: Draw = "softmax",
) -> Indices:
    """Draw `budget` distinct examples: a share for each cluster, quality-weighted draws inside it.

    labels int[n] in 0..k-1; quality [n], or None for uniform draws; exclude: indices that must not be drawn.
    Clusters share the budget in proportion to how many examples they have to offer (Yu et al. 2024, §2.2) or
    equally; `weights` [k], not negative, replaces both (their Algorithm 1), and what is then left of fractions
    is drawn, so that few draws from many equal clusters favour none. Inside a cluster examples are drawn one
    after another without replacement among those left, with probability p(x | q) (their Eq. 3): `draw` is
    softmax(quality), as in their code; proportional to quality, examples of quality zero after all others; or
    uniform, whatever the quality. Returns int64[budget], cluster by cluster in the order drawn; the same `rng` state
    gives the same draws.

    Raises ValueError for a budget beyond what is available, quality that is not finite (rows named) or, to be
    proportional to, negative; labels or weights out of range.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError("labels must be a non-empty vector of integers from 0")
    n = len(labels)
    scores = np.zeros(n) if quality is None or draw == "uniform" else _logits(finite_scores(quality, n), draw)
    # Sorting softmax logits plus Gumbel noise is drawing without replacement (Gumbel-top-k: Kool et al. 2019,
    # §3.2), with no exponential that could overflow. Noise for every example keeps a draw's stream fixed.
    keys = scores + rng.gumbel(size=n)
    free = np.ones(n, dtype=bool)
    if exclude is not None:
        free[check_indices(exclude, n, "exclude")] = False
    candidates = np.flatnonzero(free)
    budget = check_budget(budget, len(candidates))

    k = int(labels.max()) + 1
    if weights is not None:
        share = _checked_weights(weights, k)
        k = len(share)
    sizes = np.bincount(labels[candidates], minlength=k)
    if weights is None:
        if allocation not in ("proportional", "equal"):
            raise ValueError(f'allocation must be "proportional" or "equal", not {allocation!r}')
        share = sizes.astype(np.float64) if allocation == "proportional" else np.ones(k)
    quotas = allocate(budget, sizes, share, rng=None if weights is None else rng)

    order = candidates[np.lexsort((-keys[candidates], labels[candidates]))]
    rank_in_cluster = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank_in_cluster < np.repeat(quotas, sizes)]


def allocate(budget: int, sizes: ArrayLike, weights: ArrayLike, *, rng: np.random.Generator | None = None) -> Indices:
    """Split `budget` over clusters in proportion to `weights` [k], never above `sizes` [k]: int64[k], exact.

    A cluster too small for its share gives all it has and the rest is shared out again among the others in
    the same proportion. What is left of fractions goes to the largest remainders, ties to the lowest cluster;
    with `rng` it is drawn, each cluster with its fraction for probability.
    Clusters of weight zero are used, by size, only when all others are exhausted. Raises ValueError when the
    clusters hold less than the budget.
    """
    sizes, weights = np.asarray(sizes, dtype=np.int64), np.asarray(weights, dtype=np.float64)
    if budget > sizes.sum():
        raise ValueError(f"budget {budget} is more than the {sizes.sum()} examples in the clusters")
    quotas = np.zeros(len(sizes), dtype=np.int64)
    for group, weight in ((weights > 0, weights), (weights <= 0, sizes)):
        open_ = np.flatnonzero(group & (sizes > 0))
        left = budget - int(quotas.sum())
        while left > 0 and open_.size:
            part = weight[open_] / weight[open_].max()
            share = left * (part / part.sum())
            full = share >= sizes[open_]
            if not full.any():
                quotas[open_] = np.floor(share)
                rest = left - int(quotas[open_].sum())
                quotas[open_[_remainders(share - quotas[open_], rest, rng)]] += 1
                return quotas
            quotas[open_[full]] = sizes[open_[full]]
            open_ = open_[~full]
            left = budget - int(quotas.sum())
    return quotas


def _remainders(fractions: Doubles, rest: int, rng: np.random.Generator | None) -> Indices:
    """Which `rest` of the fractions, that sum to it, are rounded up: the largest, or by systematic sampling."""
    if rng is None:
        return np.argsort(-fractions, kind="stable")[:rest]
    order = rng.permutation(len(fractions))
    ends = np.cumsum(np.concatenate([[0.0], fractions[order]]))
    ends[-1] = rest  # what rounding has left of it: the budget is exact
    return order[np.diff(np.floor(ends + rng.random())) > 0]


def _checked_weights(weights: ArrayLike, k: int) -> Doubles:
    w = finite_scores(weights, len(np.atleast_1d(np.asarray(weights))), "weights")
    if len(w) < k or (w < 0).any() or not w.any():
        raise ValueError(f"weights must be numbers for each of {k} clusters, none negative, not all zero")
    return w


def _logits(quality: Doubles, draw: str) -> Doubles:
    """What the softmax of is p(x | q)."""
    if draw == "softmax":
        return quality
    if draw != "proportional":
        raise ValueError(f"draw must be one of {', '.join(DRAWS)}, not {draw!r}")
    if (quality < 0).any():
        raise ValueError(f"quality must not be negative for draws in proportion to it; the lowest is {quality.min()}")
    some = quality > 0
    logs = np.log(quality, where=some, out=np.zeros_like(quality))
    return np.where(some, logs, logs.min() - LAST)


def update(
    weights: ArrayLike,
    clusters: ArrayLike,
    feedback: ArrayLike,
    *,
    normalise: str = "softmax",
    accumulate: bool = True,
) -> tuple[Doubles, Doubles]:
    """The clusters' weights after a round, and their feedback: float64[k] each (Yu et al. 2024, Eqs. 5 and 6).

    weights [k] of the last round, summing to one; clusters int[m] and feedback [m] (S of Eq. 4) of the m examples
    answered. s_j is the mean S of cluster j (Eq. 5), NaN where nobody was answered. Weights become s_j · w_j, or s_j
    alone without `accumulate` (the released code), and are renormalised (Eq. 6). As S can be negative, `softmax` maps
    s to exp(s_j) / Σ exp(s_c) first; `none` takes it as it is. Clusters that nobody was answered of keep their
    weight, and the others share what is left of one.

    Raises ConfigError with `none` when a cluster's feedback is negative, or all of it is zero.
    """
    w, groups = np.array(weights, dtype=np.float64), np.asarray(clusters)
    scores = finite_scores(feedback, len(groups), "feedback")
    counts = np.bincount(groups, minlength=len(w))
    known = counts > 0
    means = np.full(len(w), np.nan)
    means[known] = np.bincount(groups, scores, minlength=len(w))[known] / counts[known]
    factors, earlier = means[known], w[known] if accumulate else np.ones(known.sum())
    if normalise == "softmax":
        with np.errstate(divide="ignore"):
            logs = factors + np.log(earlier)  # not a product: the largest feedback may be that of a cluster of weight 0
        factors = np.exp(logs - max(logs.max(), -1e300))
    else:
        need(
            bool((factors >= 0).all() and factors.any()),
            "selector.normalise=none needs feedback that is not negative, and not all zero: use softmax",
        )
        factors = factors * earlier
    if factors.sum() > 0:
        w[known] = w[known].sum() * factors / factors.sum()
    return w, means


def need_drawable(draw: str, quality: ArrayLike, labels: ArrayLike) -> None:
    """Raise `ConfigError` for quality that cannot be drawn by, and warn where its softmax leaves nothing to chance."""
    q, groups = np.asarray(quality, dtype=np.float64), np.asarray(labels)
    if draw == "proportional":
        advice = "give another scorer, or selector.draw=softmax, which takes any numbers"
        low = f"the lowest quality is {q.min()}, and draws in proportion to it need one that is not negative"
        need(q.min() >= 0, f"selector.draw=proportional: {low}: {advice}")
    if draw == "softmax":
        best = np.full(groups.max() + 1, -np.inf)
        np.maximum.at(best, groups, q)
        p = np.exp(q - best[groups])
        tops, others = np.bincount(groups, p == 1), np.bincount(groups, p < 1) > 0
        share = (tops / np.maximum(np.bincount(groups, p), 1))[others]
        if len(share) and np.median(share) > 0.99:
            log.warning(
                "the softmax of this quality gives the best of a cluster %.4g of all probability (median): draws are "
                "each cluster's top in order, and chance has no part; selector.draw=proportional lets it",
                np.median(share),
            )
