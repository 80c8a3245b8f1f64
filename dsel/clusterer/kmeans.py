"""k-means by Lloyd's algorithm that computes only the distances an iteration can have changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Bools, Floats, Indices
from dsel.blocks import Matrix, matrix
from dsel.clusterer.kept import Kept
from dsel.clusterer.points import Nearest, Points
from dsel.progress import progress

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

SEEDS = 128  # first centroids drawn between two looks at the whole pool
SAMPLE = 2**32 - 1  # the stream of random numbers that the sample is drawn from; restarts have those from 0

Found = tuple[Indices, Floats, Floats]
"""labels int64[n], centroids float32[k, d], and squared distances float32[n] to the own centroid."""


def fit(
    x: ArrayLike,
    k: int,
    *,
    niter: int = 300,
    nredo: int = 5,
    seed: int = 42,
    spherical: bool = False,
    tol: float = 1e-5,
    sample: int | None = None,
    device: torch.device | None = None,
    folder: Path | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Found:
    """The best of `nredo` runs of Lloyd's algorithm from k-means++ seeds, on all rows of x [n, d] or on a sample.

    A run ends when no label changes, when an iteration lowers the inertia by less than `tol` of it (0
    switches this off), or after `niter` iterations. spherical=True brings rows and centroids to length one
    (Dhillon & Modha 2001). A cluster left empty restarts at the point farthest from its centroid, so clusters
    are empty only where there are fewer distinct points than k.

    Time: a run's seeds are n k d products, its first iterations as many each, later ones fewer; of a sample of m rows m
    for n, and n k d twice at the end. Memory: beside x some 60 bytes a row that is trained on, blocks of some MB for
    each thread, and a float32 copy of a sample, or of all rows if they are not that already and it takes up to 1 GB.

    Args:
        x: float32 or float16, in memory or mapped: read in blocks, where it lies.
        sample: train on so many rows, drawn by the seed. All rows then join the nearest centroid, each centroid moves
            to the mean of its members, and they do so once more.
        device: where torch is to compute; None for the CPU's own kernels. The choices are the same but for float ties.
        folder: gets what a killed run has come to, every half a minute; from what is there the work goes on, and ends
            the same.
        advance: is told of iterations done, or saved by an early end: niter x nredo in all.

    Returns:
        labels int64[n], centroids float32[k, d] and distances float32[n]: each row's squared Euclidean distance to its
        own centroid, whose sum is the inertia. The same seed gives the same result.

    Raises:
        ValueError: for NaN rows (zero rows, when spherical), named, and for k outside 1..n.
    """
    values = matrix(x)
    n, nredo = len(values), max(1, nredo)
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the {n} rows, not {k}")
    kept = Kept(folder, f"kmeans-{k}")
    known = kept.load()
    if "labels" in known:
        advance(niter * nredo)
        return known["labels"], known["centroids"], known["distances"]
    points = on(device, values, spherical)
    runs = Runs(k, niter, nredo, seed, spherical, tol, kept, advance)
    if sample is None or sample >= n:
        labels, centroids, distances = runs.best(points.at_hand() if device is None else points)
    else:
        training = on(device, sampled(points, max(sample, k), seed), spherical=False)
        _, centroids, _ = runs.best(training)
        labels, distances = close(points, centroids, spherical)
    fill_empty(points, labels, centroids, distances)
    kept.save({"labels": labels, "centroids": centroids, "distances": distances})
    return labels, centroids, distances


def on(device: torch.device | None, x: Matrix, spherical: bool) -> Points:
    """The rows of x, to be computed with on a device."""
    if device is None:
        return Points(x, spherical=spherical)
    from dsel.clusterer.device_points import DevicePoints

    return DevicePoints(x, device, spherical=spherical)


def sampled(points: Points, size: int, seed: int) -> Floats:
    """`size` of the rows, drawn by the seed, in their order: float32 in memory. All of them where they are no more."""
    rng = np.random.default_rng([seed, SAMPLE])
    return points.copied(np.sort(rng.choice(len(points), min(size, len(points)), replace=False)))


def close(points: Points, centroids: Floats, spherical: bool) -> tuple[Indices, Floats]:
    """Labels int64[n] and squared distances float32[n] of all rows, for centroids [k, d] of a sample: these move, too.

    A mean of 256 rows is off the mean of a much larger cluster by what costs 1/256 of the inertia.
    """
    with progress("k-means, all points", total=2 * len(points), unit="points") as advance:
        labels = points.two_nearest(centroids, advance=advance)[0]
        recentre(points, labels, centroids, spherical)
        labels = points.two_nearest(centroids, advance=advance)[0]
    return labels, points.own_distances(centroids, labels)


def recentre(points: Points, labels: Indices, centroids: Floats, spherical: bool) -> None:
    """Move centroids [k, d] to the means of their members, in place and in one look at all rows."""
    sums = points.sums(labels, len(centroids))
    sizes = np.bincount(labels, minlength=len(centroids))
    divisors = np.linalg.norm(sums, axis=1) if spherical else sizes
    moved = divisors > 0
    centroids[moved] = sums[moved] / divisors[moved, None]


def fill_empty(points: Points, labels: Indices, centroids: Floats, distances: Floats) -> None:
    """Move each centroid without members to the point farthest from its own, as long as a distance is not 0.

    labels [n]; centroids [k, d] and squared distances [n] change in place: a point joins a moved centroid that
    is nearer than its own.
    """
    while distances.any() and (empty := np.flatnonzero(np.bincount(labels, minlength=len(centroids)) == 0)).size:
        centroids[empty[0]] = points.read(np.array([distances.argmax()]))[0]
        moved = points.own_distances(centroids, np.full(len(points), empty[0]))
        nearer = moved < distances
        labels[nearer], distances[nearer] = empty[0], moved[nearer]


@dataclass
class State:
    """Lloyd's algorithm between two iterations: all that the next one depends on.

    own, others: each point's distance to its own centroid, and a lower bound for all others: squared, less the
    point's own squared length. stale: the clusters whose members changed. done: iterations. over: none is to follow.
    """

    centroids: Floats
    labels: Indices
    own: Floats
    others: Floats
    stale: Bools
    inertia: float
    done: int = 0
    over: bool = False


@dataclass(frozen=True)
class Runs:
    """Some runs of Lloyd's algorithm, of which the best counts: see `fit`."""

    k: int
    niter: int
    nredo: int
    seed: int
    spherical: bool
    tol: float
    kept: Kept
    advance: Callable[[int], None]

    def best(self, points: Points) -> Found:
        """The run of the lowest inertia, going on from what is kept of them."""
        first, state, best = _known(self.kept.load())
        self.advance(first * self.niter + (state.done if state else 0))
        if first or state:
            log.info("k-means goes on with run %d of %d", first + 1, self.nredo)
        for redo in range(first, self.nredo):
            state = state or begin(points, self.k, np.random.default_rng([self.seed, redo]))
            for _ in lloyd(points, state, self.niter, self.tol, self.spherical):
                self.advance(1)
                self.kept.save(_told(redo, state, best))
            self.advance(self.niter - state.done)
            found = state.labels, state.centroids, points.own_distances(state.centroids, state.labels)
            log.info("k-means %d of %d: inertia %.6g", redo + 1, self.nredo, _inertia(found))
            if best is None or _inertia(found) < _inertia(best):
                best = found
            state = None
        assert best is not None
        return best


