"""Compiled loops over tiles of similarities. Import this inside functions: it loads numba.

A tile [candidates, examples] is a float32 matrix product that fits in the processor's cache. Sums are in float64.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dsel.arrays import Doubles, Floats, Indices
from dsel.selector.kernels import REORDER
from dsel.selector.lazy import Rows

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)  # other numbers would make float64 of float32
LANES = 64  # of a row of a tile that are looked at together


@njit(fastmath=REORDER, nogil=True)  # type: ignore[untyped-decorator]
def add_gains(tile: Floats, floor: Floats, gains: Doubles) -> None:
    """Add to gains [candidates] how far similarities are above the examples' floor."""
    for c in range(tile.shape[0]):
        gain = 0.0
        for r in range(tile.shape[1]):
            gain += np.float64(max(tile[c, r] - floor[r], ZERO))
        gains[c] += gain


@njit(fastmath=REORDER, nogil=True)  # type: ignore[untyped-decorator]
def add_both(tile: Floats, floor_c: Floats, floor_r: Floats, gains_c: Doubles, gains_r: Doubles) -> None:
    """`add_gains` for both sides of a tile: each example is a candidate as well."""
    for c in range(tile.shape[0]):
        gain, floor = 0.0, floor_c[c]
        for r in range(tile.shape[1]):
            gain += np.float64(max(tile[c, r] - floor_r[r], ZERO))
            gains_r[r] += np.float64(max(tile[c, r] - floor, ZERO))
        gains_c[c] += gain


@njit(fastmath=REORDER, nogil=True)  # type: ignore[untyped-decorator]
def falls(tile: Floats, low: Floats, rise: Floats, skip: Indices) -> Doubles:
    """What gains have lost at least as examples' best similarities rose by `rise` from `low`.

    skip int64[candidates]: how many examples each leaves out. Returns float64[candidates].
    """
    result = np.empty(tile.shape[0])
    for c in range(tile.shape[0]):
        fall = 0.0
        similarities, lows, rises = tile[c, skip[c] :], low[skip[c] :], rise[skip[c] :]
        for r in range(len(lows)):
            fall += np.float64(min(max(similarities[r] - lows[r], ZERO), rises[r]))
        result[c] = fall
    return result


@njit(nogil=True)  # type: ignore[untyped-decorator]
def near(tile: Floats, floor: Floats, first: int, rows: Rows, similarities: Floats, counts: Indices) -> int:
    """List the pairs of a tile that are above the examples' floor, candidate by candidate; returns how many.

    first: the number of the tile's first example. rows and similarities have room for all pairs.
    """
    hits = np.empty(tile.shape[1] + 1, dtype=np.int32)
    at = 0
    for c in range(tile.shape[0]):
        count = 0
        for r in range(tile.shape[1]):
            hits[count] = r
            count += tile[c, r] > floor[r]
        for k in range(count):
            rows[at + k] = first + hits[k]
            similarities[at + k] = tile[c, hits[k]]
        counts[c] = count
        at += count
    return at


@njit(nogil=True)  # type: ignore[untyped-decorator]
def near_turned(tile: Floats, floor: Floats, first: int, rows: Rows, similarities: Floats, counts: Indices) -> int:
    """`near` of the tile [examples, candidates]: the other side of the same products."""
    examples, candidates = tile.shape
    hits, ends = np.empty((examples, candidates + 1), dtype=np.int16), np.empty(examples, dtype=np.int64)
    counts[:] = 0
    for r in range(examples):
        count = 0
        for c in range(candidates):
            hits[r, count] = c
            count += tile[r, c] > floor[r]
        ends[r] = count
        for k in range(count):
            counts[hits[r, k]] += 1
    at = np.cumsum(counts) - counts
    for r in range(examples):
        for k in range(ends[r]):
            c = hits[r, k]
            rows[at[c]] = first + r
            similarities[at[c]] = tile[r, c]
            at[c] += 1
    return counts.sum()


