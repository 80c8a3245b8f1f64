"""Compiled loops of lazy greedy selection over lists of pairs. Import this inside functions: it loads numba.

A queue holds candidates with an upper bound of what each would add, the largest on top and of equals the lowest
candidate: a heap in two arrays, `keys` float64 and `items` int64, of which the first `size` are in use.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dsel.arrays import Bools, Doubles, Floats, Indices
from dsel.selector.kernels import REORDER

DECIMALS = 1e9  # values that agree to nine decimals are ties
ROUNDING = np.float32(1e-6)  # bounds the error of a float32 dot product of unit vectors, many times over
SERVED = 1 - 1e-12  # a cosine that cannot be beaten

Rows = np.ndarray  # int32: examples in lists of pairs


@njit  # type: ignore[untyped-decorator]
def above(keys: Doubles, items: Indices, a: int, b: int) -> bool:
    """Whether what is at a comes before what is at b."""
    return keys[a] > keys[b] or (keys[a] == keys[b] and items[a] < items[b])


@njit  # type: ignore[untyped-decorator]
def sink(keys: Doubles, items: Indices, size: int, at: int) -> None:
    """Move what is at `at` down to where it belongs."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and above(keys, items, child + 1, child):
            child += 1
        if not above(keys, items, child, at):
            return
        keys[at], keys[child] = keys[child], keys[at]
        items[at], items[child] = items[child], items[at]
        at = child


@njit  # type: ignore[untyped-decorator]
def push(keys: Doubles, items: Indices, size: int, new_keys: Doubles, new_items: Indices) -> int:
    """Add some candidates; returns the new size."""
    for key, item in zip(new_keys, new_items):
        at, size = size, size + 1
        keys[at], items[at] = key, item
        while at > 0 and above(keys, items, at, (at - 1) // 2):
            parent = (at - 1) // 2
            keys[at], keys[parent] = keys[parent], keys[at]
            items[at], items[parent] = items[parent], items[at]
            at = parent
    return size


@njit  # type: ignore[untyped-decorator]
def pop(keys: Doubles, items: Indices, size: int) -> int:
    """Take the top away; returns the new size."""
    size -= 1
    keys[0], items[0] = keys[size], items[size]
    sink(keys, items, size, 0)
    return size


@njit  # type: ignore[untyped-decorator]
def order(keys: Doubles, items: Indices, size: int) -> None:
    """Make a heap of arrays in any order."""
    for at in range(size // 2 - 1, -1, -1):
        sink(keys, items, size, at)


@njit  # type: ignore[untyped-decorator]
def take(
    keys: Doubles, items: Indices, size: int, since: Indices, end: int, stale: bool, left: Bools, out: Indices
) -> tuple[int, int]:
    """Pop into `out` while there is room and the top is `stale` or not: since[top] < end; and not `left` where it is.

    Returns how many, and the new size.
    """
    count = 0
    while size > 0 and count < len(out) and (since[items[0]] < end) == stale and not left[items[0]]:
        out[count] = items[0]
        count += 1
        size = pop(keys, items, size)
    return count, size


@njit(fastmath=REORDER, nogil=True)  # type: ignore[untyped-decorator]
def cosine(x: Floats, norms: Doubles, a: int, b: int) -> float:
    """The cosine of two rows in float64: the same bits wherever it is computed."""
    dot = 0.0
    for j in range(x.shape[1]):
        dot += np.float64(x[a, j]) * np.float64(x[b, j])
    return min(dot / (norms[a] * norms[b]), 1.0)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def cosines(x: Floats, norms: Doubles, rows: Rows, i: int) -> Doubles:
    """The cosines of some rows with row i, float64[len(rows)]."""
    result = np.empty(len(rows))
    for r in range(len(rows)):
        result[r] = cosine(x, norms, rows[r], i)
    return result


@njit  # type: ignore[untyped-decorator]
def pick_listed(
    x: Floats,
    norms: Doubles,
    starts: Indices,
    ends: Indices,
    rows: Rows,
    similarities: Floats,
    best: Doubles,
    floor: Floats,
    weight: float,
    bonus: Doubles,
    keys: Doubles,
    items: Indices,
    size: int,
    stamps: Indices,
    chosen: Indices,
    first: int,
    stop: int,
) -> int:
    """Fill chosen[first:stop] by the lazy greedy over lists; returns the new size of the queue.

    Candidate i would serve the examples rows[starts[i]:ends[i]], as well as `similarities` says; a list whose greater
    half is of no use any more is shortened where it lies. x [n, d]: float32 similarities are bounds, and what comes to
    the top of the queue is computed in float64; x [n, 0]: they are exact.

    best float64[n]: each example's similarity to the nearest chosen. floor float32[n]: what a similarity must exceed to
    matter. stamps int64[n]: after t picks, 2t for a bound of that time and 2t + 1 for an exact value.
    """
    exact_lists = x.shape[1] == 0
    one_key, one_item = np.empty(1), np.empty(1, dtype=np.int64)
    for done in range(first, stop):
        while True:
            i = items[0]
            size = pop(keys, items, size)
            if stamps[i] == 2 * done + 1:
                break
            gain = 0.0
            if stamps[i] == 2 * done:
                for p in range(starts[i], ends[i]):
                    v = rows[p]
                    if similarities[p] > floor[v]:
                        gain += max(cosine(x, norms, v, i) - best[v], 0.0)
                stamps[i] += 1
            else:
                useful = 0
                for p in range(starts[i], ends[i]):
                    over = similarities[p] - floor[rows[p]]
                    if over > 0:
                        gain += np.float64(over)
                        useful += 1
                if 2 * useful < ends[i] - starts[i]:
                    at = starts[i]
                    for p in range(starts[i], ends[i]):
                        if similarities[p] > floor[rows[p]]:
                            rows[at], similarities[at] = rows[p], similarities[p]
                            at += 1
                    ends[i] = at
                stamps[i] = 2 * done + exact_lists
            one_key[0], one_item[0] = np.rint((weight * gain + bonus[i]) * DECIMALS), i
            size = push(keys, items, size, one_key, one_item)
        chosen[done] = i
        for p in range(starts[i], ends[i]):
            v = rows[p]
            if similarities[p] > floor[v]:
                if exact_lists:
                    best[v] = floor[v] = similarities[p]
                else:
                    best[v] = max(best[v], cosine(x, norms, v, i))
                    floor[v] = np.float32(np.inf) if best[v] > SERVED else np.float32(best[v]) - ROUNDING
    return size
