"""k-means by Lloyd's algorithm that computes only the distances an iteration can have changed."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Bools, Floats, Indices, finite_rows, unit_rows

log = logging.getLogger(__name__)

ROWS = 4096
SEEDS = 128  # first centroids drawn between two looks at the whole pool

Nearest = tuple[Indices, Floats, Floats]


def fit(
    x: ArrayLike,
    k: int,
    *,
    niter: int = 300,
    nredo: int = 5,
    seed: int = 42,
    spherical: bool = False,
    tol: float = 1e-5,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[Indices, Floats, Floats]:
    """The best of `nredo` runs of Lloyd's algorithm from k-means++ seeds, on all rows of x [n, d].

    A run ends when no label changes, when an iteration lowers the inertia by less than `tol` of it (0
    switches this off), or after `niter` iterations. spherical=True brings rows and centroids to length one
    (Dhillon & Modha 2001). A cluster left empty restarts at the point farthest from its centroid, so clusters
    are empty only where there are fewer distinct points than k.

    Returns labels int64[n], centroids float32[k, d] and distances float32[n]: each row's squared Euclidean
    distance to its own centroid, whose sum is the inertia. The same seed gives the same result. `advance` is
    told of iterations done, or saved by an early end: niter x nredo in all. Memory: two copies of x at most.
    Raises ValueError for NaN rows (zero rows, when spherical), named, and for k outside 1..n.
    """
    x = unit_rows(x) if spherical else finite_rows(x)
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be between 1 and the {len(x)} rows, not {k}")
    best = None
    for redo in range(max(1, nredo)):
        seeds, nearest = _seeds(x, k, np.random.default_rng([seed, redo]))
        labels, centroids, distances = _lloyd(x, x[seeds], nearest, niter, tol, spherical, advance)
        inertia = float(distances.sum(dtype=np.float64))
        log.info("k-means %d of %d: inertia %.6g", redo + 1, nredo, inertia)
        if best is None or inertia < best[0]:
            best = inertia, labels, centroids, distances
    assert best is not None
    _, labels, centroids, distances = best
    fill_empty(x, labels, centroids, distances)
    return labels, centroids, distances


def fill_empty(x: Floats, labels: Indices, centroids: Floats, distances: Floats) -> None:
    """Move each centroid without members to the point farthest from its own, as long as a distance is not 0.

    x [n, d]; labels [n], centroids [k, d] and squared distances [n] change in place: a point joins a moved
    centroid that is nearer than its own.
    """
    while distances.any() and (empty := np.flatnonzero(np.bincount(labels, minlength=len(centroids)) == 0)).size:
        centroids[empty[0]] = x[distances.argmax()]
        moved = own_distances(x, centroids, np.full(len(x), empty[0]))
        nearer = moved < distances
        labels[nearer], distances[nearer] = empty[0], moved[nearer]


def _lloyd(
    x: Floats,
    centroids: Floats,
    nearest_two: Nearest,
    niter: int,
    tol: float,
    spherical: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> Nearest:
    """Lloyd's iterations, exact, from the given centroids [k, d] and each row's nearest two of them.

    Where a centroid keeps its members it stays, and so do all distances to it: after the first few iterations
    most centroids stay. Each point keeps its distance to its own centroid (`own`) and a lower bound for all
    others (`others`). Against the moved centroids everything is computed; against the rest only for a point
    whose own centroid has left it farther away than that bound. Distances are squared, less the point's own
    squared length.
    """
    n, k = len(x), len(centroids)
    squares = float(np.einsum("nd,nd->", x, x, dtype=np.float64))
    labels, own, others = nearest_two
    inertia = squares + float(own.sum(dtype=np.float64))
    stale = np.ones(k, dtype=bool)  # clusters whose members changed
    done = 0
    while done < niter:
        done += 1
        advance(1)
        moved = _update(x, labels, centroids, stale, spherical)
        if not moved.any():
            break
        before = labels.copy()
        which = np.flatnonzero(moved)
        unsure = np.arange(n)
        if len(which) < 0.9 * k:
            first, nearest, second = _two_nearest(x, centroids[which])
            stayed = np.where(moved[labels], np.inf, own).astype(np.float32)
            labels = np.where(nearest < stayed, which[first], labels)
            own = np.minimum(nearest, stayed)
            unsure = np.flatnonzero(own > others)
            others = np.minimum(others, np.minimum(second, np.maximum(nearest, stayed)))
        if unsure.size:
            some = x if unsure.size == n else x[unsure]
            labels[unsure], own[unsure], others[unsure] = _two_nearest(some, centroids)
        changed = labels != before
        stale[:] = False
        stale[before[changed]] = stale[labels[changed]] = True
        last, inertia = inertia, squares + float(own.sum(dtype=np.float64))
        if last - inertia < tol * inertia:
            break
    advance(niter - done)
    return labels, centroids, own_distances(x, centroids, labels)


def _two_nearest(x: Floats, centroids: Floats) -> Nearest:
    """The nearest centroid of each row, and |c|^2 - 2 x.c for it and for the second nearest (inf if none)."""
    label = np.empty(len(x), dtype=np.int64)
    first, second = np.empty((2, len(x)), dtype=np.float32)
    squares = np.einsum("kd,kd->k", centroids, centroids)
    twice = -2 * centroids.T
    for lo in range(0, len(x), ROWS):
        part = slice(lo, lo + ROWS)
        values = x[part] @ twice
        values += squares
        each = np.arange(len(values))
        label[part] = values.argmin(axis=1)
        first[part] = values[each, label[part]]
        values[each, label[part]] = np.inf
        second[part] = values.min(axis=1)
    return label, first, second


def _update(x: Floats, labels: Indices, centroids: Floats, stale: Bools, spherical: bool) -> Bools:
    """Move the centroids of stale clusters to their members' mean, in place. Returns which ones moved."""
    k = len(centroids)
    sizes = np.bincount(labels, minlength=k)
    old = centroids.copy()
    members = np.flatnonzero(stale[labels])
    members = members[np.argsort(labels[members], kind="stable")]
    filled = np.flatnonzero(stale & (sizes > 0))
    ends = np.cumsum(sizes[filled])
    for cluster, end in zip(filled, ends, strict=True):
        mean = x[members[end - sizes[cluster] : end]].mean(axis=0, dtype=np.float64)
        length = np.sqrt(mean @ mean) if spherical else 1.0
        if length > 0:
            centroids[cluster] = mean / length
    empty = np.flatnonzero(sizes == 0)
    if empty.size:
        far = own_distances(x, centroids, labels)
        farthest = np.argsort(-far, kind="stable")[: empty.size]
        farthest = farthest[far[farthest] > 0]
        centroids[empty[: len(farthest)]] = x[farthest]
    return (centroids != old).any(axis=1)


