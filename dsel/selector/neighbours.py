"""A graph of nearest neighbours, for pools where all pairs are too many: who is near to whom, and a greedy on it.

The neighbours of an example are looked for among the members of the cells whose centres are nearest to it (an inverted
file: Jégou, Douze, Schmid 2011), cell by cell as matrix products.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Doubles, Floats, Indices, check_budget
from dsel.blocks import Matrix, Where, blocks, full_precision, lengths, matrix, parts, read, summed, torch_device
from dsel.constraints import Count
from dsel.cost import Cost
from dsel.progress import progress, tracked
from dsel.selector import coverage
from dsel.selector.base import Static
from dsel.selector.products import Lists, blas_threads, slices
from dsel.study import Study

if TYPE_CHECKING:
    import torch

PROBES = 24  # cells that an example looks into
SAMPLE = 32  # points a cell that its centre is found from
ITERATIONS = 8
LARGE = 16  # times the mean size of a cell: a larger one falls into pieces
QUERIES = 1024  # compared at once
ROUND = 256  # picks between two looks at all examples, at most
VERSION = 1  # of the graph: another one, other neighbours


@dataclass(frozen=True)
class Graph:
    """The k nearest of each example, itself left out: nearest int32[n, k], similarities float32[n, k], in no order.

    A row with fewer than k has similarities of -inf.
    """

    nearest: NDArray[np.int32]
    similarities: Floats

    @classmethod
    def load(cls, folder: Path) -> Graph:
        """A graph that `build` wrote, memory-mapped."""
        return cls(
            *(np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ("nearest", "similarities"))
        )


def cost(n: int, d: int, budget: int, k: int, device: str) -> Cost:
    """What `build` and `greedy` take."""
    pairs = 2.0 * n * d * (n if torch_device(device) else 1000 + 2 * (1 + PROBES / 4) * math.sqrt(n))
    return Cost(pairs + 2.0 * n * d * budget, 8.0 * n * (k + 1) + 700.0 * n, device)


def of(study: Study, k: int, device: str) -> Graph:
    """The graph of a study's embeddings: computed now, or found in the cache."""
    x = study.embeddings
    compared = "cells" if torch_device(device) is None else "all"
    key = {"embeddings": study.key("embeddings"), "neighbours": k, "compared": compared, "version": VERSION}
    return Graph.load(study.artifact("neighbours", "neighbours", key, lambda to: build(x, k, to, device=device)))


def build(embeddings: ArrayLike, k: int, folder: Path, *, device: str = "cpu") -> None:
    """Find the k nearest neighbours of each example by cosine, and write them as `Graph` has them.

    On the CPU nearly all of them are found, and the same at each call; a GPU compares all pairs. Time: some 30 n √n d
    operations, of all pairs 2 n² d. Memory: embeddings are read in blocks, and the graph, 8 n k bytes, is written in
    place; 600 bytes an example besides. A GPU holds all of the embeddings.

    Args:
        embeddings: [n, d], rows of any length, in memory or mapped.
        k: how many neighbours, not counting the example itself.
        folder: where `nearest.npy` and `similarities.npy` are written.
        device: where examples meet: auto, cpu, cuda or cuda:1.

    Raises:
        ValueError: for NaN or zero rows, named.
        ConfigError: for a device that is not here.
    """
    x = matrix(embeddings)
    n = len(x)
    k = min(k, n - 1)
    norms = lengths(x)
    nearest = open_memmap(folder / "nearest.npy", mode="w+", dtype=np.int32, shape=(n, k))
    similarities = open_memmap(folder / "similarities.npy", mode="w+", dtype=np.float32, shape=(n, k))
    if k == 0:
        return
    where = torch_device(device)
    if where is None:
        _by_cells(x, norms, np.asarray(nearest), np.asarray(similarities))
    else:
        with full_precision():
            _by_all(x, norms, nearest, similarities, where)
    nearest.flush()
    similarities.flush()


def _units(x: Matrix, norms: Floats, rows: slice | Indices) -> Floats:
    return read(x, rows) / norms[rows, None]


