"""The examples of a pool that are most like some targets: exact, in blocks, ties to the lower index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Floats, Indices, unit_rows

CELLS = 2**24  # similarities that are looked at at once
LAST = np.int64(np.iinfo(np.int64).min)  # below the key of any example

Blocks = Iterable[Floats]
"""Similarities float32[rows, m] of one stretch of the pool after the other to the m targets."""


def cosines(pool: ArrayLike, targets: ArrayLike) -> Iterator[Floats]:
    """Cosines of the rows of `pool` [n, d] to those of `targets` [m, d], in `Blocks`. Time O(nmd), memory O(md).

    Raises:
        ValueError: for NaN or zero rows, named.
    """
    x, wanted = np.asanyarray(pool), unit_rows(targets).T
    step = max(1, CELLS // wanted.shape[1])
    for start in range(0, len(x), step):
        yield unit_rows(x[start : start + step]) @ wanted


def by_group(blocks: Blocks, groups: Sequence[NDArray[np.int64]]) -> Iterator[Floats]:
    """The highest similarity to any target of each group, which names some targets by their numbers."""
    for block in blocks:
        yield np.stack([block[:, group].max(axis=1) for group in groups], axis=1)


def top(blocks: Blocks, k: int) -> tuple[Indices, Floats]:
    """The k examples most similar to each target, the first of them the most similar.

    Args:
        blocks: similarities, without NaN, to m targets.
        k: at most as many as there are examples.

    Returns:
        Their indices int64[m, k] and similarities float32[m, k]. Time O(nm), a look at each similarity and some
        k log n for each target; memory O(m(k + rows of a block)).
    """
    best: NDArray[np.int64] | None = None
    start = 0
    for block in blocks:
        similar = np.ascontiguousarray(block.T, dtype=np.float32)
        if best is None or best.shape[1] < k:
            keys = _keys(similar, np.arange(start, start + len(block)))
            both = keys if best is None else np.concatenate([best, keys], axis=1)
            best = both if both.shape[1] <= k else np.partition(both, both.shape[1] - k, axis=1)[:, -k:].copy()
        else:  # later examples that are as similar as the k-th come after it
            for kept, row, found in zip(best, similar, similar > _unkeyed(best.min(axis=1))[1][:, None], strict=True):
                better = np.flatnonzero(found)
                if better.size:
                    both = np.concatenate([kept, _keys(row[better], start + better)])
                    kept[:] = np.partition(both, len(better))[len(better) :]
        start += len(block)
    if best is None or best.shape[1] < k:
        raise ValueError(f"{k} examples are wanted of {start}")
    return _unkeyed(np.sort(best, axis=1)[:, ::-1])


def _keys(similar: Floats, index: Indices) -> NDArray[np.int64]:
    """Numbers that are in the order of preference: similarity first, then the lower index. float32[…, rows]."""
    keys = (similar + np.float32(0)).view(np.int32).astype(np.int64)  # -0.0 as 0.0
    np.subtract(-(2**31), keys, out=keys, where=keys < 0)  # the order of floats, as integers
    keys <<= 32
    keys |= 2**32 - 1 - index
    return keys


def _unkeyed(keys: NDArray[np.int64]) -> tuple[Indices, Floats]:
    ordered = keys >> 32
    bits = np.where(ordered < 0, np.int64(-(2**31)) - ordered, ordered).astype(np.int32)
    return 2**32 - 1 - (keys & (2**32 - 1)), bits.view(np.float32)


def round_robin(ranked: Indices, budget: int, *, on_taken: str = "skip") -> Indices | None:
    """In each round each target, in order, takes the most similar example that it has not yet asked for.

    Args:
        ranked: int64[m, k], the examples in the order in which each target wants them.
        budget: how many are taken in all.
        on_taken: a target whose example is taken loses the turn (`skip`), or takes the next that is free (`next`).

    Returns:
        int64[budget] in the order taken; None where the k best of each do not suffice.
    """
    if on_taken == "skip":  # then the order of asking is known beforehand
        asked = ranked.T.ravel()
        first = np.sort(np.unique(asked, return_index=True)[1])
        return asked[first[:budget]] if len(first) >= budget else None
    wishes = [iter(row) for row in ranked.tolist()]
    chosen: dict[int, None] = {}
    while True:
        for wish in wishes:
            free = next((i for i in wish if i not in chosen), None)
            if free is None:
                return None
            chosen[free] = None
            if len(chosen) == budget:
                return np.array(list(chosen), dtype=np.int64)