@njit(nogil=True)  # type: ignore[untyped-decorator]
def place(
    rows: Rows, similarities: Floats, counts: Indices, at: Indices, to_rows: Rows, to_similarities: Floats
) -> None:
    """Copy each candidate's pairs to where its list goes on, at[candidate], which moves on."""
    p = 0
    for c in range(len(counts)):
        q = at[c]
        for k in range(counts[c]):
            to_rows[q + k] = rows[p + k]
            to_similarities[q + k] = similarities[p + k]
        p += counts[c]
        at[c] += counts[c]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def replace_first(heap: Floats, whose: Rows, value: np.float32, who: int) -> None:
    """Put a larger value in place of the first, the smallest, of a heap [k]; whose int32[k] says whose each is."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= len(heap):
            break
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at], whose[at] = heap[child], whose[child]
        at = child
    heap[at], whose[at] = value, who


@njit(nogil=True)  # type: ignore[untyped-decorator]
def keep_nearest(tile: Floats, queries: Indices, members: Indices, nearest: Rows, similarities: Floats) -> None:
    """Keep the nearest of what each query is compared with: tile [queries, members].

    nearest int32[n, k] and similarities float32[n, k], -inf where nothing is yet: a heap in each row, the farthest
    first. A query is not its own neighbour.
    """
    for q in range(tile.shape[0]):
        heap, found, own = similarities[queries[q]], nearest[queries[q]], queries[q]
        farthest = heap[0]
        for m in range(tile.shape[1]):
            similarity = tile[q, m]
            if similarity <= farthest or members[m] == own:
                continue
            replace_first(heap, found, similarity, members[m])
            farthest = heap[0]


@njit(fastmath=REORDER, nogil=True)  # type: ignore[untyped-decorator]
def add_kernels(
    tile: Floats,
    ahead_q: Floats,
    ahead_m: Floats,
    queries: Floats,
    candidates: Floats,
    asking: Indices,
    members: Indices,
    first: int,
    limit: np.float32,
    kernels: Floats,
) -> None:
    """Keep the largest values of the kernel max(0, 1 − d²/limit) of each query with the members of a tile.

    tile [asking, members]: products of the `first` columns of some queries and some candidates, named by `asking` and
    `members`; ahead_q [queries] and ahead_m [members] are these columns' own squares. The other columns are looked at
    where the first do not say that a pair is too far. kernels float32[queries, k]: of each query a heap, the smallest
    first, of zeros at the beginning.
    """
    hits, whom = np.empty(tile.shape[1] + 1, dtype=np.int32), np.empty(kernels.shape[1], dtype=np.int32)
    for q in range(tile.shape[0]):
        heap, own, row = kernels[asking[q]], queries[asking[q], first:], tile[q]
        square = ahead_q[asking[q]]
        count, most = 0, limit * (ONE - heap[0]) - square
        for start in range(0, len(row), LANES):
            part, ahead = row[start : start + LANES], ahead_m[start : start + LANES]
            near = 0
            for m in range(len(part)):
                near += ahead[m] - TWO * part[m] < most
            if near:  # in most parts none is
                for m in range(len(part)):
                    hits[count] = start + m
                    count += ahead[m] - TWO * part[m] < most
        for m in hits[:count]:
            other, far = candidates[members[m], first:], ZERO
            for j in range(len(own)):
                far += (own[j] - other[j]) * (own[j] - other[j])
            far = max(far + square + ahead_m[m] - TWO * row[m], ZERO)
            kernel = ONE - far / limit
            if kernel <= heap[0]:
                continue
            replace_first(heap, whom, kernel, members[m])


@njit(nogil=True)  # type: ignore[untyped-decorator]
def turn(nearest: Rows, similarities: Floats, starts: Indices, rows: Rows, values: Floats) -> None:
    """Each candidate's list of whom it is near to, from each example's nearest [n, k]; itself comes first.

    starts int64[n]: where the lists begin, which this moves to where they end.
    """
    for i in range(len(starts)):
        rows[starts[i]], values[starts[i]] = i, np.float32(1)
        starts[i] += 1
    for v in range(nearest.shape[0]):
        for j in range(nearest.shape[1]):
            if similarities[v, j] > -np.inf:
                at = starts[nearest[v, j]]
                rows[at], values[at] = v, similarities[v, j]
                starts[nearest[v, j]] += 1