def _by_cells(x: Matrix, norms: Floats, nearest: NDArray[np.int32], similarities: Floats) -> None:
    from threadpoolctl import threadpool_limits

    from dsel.selector.tiles import keep_nearest

    centres = _centres(x, norms)
    most = LARGE * -(-len(x) // len(centres))
    similarities[:] = -np.inf

    def compare(queries: Indices, members: Indices, points: Floats) -> None:
        keep_nearest(_units(x, norms, queries) @ points.T, queries, members, nearest, similarities)

    threads = blas_threads()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        own, probed = _cells(x, norms, centres, pool)
        members, member_ends = _grouped(own, len(centres))
        asking, asking_ends = _grouped(probed.ravel(), len(centres))
        asking //= probed.shape[1]
        for cell in tracked(range(len(centres)), "neighbours", total=len(centres), unit="cells"):
            within = members[member_ends[cell] : member_ends[cell + 1]]
            queries = asking[asking_ends[cell] : asking_ends[cell + 1]]
            # A cell of very many, copies most of them, falls into pieces: any of them are neighbours.
            pieces = -(-len(within) // most)
            for piece in range(pieces):
                inside, outside = within[piece::pieces], queries[piece::pieces]
                points = _units(x, norms, inside)
                # An example asks a cell once: no two threads have the same row.
                batches = [outside[some] for some in slices(len(outside), QUERIES)]
                for done in [pool.submit(compare, batch, inside, points) for batch in batches]:
                    done.result()


def _cells(
    x: Matrix, norms: Floats, centres: Floats, pool: ThreadPoolExecutor
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The cell of each example, int32[n], and those that it looks into, int32[n, probes]."""
    from dsel.selector.tiles import keep_nearest

    n, probes = len(x), min(PROBES, len(centres))
    probed, closeness = np.zeros((n, probes), np.int32), np.full((n, probes), -np.inf, np.float32)
    names = np.arange(n, n + len(centres))  # which are no example's: it would be left out as its own neighbour

    def look(rows: slice) -> int:
        queries = np.arange(rows.stop - rows.start)
        keep_nearest(_units(x, norms, rows) @ centres.T, queries, names, probed[rows], closeness[rows])
        return len(queries)

    with progress("neighbours: cells", total=n, unit="examples") as advance:
        for count in pool.map(look, slices(n, QUERIES)):
            advance(count)
    probed -= n
    return np.take_along_axis(probed, closeness.argmax(axis=1)[:, None], axis=1)[:, 0], probed


def _grouped(values: NDArray[np.int32], groups: int) -> tuple[Indices, Indices]:
    """Where each value is, in order of the values, and where in that the groups begin and end."""
    ends = np.concatenate([[0], np.cumsum(np.bincount(values, minlength=groups))])
    return np.argsort(values, kind="stable"), ends


def _centres(x: Matrix, norms: Floats) -> Floats:
    """About 2 √n directions that a sample of the examples gathers around, float32[cells, d]: spherical k-means."""
    n = len(x)
    count = max(1, min(n, round(2 * math.sqrt(n))))
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(n, min(n, SAMPLE * count), replace=False))
    sample = _units(x, norms, rows)
    centres = sample[rng.choice(len(rows), count, replace=False)]
    for _ in range(ITERATIONS):
        own = np.concatenate([(block @ centres.T).argmax(axis=1) for _, block in blocks(sample, beside=4 * count)])
        filled, sums, _ = summed(sample, own)
        lengths_ = np.linalg.norm(sums, axis=1, keepdims=True)
        centres[filled] = np.where(lengths_ > 0, sums / np.maximum(lengths_, 1e-30), centres[filled])
    return centres


def _by_all(x: Matrix, norms: Floats, nearest: NDArray[np.int32], similarities: Floats, device: torch.device) -> None:
    import torch

    n, k = similarities.shape
    units = [_units(x, norms, part) for part in parts(n, 4 * x.shape[1])]
    points = torch.from_numpy(np.concatenate(units)).to(device)
    with progress("neighbours", total=n, unit="examples") as advance:
        for rows in slices(n, 4096):
            best = torch.full((rows.stop - rows.start, k), -torch.inf, device=device)
            who = torch.zeros_like(best, dtype=torch.int64)
            for some in slices(n, 65536):
                tile = points[rows] @ points[some].T
                own = torch.arange(max(rows.start, some.start), min(rows.stop, some.stop), device=device)
                tile[own - rows.start, own - some.start] = -torch.inf
                top, at = tile.topk(min(k, tile.shape[1]), dim=1)
                best, order = torch.cat([best, top], dim=1).topk(k, dim=1)
                who = torch.cat([who, at + some.start], dim=1).gather(1, order)
            similarities[rows], nearest[rows] = best.cpu().numpy(), who.int().cpu().numpy()
            advance(rows.stop - rows.start)


def greedy(
    embeddings: ArrayLike, graph: Graph, budget: int, *, weight: float = 1.0, bonus: Doubles | None = None
) -> Indices:
    """`coverage.lazy_greedy` with gains from an example's neighbours alone.

    The first pick is the exact one. From then on a candidate's gain is summed over those examples that have it among
    their neighbours; how well each example is served by now is brought up to date for all of them, at first after each
    pick and later after up to ROUND of them, so that groups larger than the graph sees are served but once.

    Time: 2 n d budget operations in matrix products, and some times the n k pairs. Memory: 8 bytes a pair, and 60 an
    example; the embeddings are read in blocks.

    Args:
        embeddings: [n, d], rows of any length, in memory or mapped.
        graph: their nearest neighbours.
        budget: how many to choose.
        weight: of d against the bonus.
        bonus: float64[n], what each example adds by itself.

    Returns:
        int64[budget] in the order chosen; of candidates that are equal to nine decimals, the lowest index.

    Raises:
        ValueError: for NaN or zero rows, named, and for a budget outside 1..n.
    """
    from dsel.selector import lazy

    x = matrix(embeddings)
    n, norms = len(x), lengths(x)
    budget = check_budget(budget, n)
    bonus = np.zeros(n) if bonus is None else bonus
    lists = _turned(graph)
    total = np.sum([_units(x, norms, part).sum(axis=0, dtype=np.float64) for part in parts(n, 4 * x.shape[1])], axis=0)
    first = np.concatenate([_units(x, norms, part) @ total for part in parts(n, 4 * x.shape[1])])
    chosen = np.empty(budget, dtype=np.int64)
    chosen[0] = np.rint((weight * (n + first) + bonus) * lazy.DECIMALS).argmax()

    best = np.full(n, -1.0)
    floor = np.full(n, -1, dtype=np.float32)
    stamps = np.full(n, -1)
    with progress("facility location", total=budget, unit="examples") as advance:
        _serve(x, norms, chosen[:1], best, floor)
        gains = np.add.reduceat(np.maximum(lists.similarities - floor[lists.rows], 0), lists.starts, dtype=np.float64)
        items = np.delete(np.arange(n), chosen[0])
        keys = np.rint((weight * gains + bonus) * lazy.DECIMALS)[items]
        size, done = n - 1, 1
        lazy.order(keys, items, size)
        advance(1)
        while done < budget:
            stop = min(done + min(done, ROUND), budget)
            size = lazy.pick_listed(
                np.empty((n, 0), np.float32), np.ones(n), lists.starts, lists.ends, lists.rows, lists.similarities,
                best, floor, weight, bonus, keys, items, size, stamps, chosen, done, stop,
            )  # fmt: skip
            _serve(x, norms, chosen[done:stop], best, floor)
            advance(stop - done)
            done = stop
    return chosen


def _turned(graph: Graph) -> Lists:
    """Of each candidate, the examples that have it among their neighbours; itself comes first."""
    from dsel.selector.tiles import turn

    n, k = graph.nearest.shape
    counts = np.ones(n, dtype=np.int64)
    for part in parts(n, 4 * max(k, 1)):
        counts += np.bincount(graph.nearest[part][graph.similarities[part] > -np.inf], minlength=n)
    ends = np.cumsum(counts)
    lists = Lists(ends - counts, ends, np.empty(ends[-1], np.int32), np.empty(ends[-1], np.float32))
    turn(graph.nearest, graph.similarities, lists.starts.copy(), lists.rows, lists.similarities)
    return lists


def _serve(x: Matrix, norms: Floats, chosen: Indices, best: Doubles, floor: Floats) -> None:
    """Raise `best` and `floor` of all examples by these."""
    added = _units(x, norms, chosen)
    for rows, block in blocks(x, beside=4 * len(chosen)):
        np.maximum(best[rows], (block @ added.T).max(axis=1) / norms[rows], out=best[rows])
        floor[rows] = best[rows]


@dataclass(kw_only=True)
class OnPairs(Static):
    """A greedy over all pairs, or on a graph that stands for them; a subclass has `select`.

    neighbours: of each example, how many there are in the graph; null: all pairs. device: where examples meet.
    """

    neighbours: Count | None = None
    device: Where = "auto"

    def check(self) -> None:
        torch_device(self.device, "selector.device")

    def cost(self, n: int, d: int, budget: int, k: int) -> Cost:
        if self.neighbours is None:
            return coverage.cost(n, d, self.device)
        return cost(n, d, budget, self.neighbours, self.device)
