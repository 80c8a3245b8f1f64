"""The rows that k-means clusters, and all that it computes over many of them: in blocks, on the CPU's threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from dsel import blocks
from dsel.arrays import Bools, Doubles, Floats, Indices
from dsel.blocks import Matrix, in_threads, parts
from dsel.spent import spend

ROWS = 4096  # of a product with centroids, at most
PRODUCT = 2**27  # bytes of one, at most
COPY = 2**30  # bytes that may be copied, float32 and of length one, to be read many times
CLUSTERS = 16  # whose means a thread takes at once

Nearest = tuple[Indices, Floats, Floats]
"""Of each row, the nearest of some centroids c, and |c|^2 - 2 x.c for it and for the second nearest (inf if none)."""


class Points:
    """Rows [n, d], float32 or float16, in memory or mapped: they are read in blocks, never copied as a whole.

    spherical: each counts with length one. Raises ValueError naming rows of length zero then.
    """

    def __init__(self, x: Matrix, *, spherical: bool = False):
        self.x = x
        self.lengths = blocks.lengths(x) if spherical else None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def width(self) -> int:
        return int(self.x.shape[1])

    def read(self, rows: slice | Indices) -> Floats:
        """Some rows, float32."""
        block = blocks.read(self.x, rows)
        return block if self.lengths is None else block / self.lengths[rows, None]

    def at_hand(self) -> Points:
        """The same, to be read many times: made once, in memory, where it takes a computation and no more than 1 GB."""
        if (self.x.dtype == np.float32 and self.lengths is None) or 4 * self.x.size > COPY:
            return self
        return Points(self.copied(np.arange(len(self))))

    def copied(self, rows: Indices) -> Floats:
        """Some rows in memory, float32, read block by block."""
        out = np.empty((len(rows), self.width), dtype=np.float32)
        for part in parts(len(rows), 4 * self.width):
            out[part] = self.read(rows[part])
        return out

    def squares(self) -> Floats:
        """Squared lengths float32[n]."""
        out = np.empty(len(self), dtype=np.float32)
        for part in parts(len(self), 4 * self.width):
            block = self.read(part)
            out[part] = np.einsum("nd,nd->n", block, block)
        return out

    @cached_property
    def square(self) -> float:
        """The sum of all squared lengths."""
        read = (self.read(part) for part in parts(len(self), 4 * self.width))
        return float(sum(np.einsum("nd,nd->", block, block, dtype=np.float64) for block in read))

    def two_nearest(
        self,
        centroids: Floats,
        rows: Indices | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Nearest:
        """The two nearest of centroids [k, d] to all rows, or to those at `rows`; len(rows) k d products.

        Memory: beside the result, a product of at most 4096 rows for each thread.
        """
        n = len(self) if rows is None else len(rows)
        label = np.empty(n, dtype=np.int64)
        first, second = np.empty((2, n), dtype=np.float32)
        squares = np.einsum("kd,kd->k", centroids, centroids)
        twice = -2 * centroids.T
        spend(2.0 * n * centroids.size)

        def look(part: slice) -> None:
            values = self.read(part if rows is None else rows[part]) @ twice
            values += squares
            each = np.arange(len(values))
            label[part] = values.argmin(axis=1)
            first[part] = values[each, label[part]]
            values[each, label[part]] = np.inf
            second[part] = values.min(axis=1)

        row = 4 * len(centroids)
        in_threads(look, parts(n, row, min(PRODUCT, ROWS * row)), advance)
        return label, first, second

    def own_distances(self, centroids: Floats, labels: Indices) -> Floats:
        """Squared Euclidean distances float32[n] of rows to their centroids, free of cancellation."""
        out = np.empty(len(self), dtype=np.float32)

        def measure(part: slice) -> None:
            step = self.read(part) - centroids[labels[part]]
            out[part] = np.einsum("nd,nd->n", step, step)

        in_threads(measure, parts(len(self), 1, ROWS))
        return out

    def sums(self, labels: Indices, k: int) -> Doubles:
        """The sums float64[k, d] of the members of each cluster, labels [n], in one look at all rows."""
        from scipy.sparse import csr_matrix

        sums = np.zeros((k, self.width))
        for part in parts(len(self), 4 * self.width):
            block = self.read(part)
            entries = np.ones(len(block), dtype=np.float32), labels[part], np.arange(len(block) + 1)
            sums += csr_matrix(entries, shape=(len(block), k)).T @ block
        return sums

    def means(self, labels: Indices, wanted: Bools) -> tuple[Indices, Doubles]:
        """Those of the `wanted` [k] clusters that have members, and the means float64 of these, added up in order.

        Memory: labels and numbers of the members, and one cluster's rows at a time, at most a block of them.
        """
        members = np.flatnonzero(wanted[labels])
        members = members[np.argsort(labels[members], kind="stable")]
        sizes = np.bincount(labels[members], minlength=len(wanted))
        filled = np.flatnonzero(sizes)
        ends = np.cumsum(sizes[filled])
        means = np.empty((len(filled), self.width))

        def average(part: slice) -> None:
            for i in range(part.start, part.stop):
                means[i] = self._mean(members[ends[i] - sizes[filled[i]] : ends[i]])

        in_threads(average, parts(len(filled), 1, CLUSTERS))
        return filled, means

    def _mean(self, rows: Indices) -> Doubles:
        first, *others = parts(len(rows), 4 * self.width)
        total = self.read(rows[first]).sum(axis=0, dtype=np.float64)
        for part in others:  # one after the other, as if it were one sum
            total = np.concatenate([total[None], self.read(rows[part])]).sum(axis=0)
        return total / len(rows)
