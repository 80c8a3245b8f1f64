"""Compiled inner loops of k-center. Import this inside functions: it loads numba.

Whatever decides is `distance`, whose terms are added in a fixed order: products of matrices only say where to look.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dsel.arrays import Floats, Indices

# Maxima may be reordered for vector units; infinities keep their meaning, NaN never gets here.
REORDER = {"reassoc", "nsz", "nnan"}
LANES = 16  # sums that are kept beside each other, as vector units would


@njit(nogil=True)  # type: ignore[untyped-decorator]
def distance(a: Floats, b: Floats) -> np.float32:
    """The squared distance of two rows [d], summed in float64 and then rounded."""
    sums = np.zeros(LANES, np.float64)
    whole = len(a) // LANES * LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            step = np.float64(a[start + lane]) - np.float64(b[start + lane])
            sums[lane] += step * step
    total = 0.0
    for lane in range(LANES):
        total += sums[lane]
    for j in range(whole, len(a)):
        step = np.float64(a[j]) - np.float64(b[j])
        total += step * step
    return np.float32(total)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def distances(rows: Floats, other: Floats, out: Floats) -> None:
    """From each of `rows` [m, d] to one other row [d]: out[m]."""
    for i in range(len(rows)):
        out[i] = distance(rows[i], other)


@njit(nogil=True, fastmath=REORDER)  # type: ignore[untyped-decorator]
def _closest(products: Floats, halves: Floats) -> np.float32:
    """The largest x·c - |c|²/2 of a row of products: that of the nearest centre c."""
    top = np.float32(-np.inf)
    for c in range(len(halves)):
        top = max(top, products[c] - halves[c])
    return top


@njit(nogil=True)  # type: ignore[untyped-decorator]
def lower(
    products: Floats,
    halves: Floats,
    squares: Floats,
    rows: Floats,
    centres: Floats,
    gap: Floats,
    centred: Floats,
    open_: Indices,
    count: int,
    least: float,
) -> int:
    """Lower the gaps of the first `count` of the points `open_` to their distances from the nearest of `centres`.

    Half a squared distance is at least (squares / 2 + halves - products), all rounded down, and only where that is
    under half the gap is the distance computed, of the nearest centre first. Points whose gap falls under `least` are
    left out of `open_` and of `centred` [m, d], in place; how many are left is returned.

    Args:
        products: float32[count, c], of the open points and the centres, from a common origin.
        halves: half the squared lengths of the centres, float32[c].
        squares, rows, gap: of all points of a block: float32[m], [m, d], [m].
    """
    half, kept = np.float32(0.5), 0
    for r in range(count):
        i = open_[r]
        top = _closest(products[r], halves)
        if top > half * (squares[i] - gap[i]):
            nearest = 0
            while products[r, nearest] - halves[nearest] < top:
                nearest += 1
            gap[i] = min(gap[i], distance(rows[i], centres[nearest]))
            if top > half * (squares[i] - gap[i]):
                for c in range(len(halves)):
                    if c != nearest and products[r, c] - halves[c] > half * (squares[i] - gap[i]):
                        gap[i] = min(gap[i], distance(rows[i], centres[c]))
        if gap[i] >= least:
            if kept < r:
                open_[kept] = i
                for j in range(centred.shape[1]):
                    centred[kept, j] = centred[r, j]
            kept += 1
    return kept


@njit(nogil=True)  # type: ignore[untyped-decorator]
def pick(
    products: Floats,
    squares: Floats,
    rows: Floats,
    ids: Indices,
    gap: Floats,
    rival: float,
    rival_id: int,
    out: Indices,
) -> int:
    """Take the farthest of some leaders again and again, while it comes before the rival that leads all other points.

    A larger gap comes first, then a lower index. Gaps fall as leaders become centres, whose own is then -1.

    Args:
        products: float32[m, m] of the leaders, from a common origin.
        squares, rows, ids, gap: of the leaders, in the order of their indices.
        rival, rival_id: the gap of the rival, and its index.
        out: int64; takes the positions among the leaders, in the order picked, as many as it is long at most.

    Returns:
        How many were picked.
    """
    half = np.float32(0.5)
    for count in range(len(out)):
        best = 0
        for i in range(1, len(gap)):
            if gap[i] > gap[best]:
                best = i
        if gap[best] < 0 or gap[best] < rival or (gap[best] == rival and ids[best] > rival_id):
            return count
        out[count], gap[best] = best, -1
        for i in range(len(gap)):
            if gap[i] > 0 and products[best, i] - half * squares[best] > half * (squares[i] - gap[i]):
                gap[i] = min(gap[i], distance(rows[i], rows[best]))
    return len(out)
