"""Silhouette scores of every point (Rousseeuw 1987), exact without most of the distances, and simplified."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles, Floats, Indices, finite_rows
from dsel.blocks import in_threads, matrix, parts
from dsel.clusterer.points import Points
from dsel.progress import progress

TILE = 4_000_000  # bounds held at once
ROWS = 2048  # distances are computed in squares of so many rows
ROUNDING = 1e-5  # more than float32 loses in a squared distance, relative to the squared lengths


def silhouette(x: ArrayLike, labels: ArrayLike) -> Floats:
    """Euclidean silhouette float32[n] of each row of x [n, d] in its cluster, labels int[n].

    s = (b - a) / max(a, b): a is the mean distance to the others of the own cluster, b the smallest mean
    distance to another cluster; 0 for a cluster of one. As scikit-learn's silhouette_samples, to float32.

    Lower bounds of the mean distance from a point to a cluster, from the cluster's first moments, show that
    few clusters can be the nearest. Only those are measured, in float64. Memory: one more copy of x and some
    200 MB. Raises ValueError for NaN rows, named, for labels of another length, for fewer than two clusters.
    """
    rows, which, sizes = _checked(x, labels)
    n, k = len(rows), len(sizes)
    order = np.argsort(which, kind="stable")
    rows, which = rows[order], which[order]
    rows -= rows.mean(axis=0)
    clusters = [slice(end - size, end) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
    spreads = [np.array(values) for values in zip(*(_spread(rows[c]) for c in clusters), strict=True)]

    with progress("silhouette", total=n, unit="points") as advance:
        own = np.concatenate([_distance_sums(rows[c], rows[c]) for c in clusters])
        own /= np.maximum(sizes[which] - 1, 1)
        other = np.full(n, np.inf)
        for lo in range(0, n, block := max(1, TILE // k)):
            points = np.arange(lo, min(lo + block, n))
            bound, likely = _mean_distances_at_least(rows[points], *spreads)
            bound[which[points], points - lo] = likely[which[points], points - lo] = np.inf
            # The likeliest cluster goes first: it usually is the one, and rules most others out.
            first = likely.argmin(axis=0)
            for likeliest in (True, False):
                for cluster in range(k):
                    asked = points[((first == cluster) == likeliest) & (bound[cluster] < other[points])]
                    if asked.size:
                        means = _distance_sums(rows[asked], rows[clusters[cluster]]) / sizes[cluster]
                        other[asked] = np.minimum(other[asked], means)
            advance(len(points))
    scores = np.empty(n, dtype=np.float32)
    scores[order] = _score(own, other, sizes[which])
    return scores


def simplified(x: ArrayLike, labels: ArrayLike, centroids: ArrayLike, *, spherical: bool = False) -> Floats:
    """The silhouette float32[n] with distances to centroids [k, d] for mean distances to members.

    a is the distance to the own centroid, b to the nearest other one (Hruschka, Campello & de Castro 2004); 0
    for a cluster of one. x [n, d], float32 or float16, in memory or mapped, labels int[n] in 0..k-1. spherical:
    each row at length one. n k distances in all, in float64; beside x some tens of MB for each thread and 30 bytes
    a row. Raises ValueError as `silhouette` does, and for labels or centroids that do not fit.
    """
    c = finite_rows(centroids).astype(np.float64)
    points = Points(matrix(x), spherical=spherical)
    which = _one_each(labels, len(points))
    if not 0 <= which.min() <= which.max() < len(c):
        raise ValueError(f"labels must be from 0 to {len(c) - 1}, one less than the centroids")
    sizes = np.bincount(which)
    _need_two(int(np.count_nonzero(sizes)))
    if points.width != c.shape[1]:
        raise ValueError(f"x has {points.width} columns and the centroids {c.shape[1]}")
    own, other = np.empty((2, len(points)))

    def measure(part: slice) -> None:
        distances = _euclidean(points.read(part).astype(np.float64), c)
        each = np.arange(len(distances))
        own[part] = distances[each, which[part]]
        distances[each, which[part]] = np.inf
        other[part] = distances.min(axis=1)

    with progress("silhouette, simplified", total=len(points), unit="points") as advance:
        in_threads(measure, parts(len(points), len(c), TILE), advance)
    return _score(own, other, sizes[which])


def _checked(x: ArrayLike, labels: ArrayLike) -> tuple[Floats, Indices, Indices]:
    """Rows, labels renumbered 0..k-1 without gaps, and the k cluster sizes."""
    rows = finite_rows(x)
    _, which, sizes = np.unique(_one_each(labels, len(rows)), return_inverse=True, return_counts=True)
    _need_two(len(sizes))
    return rows, which, sizes


def _one_each(labels: ArrayLike, n: int) -> Indices:
    names = np.asarray(labels)
    if names.shape != (n,):
        raise ValueError(f"labels must be one cluster for each of {n} rows, not shape {names.shape}")
    return names


def _need_two(clusters: int) -> None:
    if clusters < 2:
        raise ValueError("a silhouette needs at least two clusters")


def _distance_sums(points: Floats, members: Floats) -> Doubles:
    """float64[len(points)]: each point's summed Euclidean distance to all members."""
    sums = np.zeros(len(points))
    for part in _slices(len(points)):
        a = points[part].astype(np.float64)
        for others in _slices(len(members)):
            b = members[others].astype(np.float64)
            sums[part] += _euclidean(a, b).sum(axis=1)
    return sums


