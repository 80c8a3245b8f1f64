"""How dense a pool is around some of its examples: sums of a kernel over neighbours, without most of the products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles, Floats, Indices
from dsel.blocks import in_threads, parts, summed
from dsel.progress import progress
from dsel.selector.products import slices

QUERIES = 4096  # that go through the candidates together
MEMBERS = 1024  # compared at once, in a processor's cache
SAMPLE = 16_384  # rows that principal directions are found from
COMPLETED = 30  # times what a column takes in a product, it takes where pairs are completed one by one
IN_A_CELL = 32  # queries that make a cell worth its while, and points that its centre is found from
ITERATIONS = 6  # of k-means, to find centres
ROUNDING = 1e-5
LISTS = 4  # clusters of the inverted file to each square root of its points
EACH = 64  # points that a cluster's centre is found from
PROBES = 16  # of which so many are looked into


def kde(candidates: ArrayLike, asked: Indices, *, sigma: float, neighbours: int) -> Doubles:
    """ρ of some candidates: the kernel max(0, 1 − d²/σ²), summed over the nearest `neighbours` among all of them.

    Exact, and most pairs of a large pool are never looked at. Both sides fall into cells, and two cells whose members
    lie farther than σ apart along the line through their centres have nothing in common. In others, products of the
    leading columns say of most pairs that they are farther than σ, and the rest are completed one by one. That saves
    most where leading columns vary most, as after `turn`; how many come first is found from a sample. Time O(mnd) at
    worst; memory O(n + √n d), as candidates that are float32 are read where they lie.

    Args:
        candidates: [n, d].
        asked: int64[m], whose ρ is wanted.
        sigma: σ.
        neighbours: how many count.

    Returns:
        float64[m].
    """
    from dsel.selector.tiles import add_kernels

    x = np.ascontiguousarray(candidates, dtype=np.float32)
    limit, first = np.float32(sigma**2), _leading(x, asked, sigma**2)
    centres = _centres(x, max(1, min(round(2 * math.sqrt(len(x))), len(asked) // IN_A_CELL)))
    # By all columns: the first alone tell fewer apart.
    there, here = _Cells.of(x, np.arange(len(x)), centres), _Cells.of(x, asked, centres)
    ahead = x[:, :first]
    squares = np.concatenate([_squares(ahead[there.order[part]]) for part in parts(len(x), 8 * first)])
    apart = sigma * np.sqrt(_distances(centres, centres)) + ROUNDING
    cells = np.repeat(np.arange(len(centres)), np.diff(here.ends, prepend=0))
    out = np.empty(len(asked))

    def work(part: slice) -> None:
        own, rows = cells[part], here.order[part]
        queries = x[asked[rows]]
        leading = np.ascontiguousarray(queries[:, :first])
        own_squares = _squares(leading)
        kernels = np.zeros((len(rows), min(neighbours, len(x))), dtype=np.float32)
        for cell, (low, high) in enumerate(pairwise([0, *there.ends.tolist()])):
            near = np.flatnonzero((there.least[cell] + here.least[:, cell] <= apart[cell])[own])
            if not near.size:
                continue
            for some in slices(high, MEMBERS, low):
                names = there.order[some]
                members = ahead[names]
                for others in slices(len(near), MEMBERS):
                    asking = near[others]
                    tile = leading[asking] @ members.T
                    add_kernels(tile, own_squares, squares[some], queries, x, asking, names, first, limit, kernels)
        out[rows] = kernels.sum(axis=1, dtype=np.float64)

    with progress("density of the pool", total=len(asked), unit="examples") as advance:
        in_threads(work, slices(len(asked), QUERIES), advance)
    return out


def turn(rows: Floats) -> None:
    """Turn rows [n, d] in place so that the first columns are those in which they differ most; distances stay."""
    some = rows[:: -(-len(rows) // SAMPLE)].astype(np.float64)
    some -= some.mean(axis=0)
    directions = np.linalg.eigh(some.T @ some)[1][:, ::-1].astype(np.float32)
    for part in slices(len(rows), SAMPLE):
        rows[part] = rows[part] @ directions


def _distances(a: Floats, b: Floats) -> Floats:
    """Squared, of all rows of a to all of b; not below 0."""
    return np.maximum(_squares(a)[:, None] + _squares(b) - 2 * a @ b.T, 0)


def _squares(rows: Floats) -> Floats:
    return np.asarray(np.einsum("nd,nd->n", rows, rows))


def _leading(x: Floats, asked: Indices, limit: float) -> int:
    """By how many columns to look first for pairs of rows whose squared distance is below `limit`: the cheapest."""
    d = x.shape[1]
    some, others = x[asked[:: -(-len(asked) // 512)]], x[:: -(-len(x) // MEMBERS)]
    least, far = np.inf, np.zeros((len(some), len(others)), dtype=np.float32)
    best, step = d, max(1, -(-d // 12))
    for start in range(0, d, step):
        stop = min(start + step, d)
        far += _distances(some[:, start:stop], others[:, start:stop])
        cost = stop + COMPLETED * np.mean(far < limit) * (d - stop)
        if cost < least:
            least, best = cost, stop
    return best


def _centres(rows: Floats, count: int) -> Floats:
    """Some points that the rows gather around, [count, d]: k-means on a sample."""
    rng = np.random.default_rng(0)
    sample = rows[np.sort(rng.choice(len(rows), min(len(rows), IN_A_CELL * count), replace=False))]
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(ITERATIONS if count > 1 else 0):
        own = np.concatenate(
            [_distances(sample[part], centres).argmin(axis=1) for part in parts(len(sample), 8 * count)]
        )
        filled, sums, sizes = summed(sample, own)
        centres[filled] = sums / sizes[:, None]
    return centres


@dataclass(frozen=True)
class _Cells:
    """Some rows, by where they are named, in the `order` int64[m] of their cells; each ends before `ends` int64[cells].

    least [cells, cells]: of cell i and another one j the least (c_i − c_j)·y of a row y in i, with centres c.
    """

    order: Indices
    ends: Indices
    least: Floats

    @classmethod
    def of(cls, x: Floats, names: Indices, centres: Floats) -> _Cells:
        own = np.empty(len(names), dtype=np.int64)
        least = np.full((len(centres), len(centres)), np.inf, dtype=np.float32)
        half = _squares(centres) / 2
        for part in parts(len(names), 16 * len(centres)):
            products = x[names[part]] @ centres.T
            own[part] = found = (products - half).argmax(axis=1)
            order = np.argsort(found, kind="stable")
            filled, starts = np.unique(found[order], return_index=True)
            beyond = products[np.arange(len(found)), found][:, None] - products
            least[filled] = np.minimum(least[filled], np.minimum.reduceat(beyond[order], starts, axis=0))
        return cls(np.argsort(own, kind="stable"), np.cumsum(np.bincount(own, minlength=len(centres))), least)


def kde_by_lists(candidates: ArrayLike, asked: Indices, *, sigma: float, neighbours: int) -> Doubles:
    """What `kde` says, nearly: neighbours are looked for in the nearest lists of an inverted file (faiss) alone.

    That holds another copy of the candidates, in memory.
    """
    import faiss

    x = np.ascontiguousarray(candidates, dtype=np.float32)
    lists = max(1, min(len(x) // 39, round(LISTS * len(x) ** 0.5)))  # faiss wants 39 points of each
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(x.shape[1]), x.shape[1], lists)
    index.cp.seed, index.cp.max_points_per_centroid = 0, EACH
    with progress("inverted file of the pool", total=None, unit=""):
        index.train(x)
        index.add(x)
    index.nprobe = min(lists, PROBES)
    out = np.empty(len(asked))
    with progress("density of the pool", total=len(asked), unit="examples") as advance:
        for start in range(0, len(asked), 1024):
            ends, far, _ = index.range_search(x[asked[start : start + 1024]], sigma**2)
            for row, (low, high) in enumerate(zip(ends[:-1].astype(int), ends[1:].astype(int), strict=True)):
                near = far[low:high]
                near = np.partition(near, neighbours - 1)[:neighbours] if len(near) > neighbours else near
                out[start + row] = np.maximum(0, 1 - near.astype(np.float64) / sigma**2).sum()
            advance(len(ends) - 1)
    return out
