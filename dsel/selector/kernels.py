"""Compiled inner loops. Import this inside functions: it loads numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from dsel.arrays import Floats, Indices

# Sums and maxima may be reordered for vector units; infinities keep their meaning, NaN never gets here.
REORDER = {"reassoc", "contract", "nsz", "nnan"}
GROUP = 32


@njit(fastmath=REORDER)  # type: ignore[untyped-decorator]
def nearer(x: Floats, points: Indices, centres: Indices, products: Floats, squares: Floats, gap: Floats) -> None:
    """Lower gap[points] to the squared distance to the nearest of `centres`, all rows of x [n, d].

    products [points, centres] are dot products of projections with squared lengths `squares` [n]. They bound
    a distance from below, and only where that is under the present gap is the distance computed.
    """
    half = np.float32(0.5)
    halves = half * squares[centres]
    for r in range(len(points)):
        i = points[r]
        least = gap[i]
        for lo in range(0, len(centres), GROUP):
            hi = min(lo + GROUP, len(centres))
            top = np.float32(-np.inf)
            for c in range(lo, hi):
                top = max(top, products[r, c] - halves[c])
            if top <= half * (squares[i] - least):
                continue
            for c in range(lo, hi):
                if least > 0 and products[r, c] - halves[c] > half * (squares[i] - least):
                    square = np.float32(0)
                    for j in range(x.shape[1]):
                        step = x[i, j] - x[centres[c], j]
                        square += step * step
                    least = min(least, square)
        gap[i] = least