def _slices(n: int) -> Iterator[slice]:
    return (slice(lo, lo + ROWS) for lo in range(0, n, ROWS))


def _euclidean(a: Doubles, b: Doubles) -> Doubles:
    distances = a @ (-2 * b.T)
    distances += np.einsum("nd,nd->n", a, a)[:, None]
    distances += np.einsum("nd,nd->n", b, b)
    np.maximum(distances, 0, out=distances)
    return np.sqrt(distances, out=distances)


def _spread(members: Floats) -> tuple[Floats, float, float, float]:
    """A cluster's mean [d]; of squared distances to it, the mean and the standard deviation; and an upper
    bound of the variance along any direction."""
    mean = members.mean(axis=0, dtype=np.float64).astype(np.float32)
    y = members - mean
    squares = np.einsum("nd,nd->n", y, y, dtype=np.float64)
    # The Frobenius norm of the fourth power of a covariance is at least its largest eigenvalue to the fourth.
    power = (y.T @ y if len(y) > y.shape[1] else y @ y.T).astype(np.float64) / len(y)
    power = power @ power
    return mean, float(squares.mean()), float(squares.std()), float(np.linalg.norm(power @ power) ** 0.25)


def _mean_distances_at_least(
    x: Floats, means: Floats, variances: Doubles, deviations: Doubles, directional: Doubles
) -> tuple[Floats, Floats]:
    """float32[k, n]: lower bounds of the mean distance from a point to a cluster, and of its square's
    expectation.

    With Z the squared distance to a member: E sqrt(Z) is at least the distance to the mean, by convexity, and
    at least sqrt(E Z) (1 - Var Z / (2 E[Z]^2)), since sqrt(1 + u) >= 1 + u/2 - u^2/2. Var Z follows from
    `_spread`.
    """
    to_mean = np.einsum("kd,kd->k", means, means)[:, None] + np.einsum("nd,nd->n", x, x)
    to_mean *= 1 - ROUNDING
    to_mean -= 2 * (means @ x.T)
    np.maximum(to_mean, 0, out=to_mean)
    expected = to_mean + variances.astype(np.float32)[:, None] + np.float32(1e-30)
    np.sqrt(to_mean, out=to_mean)
    varies = to_mean * (2 * np.sqrt(directional)).astype(np.float32)[:, None]
    varies += deviations.astype(np.float32)[:, None]
    varies /= expected
    np.multiply(varies, varies, out=varies)
    varies *= -0.5 * (1 + ROUNDING)
    varies += 1 - ROUNDING
    varies *= np.sqrt(expected)
    return np.maximum(to_mean, varies, out=to_mean), expected


def _score(own: Doubles, other: Doubles, sizes: Indices) -> Floats:
    longest = np.maximum(own, other)
    defined = (sizes > 1) & (longest > 0)
    return np.where(defined, (other - own) / np.where(defined, longest, 1), 0).astype(np.float32)
