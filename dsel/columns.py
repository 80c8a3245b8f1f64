"""Columns of Arrow's record batches, in memory or mapped from a file, and views of some of their rows.

A row is copied when it is read, with the others of its block, and dropped with it: what a view takes of memory are its
row numbers. Arrow's own `take` would do, but it first puts all batches of a column of texts into one, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from dsel.batches import BYTES
from dsel.lazy import BLOCK, Indices, Lazy, blocks

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, RecordBatch, Schema

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Columns:
    """The rows of `batches`, or those of them that `indices` names, in that order.

    change: what becomes of each batch that is read of them; it works row by row, and keeps names and types.
    """

    batches: Sequence[RecordBatch]
    schema: Schema
    indices: Indices | None = None
    change: Callable[[RecordBatch], RecordBatch] | None = None

    @cached_property
    def _starts(self) -> Indices:
        """int64[batches + 1]: where in the whole each batch begins, and the end of the last."""
        return np.concatenate([[0], np.cumsum([batch.num_rows for batch in self.batches], dtype=np.int64)])

    @property
    def column_names(self) -> list[str]:
        return list(self.schema.names)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.indices is None else len(self.indices)

    def __getitem__(self, name: str) -> Lazy[Any]:
        """The values of one column, in Python's types."""
        return self.lazy(name, lambda column: column.to_pylist())

    def lazy(self, name: str, decode: Callable[[Any], list[T]]) -> Lazy[T]:
        """What `decode` makes of some rows of a column, one item a row."""

        def fetch(indices: Indices) -> list[T]:
            found = list[T]()
            for part in blocks(len(indices), self.block):
                found += decode(self.gather(indices[part.start : part.stop], [name]).column(0))
            return found

        return Lazy(len(self), fetch, self.block)

    @cached_property
    def block(self) -> int:
        """How many rows are read at once: fewer where they are long."""
        rows, size = int(self._starts[-1]), sum(batch.nbytes for batch in self.batches)
        return max(1, min(BLOCK, BYTES * rows // max(size, 1)))

    def arrow(self, name: str) -> ChunkedArray:
        """One column, as Arrow has it; of a view, a copy."""
        import pyarrow as pa

        parts = [batch.column(0) for batch in self.iterate([name])]
        return pa.chunked_array(parts, self.schema.field(name).type)

    def codes(self, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """A column of few different texts: int64[n], the number of each row's, and the texts in their order."""
        known: dict[str, int] = {}
        codes = np.empty(len(self), dtype=np.int64)
        start = 0
        for batch in self.iterate([name]):
            encoded = batch.column(0).dictionary_encode()
            own = np.array([known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()], np.int64)
            codes[start : start + batch.num_rows] = own[encoded.indices.to_numpy()]
            start += batch.num_rows
        texts = sorted(known)
        place = np.empty(len(texts), dtype=np.int64)
        place[[known[text] for text in texts]] = np.arange(len(texts))
        return place[codes], texts

    def take(self, indices: npt.ArrayLike) -> Columns:
        """A view of the rows at `indices`, in that order.

        Raises:
            IndexError: there are no such rows.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"indices from {wanted.min()} to {wanted.max()}, of {len(self)} rows")
        return replace(self, indices=wanted if self.indices is None else self.indices[wanted])

    def iterate(self, columns: Sequence[str] | None = None, size: int | None = None) -> Iterator[RecordBatch]:
        """All rows in order, in batches of at most `size`; of a whole table they are not copied."""
        size = size or self.block
        if self.indices is not None:
            for part in blocks(len(self), size):
                yield self.gather(np.arange(part.start, part.stop), columns)
            return
        for batch in self.batches:
            found = batch.select(self.column_names if columns is None else list(columns))
            for start in range(0, batch.num_rows, size):
                yield self._changed(found.slice(start, size))

    def gather(self, indices: Indices, columns: Sequence[str] | None = None) -> RecordBatch:
        """The rows at `indices`, in that order, as one batch: copied, but for rows that lie side by side in one.

        Time grows with the rows and with the batches they are in.
        """
        import pyarrow as pa

        names = self.column_names if columns is None else list(columns)
        rows = indices if self.indices is None else self.indices[indices]
        if not len(rows):
            return pa.RecordBatch.from_pylist([], pa.schema([self.schema.field(name) for name in names]))
        order = None if (rows[1:] >= rows[:-1]).all() else np.argsort(rows, kind="stable")
        ascending = rows if order is None else rows[order]
        ends = np.searchsorted(ascending, self._starts)  # of each batch's rows in `ascending`
        parts = []
        for number in np.flatnonzero(ends[1:] > ends[:-1]).tolist():
            local = ascending[ends[number] : ends[number + 1]] - self._starts[number]
            batch = self.batches[number].select(names)
            run = local[-1] - local[0] == len(local) - 1 and (local[1:] > local[:-1]).all()
            parts.append(batch.slice(local[0], len(local)) if run else batch.take(pa.array(local)))
        found = parts[0] if len(parts) == 1 else pa.concat_batches(parts)
        if order is not None:
            back = np.empty(len(order), dtype=np.int64)
            back[order] = np.arange(len(order))
            found = found.take(pa.array(back))
        return self._changed(found)

    def _changed(self, batch: RecordBatch) -> RecordBatch:
        return batch if self.change is None else self.change(batch)


def beside(left: Columns, right: Columns) -> Columns:
    """The columns of both, which have the same batches' lengths and no view."""
    import pyarrow as pa

    schema = pa.schema([*left.schema, *right.schema])
    batches = [
        pa.RecordBatch.from_arrays([*a.columns, *b.columns], schema=schema)
        for a, b in zip(left.batches, right.batches, strict=True)
    ]
    return Columns(batches, schema)


def mapped_from(path: Any) -> Columns:
    """The columns of an Arrow file, which stays on disk: its pages are read when rows are, and can be dropped."""
    import pyarrow as pa

    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    return Columns([batch for batch in batches if batch.num_rows], reader.schema)
