"""Parquet and Arrow files as record batches that are sound, in the process that `dsel.guard` starts for it.

Each batch is checked in full before anything is done with it. Then it is made dense: types by which few bytes stand for
many (dictionaries, runs, views) become plain ones here, where memory has a limit, and not in the process that asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

ROWS, BYTES = 2**13, 2**26  # of a batch at most, where a single row is not larger
CELLS, CELLS_A_BYTE = 10**7, 1000  # what a file may stand for: nothing, a million times, takes no room in it
BINARY = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
DENSE = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
MAGIC, END = b"ARROW1", b"\xff\xff\xff\xff\0\0\0\0"


Part = tuple[int, int, int]
"""A row group of a Parquet file, and the first of its rows and the one after the last that are meant."""


def checked(
    path: str, kind: str, columns: Sequence[str] | None, rows: bool, text: bool, part: Part | None = None
) -> Iterator[pa.RecordBatch | str]:
    """The batches of a file, the first one without rows; and texts that the user is to know.

    kind: `parquet`, `arrow`, or `groups` for the sizes of a Parquet file's row groups alone. columns: only these. rows:
    False for the first one alone. text: whether strings that are not UTF-8 are refused. part: of a Parquet file only
    this.
    """
    if kind == "groups":
        yield _groups(path)
        return
    schema, found = _parquet(path, columns, part) if kind == "parquet" else _arrow(path, columns)
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ValueError(f"two of its columns are called {', '.join(twice)}")
    none = [pa.nulls(0, field.type) for field in schema]
    yield _dense(pa.RecordBatch.from_arrays(none, schema=schema.remove_metadata()))
    size, cells = os.stat(path).st_size, 0  # noqa: PTH116
    for raw in found if rows else ():
        if isinstance(raw, str):
            yield raw
            continue
        _weigh(raw, CELLS_A_BYTE * (size + BYTES))
        _validate(raw, text)
        step = max(1, min(ROWS, BYTES * raw.num_rows // max(1, raw.nbytes)))
        for start in range(0, raw.num_rows, step):
            batch = _dense(raw.slice(start, step))
            cells += batch.num_rows + sum(map(_cells, batch.columns))
            if cells > CELLS + CELLS_A_BYTE * size:
                raise ValueError(f"its {size:,} bytes stand for more than {cells:,} values")
            step_within = max(1, min(batch.num_rows, BYTES * batch.num_rows // max(1, batch.nbytes)))
            for within in range(0, batch.num_rows, step_within):
                yield batch.slice(within, step_within)


def _groups(path: str) -> pa.RecordBatch:
    import pyarrow.parquet as pq

    told = pq.ParquetFile(_opened(path)).metadata
    groups = [told.row_group(group) for group in range(told.num_row_groups)]
    if sum(group.num_rows for group in groups) != told.num_rows:
        raise ValueError(f"it says it has {told.num_rows:,} rows, and its parts have others")
    return pa.record_batch({"rows": [g.num_rows for g in groups], "bytes": [g.total_byte_size for g in groups]})


def _parquet(
    path: str, columns: Sequence[str] | None, part: Part | None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch | str]]:
    import pyarrow.parquet as pq

    if part is not None and (open_ := _open.pop("part", None)) is not None and open_.is_before(path, part):
        file, group = open_.file, open_
    else:
        file, group = pq.ParquetFile(_opened(path)), None
    schema, told = file.schema_arrow, file.metadata
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        if part is not None:
            _open["part"] = open_ = group or Group(path, file, part[0], iter(_group(file, part[0], columns)))
            yield from open_.until(part[1], part[2])
            return
        read = 0
        for number in range(told.num_row_groups):
            for batch in _group(file, number, columns):
                read += batch.num_rows
                yield batch
        if read != told.num_rows:
            raise ValueError(f"it says it has {told.num_rows:,} rows, and has {read:,}")

    return schema, batches()


def _group(file: Any, number: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """The rows of one row group: no more at once than have room."""
    told = file.metadata.row_group(number)
    rows = max(1, min(ROWS, BYTES * told.num_rows // max(1, told.total_byte_size)))
    return file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False)


@dataclass
class Group:
    """A row group of which the rows below `at` are read: what has no index is read from its beginning, but once."""

    path: str
    file: Any
    number: int
    batches: Iterator[pa.RecordBatch]
    at: int = 0
    rest: pa.RecordBatch | None = None

    def is_before(self, path: str, part: Part) -> bool:
        return (self.path, self.number) == (path, part[0]) and self.at <= part[1]

    def until(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The rows from `start` to `stop`."""
        while self.at < stop:
            batch, self.rest = self.rest if self.rest is not None else next(self.batches, None), None
            if batch is None:
                raise ValueError(f"a part of it says it has {stop:,} rows, and has {self.at:,}")
            end = min(self.at + batch.num_rows, stop)
            if end < self.at + batch.num_rows:
                self.rest = batch.slice(end - self.at)
            first = max(start, self.at)
            if first < end:
                yield batch.slice(first - self.at, end - first)
            self.at = end


