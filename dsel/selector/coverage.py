"""The exact lazy greedy behind facility location and QDIT: how well each example of a pool is covered by the chosen."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dsel.arrays import Doubles, Floats, Indices
from dsel.blocks import torch_device
from dsel.cost import Cost
from dsel.progress import progress
from dsel.selector.products import Lists, Products, all_lists, slices

log = logging.getLogger(__name__)

PAIRS = 250_000_000  # (candidate, example) pairs held in memory at once, 8 bytes each
SPARSE = 8  # pairs are listed once they are at most one in so many
ENTRIES = 1024  # of the log, looked at between two questions whether a candidate still matters
FIRST, LAST = 32, 1024  # candidates brought up to date at once: at first, and at most
TOGETHER = 32  # candidates computed in float64 at once, at most
PICKS = 64  # made between two signs of progress


def lazy_greedy(
    x: Floats, budget: int, weight: float = 1.0, bonus: Doubles | None = None, *, device: str = "cpu"
) -> Indices:
    """argmax over i of weight * d(S + {i}) + bonus_i, `budget` times. x: unit rows [n, d]; bonus [n]."""
    where = torch_device(device)
    bonus = np.zeros(len(x)) if bonus is None else bonus
    with progress("facility location", total=budget, unit="examples") as advance:
        if where is None:
            return on_cpu(Products(x), budget, weight, bonus, advance)
        from dsel.selector import coverage_on_torch

        return coverage_on_torch.lazy_greedy(x, budget, weight, bonus, where, advance)


def on_cpu(products: Products, budget: int, weight: float, bonus: Doubles, advance: Callable[[int], None]) -> Indices:
    """`lazy_greedy` by the processor; `advance` is told of what was chosen."""
    with products.ready():
        state = _State.start(products, budget, weight, bonus)
        while state.done < budget:
            lists = state.lists_if_they_fit()
            if lists is not None:
                state.pick_listed(lists, advance)
            else:
                state.pick()
                advance(1)
    return state.chosen


def cost(n: int, d: int, device: str) -> Cost:
    """What `lazy_greedy` takes: the more products, the later all pairs that matter fit in memory."""
    passes = 1 + 0.6 * math.log(1 + max(SPARSE, n * n / PAIRS))
    lists = 0.0 if torch_device(device) else 10.0 * min(PAIRS, n * n / SPARSE) + 150.0 * n
    return Cost(2.0 * n * n * d * passes, 4.0 * n * d + lists, device)


@dataclass
class _Rises:
    """How examples' best similarity rose, pick after pick: that of `rows`, from `low`, by `rise`.

    What a candidate's float32 similarity is above `low`, up to `rise`, its gain has lost: room for rounding is in it.
    """

    rows: NDArray[np.int32]
    low: Floats
    rise: Floats
    end: int = 0

    def add(self, rows: NDArray[np.int32], low: Doubles, high: Doubles) -> None:
        from dsel.selector.lazy import ROUNDING

        # Those that rose most come first: they soonest tell whether a candidate still matters.
        order, start = np.argsort(low - high, kind="stable"), self.end
        self.end += len(rows)
        if self.end > len(self.rows):
            self.rows = np.resize(self.rows, 2 * self.end)
            self.low = np.resize(self.low, 2 * self.end)
            self.rise = np.resize(self.rise, 2 * self.end)
        self.rows[start : self.end] = rows[order]
        self.low[start : self.end] = low[order] + ROUNDING
        self.rise[start : self.end] = np.maximum((high - low)[order] - ROUNDING, 0)


@dataclass
class _State:
    """A greedy selection so far.

    Gains of d only fall, so an old value bounds the new one and few need computing again (CELF: Leskovec et al. 2007).
    What a gain has lost is found from the examples whose similarity to the chosen rose since it was computed, some of
    them at a time, and for no longer than the candidate matters. Bounds come from float32, with room for its rounding;
    only candidates at the top of the queue are computed in float64, so rounding never decides. As soon as the pairs
    (candidate, example it would serve better) fit in memory they are listed once, and everything after that is sums
    over short lists.
    """

    products: Products
    weight: float
    bonus: Doubles
    norms: Doubles
    chosen: Indices
    best: Doubles  # similarity of each example to its nearest chosen one
    floor: Floats  # what a float32 similarity must exceed to matter
    rises: _Rises

    # of each candidate: its gain or a bound of it, the end of `rises` at that time, and which of the two it is
    bound: Doubles
    since: Indices
    exact: NDArray[np.bool_]

    # a heap of the candidates by what they would add at most, the first `size` of two arrays: see dsel.selector.lazy
    keys: Doubles
    items: Indices
    size: int

    done: int = 0
    look: int = 1  # when it is next seen whether the pairs fit
    near: dict[int, tuple[NDArray[np.int32], Doubles]] = field(default_factory=dict)  # of some: whom each would serve
    listed: NDArray[np.bool_] = field(init=False)
    kept: int = 0  # examples in all of `near`
    typical: int = 0  # examples in one of the last

    def __post_init__(self) -> None:
        self.listed = np.zeros(len(self.best), dtype=bool)

    @classmethod
    def start(cls, products: Products, budget: int, weight: float, bonus: Doubles) -> _State:
        """Nothing is chosen. d of the empty set is taken as -n: then the first value is the definition's."""
        from dsel.selector.lazy import ROUNDING

        x = products.x
        n = len(x)
        total = x.sum(axis=0, dtype=np.float64)
        bound = np.concatenate([x[rows] @ total for rows in slices(n, 4096)]) + n * (1 + float(ROUNDING))
        state = cls(
            products,
            weight,
            bonus,
            norms=np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64)),
            chosen=np.empty(budget, dtype=np.int64),
            best=np.full(n, -1.0),
            floor=np.full(n, -1 - ROUNDING, dtype=np.float32),
            rises=_Rises(np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.float32)),
            bound=bound,
            since=np.zeros(n, dtype=np.int64),
            exact=np.zeros(n, dtype=bool),
            keys=np.empty(n),
            items=np.empty(n, dtype=np.int64),
            size=0,
        )
        state.fill(np.arange(n))
        return state

    def key(self, candidates: Indices) -> Doubles:
        """What each would add at most, in units of the last decimal that counts."""
        from dsel.selector.lazy import DECIMALS

        return np.rint((self.weight * self.bound[candidates] + self.bonus[candidates]) * DECIMALS)

    def fill(self, candidates: Indices) -> None:
        """Have these in the queue, and no others."""
        from dsel.selector import lazy

        self.size = len(candidates)
        self.keys[: self.size], self.items[: self.size] = self.key(candidates), candidates
        lazy.order(self.keys, self.items, self.size)

    def push(self, candidates: Indices) -> None:
        from dsel.selector import lazy

        self.size = lazy.push(self.keys, self.items, self.size, self.key(candidates), candidates)

    def take(self, most: int, *, stale: bool, but: NDArray[np.bool_]) -> Indices:
        """Take from the top of the queue those that are stale, or not, except `but` [n]: no more than `most`."""
        from dsel.selector import lazy

        out = np.empty(most, dtype=np.int64)
        at = self.keys, self.items, self.size, self.since, self.rises.end
        count, self.size = lazy.take(*at, stale, but, out)
        return out[:count]

    def pick(self) -> None:
        """Choose one more."""
        from dsel.selector import lazy

        width, least = FIRST, -np.inf
        while True:
            i = int(self.items[0])
            stale = self.since[i] < self.rises.end
            if not stale and self.exact[i]:
                break
            if stale and not self.listed[i]:
                batch = self.take(width, stale=True, but=self.listed)
                self.catch_up(batch, min(least, self.key(batch[:1])[0]))
                width = min(2 * width, max(LAST, len(self.best) // 64))
                if self.done == 1 and least == -np.inf:
                    self.catch_all_up(self.key(batch).max())
                least = max(least, self.key(batch[self.since[batch] == self.rises.end]).max(initial=-np.inf))
            elif stale:
                self.size = lazy.pop(self.keys, self.items, self.size)
                batch = np.array([i])
                self.settle(i)
            else:
                # The products of a candidate with all cost as much as float64 ones with half of them.
                few = max(1, min(TOGETHER, len(self.best) // (2 * max(self.typical, 1))))
                batch = self.take(few if self.done else 1, stale=False, but=self.exact)
                self.compute(batch)
            self.push(batch)
        self.choose(i)

    def catch_up(self, candidates: Indices, least: float) -> None:
        """Lower bounds to what they are now, or as far as brings a candidate's key below `least`."""
        rises, since = self.rises, self.since
        self.exact[candidates] = False
        at = int(since[candidates].min())
        while at < rises.end:
            stop = min(at + ENTRIES, rises.end)
            part = candidates[(since[candidates] < stop) & (self.key(candidates) >= least)]
            if len(part):
                skip = np.maximum(since[part] - at, 0)
                rows, low, rise = rises.rows[at:stop], rises.low[at:stop], rises.rise[at:stop]
                self.bound[part] -= self.products.falls(part, rows, low, rise, skip)
                since[part] = stop
            at = stop

    def catch_all_up(self, least: float) -> None:
        """Bring all up to date where most are at `least` or above: each product once is half of the work."""
        left = self.items[: self.size].copy()
        if 2 * np.count_nonzero(self.keys[: self.size] > least) > len(self.best):
            self.bound[left] = self.products.all_gains(self.floor)[left]
            self.since[left] = self.rises.end
            self.exact[left] = False
            self.fill(left)

    def compute(self, candidates: Indices) -> None:
        """The gains of candidates in float64, and whom they would serve better."""
        from dsel.selector.lazy import cosines

        for i, rows in zip(candidates.tolist(), self.products.near(candidates, self.floor), strict=True):
            self.near[i] = rows, cosines(self.products.x, self.norms, rows, i)
            self.listed[i] = True
            self.kept += len(rows)
            self.settle(i)
        self.typical = sum(len(self.near[i][0]) for i in candidates.tolist()) // len(candidates)
        if self.kept > PAIRS // 2:
            for i in [i for i in self.near if self.since[i] < self.rises.end]:
                self.forget(i)
                self.bound[i] += 1e-9  # it goes on as a bound, from float32

    def settle(self, i: int) -> None:
        """The gain of a candidate when it is known whom it would serve."""
        rows, similarities = self.near[i]
        over = similarities - self.best[rows]
        useful = over > 0
        if 2 * np.count_nonzero(useful) < len(rows):
            self.near[i] = rows[useful], similarities[useful]
            self.kept -= len(rows) - len(self.near[i][0])
        self.bound[i], self.since[i], self.exact[i] = over[useful].sum(), self.rises.end, True

    def forget(self, i: int) -> tuple[NDArray[np.int32], Doubles]:
        rows, similarities = self.near.pop(i)
        self.kept -= len(rows)
        self.listed[i] = False
        return rows, similarities

    def choose(self, i: int) -> None:
        """Choose the top of the queue, whose gain is exact."""
        from dsel.selector import lazy

        self.size = lazy.pop(self.keys, self.items, self.size)
        self.chosen[self.done] = i
        self.done += 1
        rows, similarities = self.forget(i)
        better = similarities > self.best[rows]
        rows, similarities = rows[better], similarities[better]
        self.rises.add(rows, self.best[rows], similarities)
        self.best[rows] = similarities
        # A cosine of one cannot be beaten: such an example is served.
        self.floor[rows] = np.where(similarities > lazy.SERVED, np.inf, similarities - lazy.ROUNDING)

    def lists_if_they_fit(self) -> Lists | None:
        """The pairs that still matter, of each candidate, once there are few enough; looked at now and then."""
        n = len(self.best)
        if self.done < self.look:
            return None
        self.look = self.done + 1 + self.done // 8
        sample = np.arange(0, n, -(-n // 128))
        pairs = sum(map(len, self.products.near(sample, self.floor))) / len(sample) * n
        if pairs > min(PAIRS, n * n / SPARSE):
            return None
        return all_lists(self.products, self.floor, room=int(1.25 * pairs) + n)

    def pick_listed(self, lists: Lists, advance: Callable[[int], None]) -> None:
        """Choose all that are still to be chosen."""
        from dsel.selector import lazy

        log.info("%d near pairs after %d picks", int((lists.ends - lists.starts).sum()), self.done)
        self.near.clear()
        stamps = np.full(len(self.best), -1, dtype=np.int64)
        for stop in range(self.done + PICKS, len(self.chosen) + PICKS, PICKS):
            stop = min(stop, len(self.chosen))
            self.size = lazy.pick_listed(
                self.products.x, self.norms, lists.starts, lists.ends, lists.rows, lists.similarities,
                self.best, self.floor, self.weight, self.bonus,
                self.keys, self.items, self.size, stamps, self.chosen, self.done, stop,
            )  # fmt: skip
            advance(stop - self.done)
            self.done = stop