def _inertia(found: Found) -> float:
    return float(found[2].sum(dtype=np.float64))


def _told(redo: int, state: State, best: Found | None) -> dict[str, Any]:
    """What `_known` reads: the run that is going on, how far it is, and the best one before it."""
    told = {"run": redo, **{f"state.{name}": value for name, value in vars(state).items()}}
    return told if best is None else {**told, **{f"best.{i}": value for i, value in enumerate(best)}}


def _known(told: Mapping[str, Any]) -> tuple[int, State | None, Found | None]:
    if not told:
        return 0, None, None
    known = {name.removeprefix("state."): value for name, value in told.items() if name.startswith("state.")}
    state = State(**{name: value if value.ndim else value.item() for name, value in known.items()})
    found = (told["best.0"], told["best.1"], told["best.2"]) if "best.0" in told else None
    return int(told["run"]), state, found


def begin(points: Points, k: int, rng: np.random.Generator) -> State:
    """Seeds as centroids, and each point's nearest two of them."""
    seeds, (labels, own, others) = _seeds(points, k, rng)
    return start(points, points.read(seeds), (labels, own, others))


def start(points: Points, centroids: Floats, nearest_two: Nearest) -> State:
    """Lloyd's algorithm before its first iteration."""
    labels, own, others = nearest_two
    inertia = points.square + float(own.sum(dtype=np.float64))
    return State(centroids, labels, own, others, np.ones(len(centroids), dtype=bool), inertia)


