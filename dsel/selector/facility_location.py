"""Facility location: the subset that represents the whole pool best, by an exact lazy greedy."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Doubles, Floats, Indices, check_budget, unit_rows
from dsel.progress import progress
from dsel.selector.base import Selection, Static
from dsel.study import Study

log = logging.getLogger(__name__)

ROUNDING = 1e-6  # bounds the error of a float32 dot product of unit vectors, many times over
DECIMALS = 9  # float64 values that agree so far are ties
PAIRS = 128_000_000  # (candidate, example) pairs held in memory at once, 8 bytes each
BATCH = 512  # candidates computed at once
ROWS = 4096

# The examples that one candidate would serve better, and how similar they are to it.
NearPairs = tuple[NDArray[np.int32], Floats]


def greedy(embeddings: ArrayLike, budget: int) -> Indices:
    """Greedy maximiser of d(S) = sum over v in the pool of max over a in S of cos(v, a).

    embeddings [n, d], rows of any length. Returns int64[budget] in the order chosen: within 1 - 1/e of the
    best value (Nemhauser, Wolsey, Fisher 1978). The order is that of the plain greedy in float64; values that
    agree to nine decimals are ties and go to the lowest index. Memory: about 1.5 GB beyond the embeddings at
    most, never an n x n matrix. Raises ValueError for NaN or zero rows, named, and for a budget outside 1..n.
    """
    x = unit_rows(embeddings)
    return lazy_greedy(x, check_budget(budget, len(x)))


def lazy_greedy(x: Floats, budget: int, weight: float = 1.0, bonus: Doubles | None = None) -> Indices:
    """argmax over i of weight * d(S + {i}) + bonus_i, `budget` times. x: unit rows [n, d]; bonus [n].

    Gains of d only fall, so an old value bounds the new one and few need computing again (CELF: Leskovec et
    al. 2007). Bounds come from float32, `floor` allowing for its rounding; only a candidate at the top of the
    queue is computed in float64, so rounding never decides. The first picks change nearly every gain and are
    computed by matrix products; as soon as the pairs (candidate, example it would serve better) fit in memory
    they are listed once, and everything after that is sums over short lists.
    """
    n = len(x)
    bonus = np.zeros(n) if bonus is None else bonus
    norms = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
    # d of the empty set is taken as -n: then the first value is the definition's, negative cosines included.
    best = np.full(n, -1.0)  # similarity of each example to its nearest chosen one
    floor = np.full(n, -1.0, dtype=np.float32)  # what a float32 similarity must exceed to matter
    near: list[NearPairs] | None = None

    def value(gain: float, i: int) -> float:
        return round(weight * gain + float(bonus[i]), DECIMALS)

    def exact_gain(i: int) -> float:
        gain = 0.0
        for rows in _slices(n) if near is None else [near[i][0]]:
            terms = _cosines(x, norms, rows, i) - best[rows]
            gain += float(terms[terms > 0].sum())
        return gain

    total = x.sum(axis=0, dtype=np.float64)
    first = np.concatenate([x[rows] @ total for rows in _slices(n)]) + n * (1 + ROUNDING)
    queue = [(-value(gain, i), i, -1) for i, gain in enumerate(first.tolist())]
    heapq.heapify(queue)
    chosen: list[int] = []
    with progress("facility location", total=budget, unit="examples") as advance:
        while len(chosen) < budget:
            # A stamp says when a value was computed: with t chosen, 2t for a bound and 2t + 1 for an exact one.
            bound_now, exact_now = 2 * len(chosen), 2 * len(chosen) + 1
            _, i, stamp = heapq.heappop(queue)
            if stamp == exact_now:
                chosen.append(i)
                advance(1)
                for rows in _slices(n) if near is None else [near[i][0]]:
                    best[rows] = np.maximum(best[rows], _cosines(x, norms, rows, i))
                # A cosine of one cannot be beaten: such an example is served.
                floor[:] = np.where(best > 1 - 1e-12, np.inf, best - ROUNDING)
                if near is None and _pairs(x, floor) <= PAIRS:
                    near = _near_pairs(x, floor)
                    log.info("%d near pairs after %d picks", sum(len(v) for v, _ in near), len(chosen))
            elif stamp == bound_now or not chosen:
                heapq.heappush(queue, (-value(exact_gain(i), i), i, exact_now))
            elif near is None:
                stale = [i]
                while queue and len(stale) < BATCH and queue[0][2] < bound_now:
                    stale.append(heapq.heappop(queue)[1])
                for j, gain in zip(stale, _gains(x, floor, np.array(stale)).tolist(), strict=True):
                    heapq.heappush(queue, (-value(gain, j), j, bound_now))
            else:
                v, s = near[i]
                over = s - floor[v]
                useful = over > 0
                if 2 * np.count_nonzero(useful) < len(v):
                    near[i] = v[useful], s[useful]
                gain = float(over[useful].sum(dtype=np.float64))
                heapq.heappush(queue, (-value(gain, i), i, bound_now))
    return np.array(chosen, dtype=np.int64)


def _slices(n: int) -> Iterator[slice]:
    return (slice(lo, lo + ROWS) for lo in range(0, n, ROWS))


def _cosines(x: Floats, norms: Doubles, rows: slice | NDArray[np.int32], i: int) -> Doubles:
    """cos(x_i, rows) in float64. einsum, unlike BLAS, gives a row the same bits wherever it stands."""
    dots = np.einsum("vd,d->v", x[rows].astype(np.float64), x[i].astype(np.float64))
    return np.minimum(dots / (norms[rows] * norms[i]), 1.0)


def _gains(x: Floats, floor: Floats, candidates: Indices) -> Doubles:
    """float64[len(candidates)]: an upper bound of what each would add to d, from float32 similarities."""
    c = x[candidates].T
    gains = np.zeros(len(candidates))
    for rows in _slices(len(x)):
        over = x[rows] @ c
        over -= floor[rows, None]
        gains += np.maximum(over, 0, out=over).sum(axis=0, dtype=np.float64)
    return gains


def _pairs(x: Floats, floor: Floats, sample: int = 128) -> float:
    """An estimate of how many pairs of float32 similarities are above their floor."""
    candidates = x[:: -(-len(x) // sample)]
    hits = sum(np.count_nonzero(x[rows] @ candidates.T > floor[rows, None]) for rows in _slices(len(x)))
    return hits / len(candidates) * len(x)


def _near_pairs(x: Floats, floor: Floats) -> list[NearPairs]:
    """For each candidate the examples (int32, ascending) it would serve better, and the similarities."""
    n = len(x)
    near: list[NearPairs] = []
    for lo in range(0, n, BATCH):
        similarities = x[lo : lo + BATCH] @ x.T
        useful = similarities > floor
        flat = np.flatnonzero(useful)
        counts = np.count_nonzero(useful, axis=1)
        examples = (flat % n).astype(np.int32)
        values = similarities.ravel()[flat]
        ends = np.cumsum(counts)
        near += [(examples[e - c : e], values[e - c : e]) for e, c in zip(ends, counts, strict=True)]
    return near


@dataclass
class FacilityLocation(Static):
    """`selector=facility_location`: `greedy`."""

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def select(self, study: Study) -> Selection:
        return Selection(greedy(study.embeddings, study.budget))
