"""The similarities of a pool with itself, in tiles that nothing keeps, by NumPy and numba."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dsel.arrays import Doubles, Floats, Indices

SIDE = 1024  # of a tile

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Near:
    """The pairs of some candidates and some examples that matter: `counts` of each candidate's, one after the other."""

    rows: NDArray[np.int32]
    similarities: Floats
    counts: Indices


@dataclass(frozen=True)
class Lists:
    """Of each candidate, the pairs rows[start:end] and similarities[start:end]."""

    starts: Indices
    ends: Indices
    rows: NDArray[np.int32]
    similarities: Floats


class Products:
    """x float32[n, d], unit rows, on the CPU: a tile at a time for each of the threads that BLAS has."""

    side = SIDE

    def __init__(self, x: Floats):
        self.x = x
        self.threads = 1
        self._map: Callable[[Callable[[T], U], Iterable[T]], Iterable[U]] = map

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within this context, tiles are computed side by side, each of them by one thread."""
        from threadpoolctl import threadpool_limits

        self.threads = blas_threads()
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self.threads) as pool:
            self._map = pool.map
            yield
        self._map = map

    def all_gains(self, floor: Floats) -> Doubles:
        """float64[n]: what each example would add, at most, from each product once: n² d operations."""
        from dsel.selector.tiles import add_both, add_gains

        n = len(self.x)
        gains = np.zeros((self.threads, n))
        free = list(gains)

        def row(a: slice) -> None:
            own = free.pop()  # of this thread alone
            for b in slices(n, self.side, a.start):
                tile = self.x[a] @ self.x[b].T
                if a == b:
                    add_gains(tile, floor[b], own[a])
                else:
                    add_both(tile, floor[a], floor[b], own[a], own[b])
            free.append(own)

        for _ in self._map(row, slices(n, self.side)):
            pass
        return gains.sum(axis=0)

    def falls(self, candidates: Indices, rows: NDArray[np.int32], low: Floats, rise: Floats, skip: Indices) -> Doubles:
        """What each candidate's gain has lost at least as the best of `rows` rose by `rise` from `low`."""
        from dsel.selector.tiles import falls

        examples = self.x[rows]

        def part(c: slice) -> Doubles:
            return falls(self.x[candidates[c]] @ examples.T, low, rise, skip[c])

        width = max(16, min(self.side, -(-len(candidates) // self.threads)))
        return np.concatenate(list(self._map(part, slices(len(candidates), width))))

    def near(self, candidates: Indices, floor: Floats) -> list[NDArray[np.int32]]:
        """The examples that each candidate would serve better, int32, ascending."""
        chosen = self.x[candidates]
        found = list(
            self._map(lambda b: self._near(chosen @ self.x[b].T, floor, b), slices(len(self.x), 4 * self.side))
        )
        runs = [np.split(near.rows, np.cumsum(near.counts[:-1])) for near in found]
        return [np.concatenate(lists) for lists in zip(*runs, strict=True)]

    def tiles(self, a: slice, floor: Floats) -> Iterator[tuple[slice, Near, Near]]:
        """For each slice b from a on: b, what is near of b to a, and of a to b."""

        def tile(b: slice) -> tuple[slice, Near, Near]:
            product = self.x[a] @ self.x[b].T
            return b, self._near(product, floor, b), self._near(product, floor, a, turned=True)

        return iter(self._map(tile, slices(len(self.x), self.side, a.start)))

    def _near(self, tile: Floats, floor: Floats, examples: slice, *, turned: bool = False) -> Near:
        """The pairs of a tile [candidates, examples], or the other way where it is `turned`."""
        from dsel.selector.tiles import near, near_turned

        rows, similarities = np.empty(tile.size, dtype=np.int32), np.empty(tile.size, dtype=np.float32)
        counts = np.empty(tile.shape[turned], dtype=np.int64)
        count = (near_turned if turned else near)(tile, floor[examples], examples.start, rows, similarities, counts)
        return Near(rows[:count].copy(), similarities[:count].copy(), counts)


def blas_threads() -> int:
    """How many threads a matrix product has."""
    from threadpoolctl import threadpool_info

    return max([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"], default=1)


def slices(n: int, step: int, start: int = 0) -> Iterator[slice]:
    """Slices of `step` rows, from `start` to n."""
    return (slice(lo, min(lo + step, n)) for lo in range(start, n, step))


def all_lists(products: Products, floor: Floats, room: int) -> Lists | None:
    """All pairs above the examples' floor, from each product once: n² d operations.

    None where there is no `room` for so many. Memory: 8 bytes a pair, and little more while it goes on.
    """
    from dsel.selector.tiles import place

    n, count = len(products.x), 0
    lists = Lists(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(room, np.int32), np.empty(room, np.float32))
    # What is found of a candidate before its turn: a row of tiles serves those that come later, too.
    waiting: dict[int, list[Near]] = {a.start: [] for a in slices(n, products.side)}
    for a in slices(n, products.side):
        found = waiting.pop(a.start)
        for b, near, other in products.tiles(a, floor):
            found.append(near)
            if b != a:
                waiting[b.start].append(other)
        lengths = np.sum([near.counts for near in found], axis=0)
        lists.ends[a] = count + np.cumsum(lengths)
        lists.starts[a] = at = lists.ends[a] - lengths
        count = int(lists.ends[a][-1])
        if count > room:
            return None
        for near in found:
            place(near.rows, near.similarities, near.counts, at, lists.rows, lists.similarities)
    return lists