def lloyd(points: Points, now: State, niter: int, tol: float, spherical: bool) -> Iterator[State]:
    """Lloyd's iterations, exact: yields the state, one object, after each.

    Where a centroid keeps its members it stays, and so do all distances to it: after the first few iterations
    most centroids stay. Against the moved centroids everything is computed; against the rest only for a point
    whose own centroid has left it farther away than its bound for all others.
    """
    n, k = len(points), len(now.centroids)
    while now.done < niter and not now.over:
        now.done += 1
        moved = _update(points, now.labels, now.centroids, now.stale, spherical)
        if not moved.any():
            now.over = True
            yield now
            return
        before = now.labels.copy()
        which = np.flatnonzero(moved)
        unsure: Indices | None = None  # all
        if len(which) < 0.9 * k:
            first, nearest, second = points.two_nearest(now.centroids[which])
            stayed = np.where(moved[now.labels], np.inf, now.own).astype(np.float32)
            now.labels = np.where(nearest < stayed, which[first], now.labels)
            now.own = np.minimum(nearest, stayed)
            unsure = np.flatnonzero(now.own > now.others)
            now.others = np.minimum(now.others, np.minimum(second, np.maximum(nearest, stayed)))
        if unsure is None or len(unsure) == n:
            now.labels, now.own, now.others = points.two_nearest(now.centroids)
        elif unsure.size:
            now.labels[unsure], now.own[unsure], now.others[unsure] = points.two_nearest(now.centroids, unsure)
        changed = now.labels != before
        now.stale[:] = False
        now.stale[before[changed]] = now.stale[now.labels[changed]] = True
        last, now.inertia = now.inertia, points.square + float(now.own.sum(dtype=np.float64))
        now.over = last - now.inertia < tol * now.inertia
        yield now


def _update(points: Points, labels: Indices, centroids: Floats, stale: Bools, spherical: bool) -> Bools:
    """Move the centroids of stale clusters to their members' mean, in place. Returns which ones moved."""
    old = centroids.copy()
    for cluster, mean in zip(*points.means(labels, stale), strict=True):
        length = np.sqrt(mean @ mean) if spherical else 1.0
        if length > 0:
            centroids[cluster] = mean / length
    empty = np.flatnonzero(np.bincount(labels, minlength=len(centroids)) == 0)
    if empty.size:
        far = points.own_distances(centroids, labels)
        farthest = np.argsort(-far, kind="stable")[: empty.size]
        farthest = farthest[far[farthest] > 0]
        centroids[empty[: len(farthest)]] = points.read(farthest)
    return (centroids != old).any(axis=1)


def _seeds(points: Points, k: int, rng: np.random.Generator) -> tuple[Indices, Nearest]:
    """k-means++ (Arthur & Vassilvitskii 2007): seeds drawn in proportion to squared distances to those
    before.

    Drawing from the distances of the last look at the pool and keeping a draw with probability (distance now
    / distance then) is the same law, because distances only fall. So a look, a matrix product, serves many
    seeds. Returns int64[k] rows and, as a by-product, what `two_nearest` would for them as centroids.
    """
    n = len(points)
    squares = points.squares()
    seeds = [int(rng.integers(n))]
    labels, first, second = points.two_nearest(points.read(np.array(seeds)))
    while len(seeds) < k:
        looked = len(seeds)
        gap = np.maximum(first + squares, 0)
        gap[seeds] = 0
        total = np.cumsum(gap, dtype=np.float64)
        if total[-1] == 0:  # fewer distinct points than k: any others will do
            seeds += np.setdiff1d(np.arange(n), seeds)[: k - looked].tolist()
        else:
            draws = np.searchsorted(total, rng.random(SEEDS) * total[-1], side="right").clip(max=n - 1)
            drawn, newest = points.read(draws), np.empty((SEEDS, points.width), dtype=np.float32)
            for i, row, u in zip(draws.tolist(), drawn, rng.random(SEEDS).tolist(), strict=True):
                since = np.square(newest[: len(seeds) - looked] - row).sum(axis=1).min(initial=np.inf)
                if len(seeds) < k and u * gap[i] < min(gap[i], since):
                    newest[len(seeds) - looked] = row
                    seeds.append(i)
        label, one, two = points.two_nearest(points.read(np.array(seeds[looked:])))
        labels = np.where(one < first, looked + label, labels)
        second = np.minimum(np.minimum(second, two), np.maximum(first, one))
        first = np.minimum(first, one)
    return np.array(seeds, dtype=np.int64), (labels, first, second)
