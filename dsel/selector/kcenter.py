"""k-center: farthest-first traversal, where bounds that are out of date rule most of the work out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Indices, check_budget, check_indices
from dsel.blocks import Where, matrix, read, torch_device
from dsel.cost import Cost
from dsel.progress import progress
from dsel.selector.base import Selection, Static
from dsel.selector.traversal import Traversal, begin, slices
from dsel.study import Study

LEADERS = 256  # points to choose among at once, roughly: twice as many at most
CENTRES = 64  # that points meet in one product, before those that fell back are left out
POINTS = 512  # of a product at most, so that all of it stays in a core's cache
SAMPLE = 2**16  # points that are sorted to find out which gap so and so many are beyond


def farthest_first(
    embeddings: ArrayLike,
    budget: int,
    *,
    start: int | None = None,
    seed: int = 0,
    selected: ArrayLike | None = None,
    device: str = "cpu",
) -> Indices:
    """Greedy k-center (Gonzalez 1985): each step takes the point farthest from all centres so far.

    Its covering radius is at most twice the optimum. Distances only fall, so one that is out of date is a bound. Only
    the points that lead by their bounds meet the centres that are new to them, block by block, until they fall back;
    those that still lead meet each other, and are picked from for as long as they are beyond all other bounds. Products
    of matrices bound the distances, and the few that could matter are summed term by term, in float64, and rounded to
    float32: so equal points have equal distances, and the choice depends on no library, block or number of threads.

    Time: n · budget · d multiplications at worst, of which a fifth was seen to be left at a tenth of 52,000 points and
    a fourteenth at a hundredth of a million, also for points without clusters. Memory: 12 bytes a point and 8 · d a
    centre, beside the embeddings where they lie.

    Args:
        embeddings: [n, d], compared by Euclidean distance as they are; float32 and float16 are not copied.
        budget: how many to choose.
        start: the first pick: by default the farthest from `selected`, or one drawn with `seed` when there is none.
        selected: indices of centres already fixed, which are not returned.
        device: where points meet centres: `auto`, `cpu` or `cuda`. Devices agree on all but ties of float32.

    Returns:
        int64[budget] in the order picked; ties go to the lowest index.

    Raises:
        ValueError: for NaN rows, named; for a budget beyond the points left; for indices out of range.
    """
    x = matrix(embeddings)
    n = len(x)
    fixed = np.unique(check_indices([] if selected is None else selected, n, "selected"))
    budget = check_budget(budget, n - len(fixed))
    if start is not None:
        first = check_indices([start], n, "start")
        if start in fixed:
            raise ValueError(f"start {start} is already among the selected")
    else:
        first = fixed[:0] if len(fixed) else np.array([np.random.default_rng(seed).integers(n)])

    with _threads() as threads, progress("k-center", total=budget, unit="examples") as advance:
        traversal = begin(x, np.concatenate([fixed, first]), len(fixed) + budget, threads)
        refresh = _refresher(traversal, threads, device)
        advance(len(first))
        wanted = 2 * LEADERS  # points to bring up to date at once
        while traversal.count < len(traversal.order):
            before, leaders = traversal.count, _lead(traversal, refresh, wanted)
            advance(traversal.count - before)
            wanted = min(2 * wanted, n) if leaders < LEADERS // 2 else wanted
            wanted = max(wanted // 2, LEADERS) if leaders > 2 * LEADERS else wanted
    return traversal.order[len(fixed) :]


Refresh = Callable[[Indices, np.float32], None]
"""Has points meet the centres that are new to them, in order, while their gaps are not under so much."""


def _lead(t: Traversal, refresh: Refresh, wanted: int) -> int:
    """Pick from the points that lead, about `wanted` of them by their bounds; returns how many lead when up to date."""
    from dsel.selector.kernels import pick

    n, left = len(t.gap), len(t.order) - t.count
    stride = -(-n // SAMPLE)
    rank = -min(1 + wanted // stride, -(-n // stride))
    least = max(np.partition(t.gap[::stride], rank)[rank], np.float32(0))
    points = np.flatnonzero(t.gap >= least)
    if least == 0 and not t.gap[points].any():  # only copies of centres are left: all tied
        t.add(points[:left])
        return len(points)
    stale = points[t.met[points] < t.count]
    refresh(stale[np.argsort(t.met[stale], kind="stable")], least)

    leaders = lead = points[t.gap[points] >= least]
    rival = (least, n)  # the gap, and the index, that comes before all that do not lead
    if len(lead) > 2 * LEADERS:
        order = np.lexsort((lead, -t.gap[lead]))
        next_ = lead[order[2 * LEADERS]]
        leaders, rival = np.sort(lead[order[: 2 * LEADERS]]), (t.gap[next_], int(next_))
    if len(leaders):
        rows, gap, out = read(t.x, leaders), t.gap[leaders], np.empty(min(left, len(leaders)), dtype=np.int64)
        centred = rows - t.origin
        picked = out[: pick(centred @ centred.T, t.squares[leaders], rows, leaders, gap, *rival, out)]
        t.gap[leaders], t.met[leaders] = gap, t.count + len(picked)
        t.add(leaders[picked])
    return len(lead)


def _refresher(t: Traversal, threads: ThreadPoolExecutor, device: str) -> Refresh:
    place = torch_device(device)
    if place is not None:
        from dsel.selector.on_torch import refresher

        return refresher(t, place)

    from dsel.selector.kernels import lower

    def meet(points: Indices, least: np.float32) -> None:
        rows, squares, gap = read(t.x, points), t.squares[points], t.gap[points]
        centred, open_, count = rows - t.origin, np.arange(len(points)), len(points)
        met = np.full(len(points), t.count, dtype=np.int32)
        for lo in range(int(t.met[points].min()), t.count, CENTRES):
            new, were = slice(lo, min(lo + CENTRES, t.count)), open_[:count].copy()
            halves = t.squares[t.order[new]] / 2
            products = centred[:count] @ t.centred[new].T
            count = lower(products, halves, squares, rows, t.rows[new], gap, centred, open_, count, least)
            met[were], met[open_[:count]] = new.stop, t.count
            if not count:
                break
        t.gap[points], t.met[points] = gap, met

    def refresh(points: Indices, least: np.float32) -> None:
        step = min(POINTS, max(32, len(points) // 8))  # some for each thread
        list(threads.map(lambda part: meet(points[part], least), slices(len(points), step)))

    return refresh


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as BLAS would use, which works in the one that calls it instead.

    For all of a choice, and not for each refresh as `in_threads` has it: BLAS's own, woken for the small products in
    between, would wait for more at full speed and take twice the processor time.
    """
    from threadpoolctl import threadpool_info, threadpool_limits

    count = max((library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"), default=1)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as threads:
        yield threads


@dataclass
class KCenter(Static):
    """`selector=kcenter`: `farthest_first` from a random start."""

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})
    device: Where = "auto"

    def check(self) -> None:
        torch_device(self.device, "selector.device")

    def cost(self, n: int, d: int, budget: int, k: int) -> Cost:
        # The share of products that was seen to be left is 0.07 at a hundredth of the pool, 0.2 at a tenth.
        share = min(1.0, (budget / n) ** 0.5)
        return Cost(2.0 * n * d * budget * share, 24.0 * n + 8.0 * d * budget, self.device)

    def select(self, study: Study) -> Selection:
        start = int(study.rng.integers(len(study.pool)))
        return Selection(farthest_first(study.embeddings, study.budget, start=start, device=self.device))
