"""k-center: farthest-first traversal, in blocks that bound before they measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Floats, Indices, check_budget, check_indices, finite_rows
from dsel.progress import progress
from dsel.selector.base import Selection, Static
from dsel.study import Study

LEADERS = 512  # farthest points followed between two looks at the whole pool
PENDING = 512  # new centres per matrix product
ROWS = 2048
ROUNDING = 1e-5  # more than float32 loses in a squared distance, relative to the squared lengths


def farthest_first(
    embeddings: ArrayLike,
    budget: int,
    *,
    start: int | None = None,
    seed: int = 0,
    selected: ArrayLike | None = None,
) -> Indices:
    """Greedy k-center (Gonzalez 1985): each step takes the point farthest from all centres so far.

    embeddings [n, d], compared by Euclidean distance as they are; selected: indices of centres already fixed,
    which are not returned; start: the first pick, by default the farthest point from `selected`, or one drawn
    with `seed` when there is none. Returns int64[budget] in the order picked; its covering radius is at most
    twice the optimum. Ties, of float32 squared distances, go to the lowest index.

    Distances only fall, so the farthest of a few leading points is the farthest of all for as long as it is
    beyond everything else was at the last look at the whole pool: in between, only leaders meet a new centre.
    A look is a matrix product of projections, whose distances bound the true ones from below; the few pairs
    (point, new centre) that could matter are measured term by term, which gives equal points equal distances.
    Memory: about half of the embeddings. Raises ValueError for NaN rows, named, for a budget beyond the
    points left, for indices out of range.
    """
    x = finite_rows(embeddings)
    n = len(x)
    fixed = np.unique(check_indices([] if selected is None else selected, n, "selected"))
    budget = check_budget(budget, n - len(fixed))
    if start is not None:
        chosen = check_indices([start], n, "start").tolist()
        if start in fixed:
            raise ValueError(f"start {start} is already among the selected")
    else:
        chosen = [] if len(fixed) else [int(np.random.default_rng(seed).integers(n))]

    from dsel.selector.kernels import nearer

    z, squares = _project(x)
    gap = np.full(n, np.inf, dtype=np.float32)  # squared distance to the nearest centre; -1 for a centre

    def meet(points: Indices, z_points: Floats, centres: Indices) -> None:
        nearer(x, points, centres, z_points @ z[centres].T, squares, gap)

    pending = np.concatenate([fixed, np.array(chosen, dtype=np.int64)])
    gap[pending] = -1
    with progress("k-center", total=budget, unit="examples") as advance:
        while len(chosen) < budget:
            for lo in range(0, len(pending), PENDING):
                for rows in range(0, n, ROWS):
                    points = np.arange(rows, min(rows + ROWS, n))
                    meet(points, z[rows : rows + ROWS], pending[lo : lo + PENDING])
            leaders = np.sort(np.argpartition(gap, -min(LEADERS, n))[-min(LEADERS, n) :])
            beyond = gap[leaders].min()  # no other point is farther than this
            farthest = int(gap.argmax())
            if gap[farthest] == 0:
                # Only copies of centres are left: all tied.
                return np.concatenate([chosen, np.flatnonzero(gap == 0)[: budget - len(chosen)]]).astype(np.int64)
            before, z_leaders = len(chosen), z[leaders]
            while len(chosen) < budget and (len(chosen) == before or gap[farthest] > beyond):
                chosen.append(farthest)
                gap[farthest] = -1
                meet(leaders, z_leaders, np.array([farthest]))
                farthest = int(leaders[gap[leaders].argmax()])
            pending = np.array(chosen[before:])
            advance(len(pending))
    return np.array(chosen, dtype=np.int64)


def _project(x: Floats) -> tuple[Floats, Floats]:
    """Coordinates [n, m + 1] never farther apart than the rows of x, and their squared lengths, rounded down.

    The first m are along the directions where the rows differ most, found by subspace iteration on a sample;
    the last is the length of what they leave out, since two remainders differ at least by their lengths'
    difference. Any orthonormal directions would be right: good ones only make the bound tight.
    """
    n, d = x.shape
    m = min(d, max(64, d // 2))
    mean = x.mean(axis=0)
    sample = x[:: -(-n // 8192)] - mean
    basis = np.random.default_rng(0).standard_normal((d, m), dtype=np.float32)
    for _ in range(3):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
    z = np.empty((n, m + 1), dtype=np.float32)
    squares = np.empty(n, dtype=np.float32)
    for lo in range(0, n, ROWS):
        rows = slice(lo, lo + ROWS)
        centred = x[rows] - mean
        np.matmul(centred, basis, out=z[rows, :m])
        squares[rows] = np.einsum("nd,nd->n", centred, centred)
        kept = np.einsum("nd,nd->n", z[rows, :m], z[rows, :m])
        z[rows, m] = np.sqrt(np.maximum(squares[rows] - kept, 0))
    return z, squares * np.float32(1 - ROUNDING)


@dataclass
class KCenter(Static):
    """`selector=kcenter`: `farthest_first` from a random start."""

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def select(self, study: Study) -> Selection:
        start = int(study.rng.integers(len(study.pool)))
        return Selection(farthest_first(study.embeddings, study.budget, start=start))