_open: dict[str, Group] = {}  # where this process goes on when it is asked for the part that follows


def _arrow(path: str, columns: Sequence[str] | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch | str]]:
    file = _opened(path)
    stream = file.read(len(MAGIC)) != MAGIC
    file.seek(0)
    reader = pa.ipc.open_stream(file) if stream else pa.ipc.open_file(file)

    def batches() -> Iterator[pa.RecordBatch | str]:
        parts = reader if stream else map(reader.get_batch, range(reader.num_record_batches))
        for batch in parts:
            yield batch if columns is None else batch.select(columns)
        if stream:
            file.seek(max(0, file.size() - len(END)))
            if file.read() != END:
                yield "has no mark at its end, which shows that nothing is missing there"

    return reader.schema, batches()


def _opened(path: str) -> Any:
    """The file, not mapped to memory: one that shrinks meanwhile would end the process."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:  # a name that is no text
        return pa.PythonFile(open(path, "rb"))  # noqa: PTH123
    return pa.OSFile(path)


def _weigh(batch: pa.RecordBatch, most: int) -> None:
    """Raise for views that stand for more than so many bytes of text: only to check them would take for ever."""
    for column in batch.columns:
        if column.type in DENSE:
            column.validate()
            words = np.frombuffer(column.buffers()[1], np.int32)[4 * column.offset :][: 4 * len(column)]
            total = int(words[::4].sum(dtype=np.int64))  # a view is its length, and three words on where its text is
            if total > most:
                raise ValueError(f"its views stand for {total:,} bytes")


def _validate(batch: pa.RecordBatch, text: bool) -> None:
    """Raise for anything but a sound batch; strings that are not UTF-8 count for `text` only."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        if text:
            raise
        for column in batch.columns:
            kind = _each(column.type, lambda inner: BINARY.get(inner, inner))
            (column if kind == column.type else column.view(kind)).validate(full=True)


def _dense(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with plain columns of the same values. Raises for those of types that data sets do not have."""
    kinds = [_each(field.type, _plain) for field in batch.schema]
    if all(kind == field.type for kind, field in zip(kinds, batch.schema, strict=True)):
        return batch
    columns = [c if c.type == kind else c.cast(kind) for c, kind in zip(batch.columns, kinds, strict=True)]
    fields = [field.with_type(kind) for field, kind in zip(batch.schema, kinds, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _each(kind.value_type, _plain)
    if isinstance(kind, pa.ListViewType | pa.LargeListViewType | pa.RunEndEncodedType | pa.UnionType):
        raise ValueError(f"a column of type {kind}, which is not read")
    return DENSE.get(kind, kind)


def _each(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type with `change` made to all types in it that hold no others."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([_field(kind.field(i), change) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_field(kind.key_field, change), _field(kind.item_field, change), keys_sorted=kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(_field(kind.value_field, change), kind.list_size)
    if types.is_list(kind):
        return pa.list_(_field(kind.value_field, change))
    if types.is_large_list(kind):
        return pa.large_list(_field(kind.value_field, change))
    if isinstance(kind, pa.BaseExtensionType):
        if _each(kind.storage_type, change) != kind.storage_type:  # which pyarrow casts to other values
            raise ValueError(f"a column of type {kind}, which is not read")
        return kind
    return change(kind)


def _field(field: pa.Field, change: Callable[[pa.DataType], pa.DataType]) -> pa.Field:
    return field.with_type(_each(field.type, change))


def _cells(array: pa.Array) -> int:
    """How many values Python will make of an array, at any depth."""
    types, kind = pa.types, array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _cells(array.storage)
    if types.is_struct(kind):
        return len(array) + sum(_cells(array.field(i)) for i in range(kind.num_fields))
    if types.is_map(kind):
        return len(array) + 2 * len(array.keys) + _cells(array.items)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return len(array) + _cells(array.flatten())
    return len(array)
