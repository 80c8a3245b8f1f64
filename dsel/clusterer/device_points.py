"""The rows that k-means clusters, on a torch device. Import this inside functions: it loads torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from dsel.arrays import Bools, Doubles, Floats, Indices
from dsel.blocks import Matrix, full_precision, parts
from dsel.clusterer.points import Nearest, Points
from dsel.spent import spend

BLOCK = 2**28  # bytes of a product on the device
SHARE = 0.5  # of the device's free memory that the rows may have


class DevicePoints(Points):
    """What `Points` says, computed in float32 products on a device; results are in main memory.

    The rows are copied to the device once where they fit, as float32, else block by block each time that all are read.
    The order of sums is fixed: the same device gives the same results.
    """

    def __init__(self, x: Matrix, device: torch.device, *, spherical: bool = False):
        super().__init__(x, spherical=spherical)
        self.device = device
        self.there: torch.Tensor | None = None
        if 4 * x.size <= self._room():
            self.there = torch.empty(x.shape, dtype=torch.float32, device=device)
            for part in parts(len(x), 4 * self.width):
                self.there[part] = torch.tensor(self.read(part))

    def _room(self) -> float:
        return SHARE * torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 0

    def _rows(self, rows: slice | Indices) -> torch.Tensor:
        if self.there is None:
            return torch.tensor(self.read(rows), device=self.device)
        return self.there[rows if isinstance(rows, slice) else self._put(rows)]

    def _put(self, values: Floats | Indices) -> torch.Tensor:
        return torch.tensor(values, device=self.device)

    def two_nearest(
        self,
        centroids: Floats,
        rows: Indices | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Nearest:
        n = len(self) if rows is None else len(rows)
        label = np.empty(n, dtype=np.int64)
        first, second = np.empty((2, n), dtype=np.float32)
        c = self._put(centroids)
        spend(2.0 * n * centroids.size)
        squares, twice = (c * c).sum(dim=1), -2 * c.T
        with full_precision():
            for part in parts(n, 4 * (len(centroids) + self.width), BLOCK):
                values = torch.addmm(squares, self._rows(part if rows is None else rows[part]), twice)
                least, which = values.min(dim=1)
                values.scatter_(1, which[:, None], torch.inf)
                label[part], first[part] = which.cpu().numpy(), least.cpu().numpy()
                second[part] = values.amin(dim=1).cpu().numpy()
                advance(part.stop - part.start)
        return label, first, second

    def own_distances(self, centroids: Floats, labels: Indices) -> Floats:
        out, c = np.empty(len(self), dtype=np.float32), self._put(centroids)
        for part in parts(len(self), 12 * self.width, BLOCK):
            step = self._rows(part) - c[self._put(labels[part])]
            out[part] = (step * step).sum(dim=1).cpu().numpy()
        return out

    def means(self, labels: Indices, wanted: Bools) -> tuple[Indices, Doubles]:
        members = np.flatnonzero(wanted[labels])
        sums = self._sums(members, labels[members], len(wanted))
        sizes = np.bincount(labels[members], minlength=len(wanted))
        filled = np.flatnonzero(sizes)
        return filled, sums[filled] / sizes[filled, None]

    def sums(self, labels: Indices, k: int) -> Doubles:
        return self._sums(None, labels, k)

    def _sums(self, rows: Indices | None, labels: Indices, k: int) -> Doubles:
        sums = torch.zeros((k, self.width), dtype=torch.float64, device=self.device)
        for part in parts(len(labels), 20 * self.width, BLOCK):
            block = self._rows(part if rows is None else rows[part]).double()
            # It adds in a fixed order on CUDA too, where `index_add_` does not.
            sums.index_put_((self._put(labels[part]),), block, accumulate=True)
        return np.asarray(sums.cpu().numpy())