def own_distances(x: Floats, centroids: Floats, labels: Indices) -> Floats:
    """Squared Euclidean distances float32[n] of rows to their centroids, free of cancellation."""
    out = np.empty(len(x), dtype=np.float32)
    for lo in range(0, len(x), ROWS):
        part = slice(lo, lo + ROWS)
        step = x[part] - centroids[labels[part]]
        out[part] = np.einsum("nd,nd->n", step, step)
    return out


def _seeds(x: Floats, k: int, rng: np.random.Generator) -> tuple[Indices, Nearest]:
    """k-means++ (Arthur & Vassilvitskii 2007): seeds drawn in proportion to squared distances to those
    before.

    Drawing from the distances of the last look at the pool and keeping a draw with probability (distance now
    / distance then) is the same law, because distances only fall. So a look, a matrix product, serves many
    seeds. Returns int64[k] rows and, as a by-product, what `_two_nearest` would for them as centroids.
    """
    n = len(x)
    squares = np.einsum("nd,nd->n", x, x)
    seeds = [int(rng.integers(n))]
    labels, first, second = _two_nearest(x, x[seeds])
    while len(seeds) < k:
        looked = len(seeds)
        gap = np.maximum(first + squares, 0)
        gap[seeds] = 0
        total = np.cumsum(gap, dtype=np.float64)
        if total[-1] == 0:  # fewer distinct points than k: any others will do
            seeds += np.setdiff1d(np.arange(n), seeds)[: k - looked].tolist()
        else:
            draws = np.searchsorted(total, rng.random(SEEDS) * total[-1], side="right").clip(max=n - 1)
            for i, u in zip(draws.tolist(), rng.random(SEEDS).tolist(), strict=True):
                since = np.square(x[seeds[looked:]] - x[i]).sum(axis=1).min(initial=np.inf)
                if len(seeds) < k and u * gap[i] < min(gap[i], since):
                    seeds.append(i)
        label, one, two = _two_nearest(x, x[seeds[looked:]])
        labels = np.where(one < first, looked + label, labels)
        second = np.minimum(np.minimum(second, two), np.maximum(first, one))
        first = np.minimum(first, one)
    return np.array(seeds, dtype=np.int64), (labels, first, second)
