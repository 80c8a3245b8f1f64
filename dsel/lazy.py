"""Sequences that make their items when they are asked for, many at a time, and keep none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

BLOCK = 4096  # items made at once by who goes through all of them

T = TypeVar("T")
S = TypeVar("S")
Indices = npt.NDArray[np.int64]


class Lazy(Sequence[T], Generic[T]):
    """`length` items; `fetch(indices) -> list` makes those at any indices, in that order.

    Going through it makes a block of items at a time, `[i]` one. It is equal to a sequence of equal items.
    """

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __init__(self, length: int, fetch: Callable[[Indices], Sequence[T]], block: int = BLOCK):
        self._length = length
        self.fetch = fetch
        self.block = block

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for part in self.parts():
            yield from part

    def parts(self) -> Iterator[Sequence[T]]:
        """All items in order, a block at a time."""
        for block in blocks(self._length, self.block):
            yield self.fetch(np.arange(block.start, block.stop))

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return list(self.fetch(np.arange(*index.indices(self._length))))
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(f"{index} of {self._length} items")
        return self.fetch(np.array([at]))[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        parts = [np.array(part, dtype=dtype) for part in self.parts()]
        return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)

    def __arrow_array__(self, type: Any = None) -> Any:
        import pyarrow as pa

        parts = [pa.array(part, type) for part in self.parts()]
        return pa.concat_arrays(parts) if parts else pa.array([], type)

    def __repr__(self) -> str:
        return repr(list(self)) if self._length <= 20 else f"<{self._length:,} items: {self[0]!r}, …>"


class Conversations(Lazy[list[T]]):
    """Conversations whose `texts`, what all turns of each say, can be had without making their turns."""

    def __init__(self, turns: Lazy[list[T]], texts: Sequence[str]):
        super().__init__(len(turns), turns.fetch, turns.block)
        self.texts = texts


def mapped(function: Callable[..., S], *items: Sequence[Any]) -> Lazy[S]:
    """`function` of each of `items`, made when it is asked for; of several sequences, of those at the same place."""
    block = min(each.block if isinstance(each, Lazy) else BLOCK for each in items)
    return Lazy(len(items[0]), lambda indices: list(map(function, *(fetched(each, indices) for each in items))), block)


def fetched(items: Sequence[T], indices: Sequence[int] | Indices) -> Sequence[T]:
    """Those of `items` that are at `indices`, together: a lazy sequence makes all of them at once."""
    if isinstance(items, Lazy):
        return items.fetch(np.asarray(indices, dtype=np.int64))
    return [items[i] for i in indices]


def blocks(length: int, size: int = BLOCK) -> Iterator[range]:
    """The indices of `length` items, block by block."""
    for start in range(0, length, size):
        yield range(start, min(start + size, length))
