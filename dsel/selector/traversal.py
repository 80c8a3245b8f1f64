"""What a farthest-first traversal knows of points and centres, whatever device they meet on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsel.arrays import Floats, Indices
from dsel.blocks import Matrix, read

POINTS = 2048  # read at once
ROUNDING = np.float32(1e-5)  # more than float32 loses in a squared distance, relative to the squared lengths


@dataclass
class Traversal:
    """Points, centres, and how far they are known to be from each other.

    Attributes:
        x: The points [n, d].
        origin: Their mean, float32[d] or so: products are of differences from it, which lose less.
        squares: Squared lengths from the origin, float32[n], rounded down.
        gap: Squared distances from the nearest of the centres that a point has met, float32[n]; -1 for a centre.
        met: How many centres a point has met, int32[n]: the first ones of `order`.
        order: The centres' indices, int64[fixed + budget], of which the first `count` are known.
        rows, centred: What is at those indices, float32[fixed + budget, d], and its differences from the origin.
    """

    x: Matrix
    origin: Floats
    squares: Floats
    gap: Floats
    met: npt.NDArray[np.int32]
    order: Indices
    rows: Floats
    centred: Floats
    count: int = 0

    def add(self, centres: Indices) -> None:
        new = slice(self.count, self.count + len(centres))
        self.order[new], self.rows[new] = centres, read(self.x, centres)
        self.centred[new] = self.rows[new] - self.origin
        self.gap[centres] = -1
        self.count += len(centres)


def begin(x: Matrix, centres: Indices, total: int, threads: ThreadPoolExecutor) -> Traversal:
    """All points have met the first of the centres."""
    from dsel.selector.kernels import distances

    n, d = x.shape
    origin = read(x, np.arange(0, n, -(-n // 8192))).mean(axis=0)
    squares, gap = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    rows, centred = np.empty((total, d), dtype=np.float32), np.empty((total, d), dtype=np.float32)
    first = read(x, centres[:1])[0]

    def meet(part: slice) -> None:
        points = read(x, part)
        distances(points, first, gap[part])
        points = points - origin
        squares[part] = np.einsum("nd,nd->n", points, points) * (1 - ROUNDING)

    list(threads.map(meet, slices(n, POINTS)))
    traversal = Traversal(x, origin, squares, gap, np.ones(n, np.int32), np.empty(total, np.int64), rows, centred)
    traversal.add(centres)
    return traversal


def slices(n: int, step: int) -> Iterator[slice]:
    """Of n rows, `step` at a time."""
    return (slice(lo, min(lo + step, n)) for lo in range(0, n, step))
