"""The rows of a pool as they stood in their files: kept as they came, and made JSON when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from dsel.batches import as_json
from dsel.columns import Columns
from dsel.guard import packed
from dsel.json_columns import json_of

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema


@cache
def original_schema() -> Schema:
    import pyarrow as pa

    return pa.schema([("json", pa.string())])


@cache
def packed_schema() -> Schema:
    """Of the file: each of its batches has one row, and in it many, as an Arrow stream."""
    import pyarrow as pa

    return pa.schema([("count", pa.int64()), ("is_json", pa.bool_()), ("stream", pa.large_binary())])


@dataclass(frozen=True)
class Originals:
    """A batch of rows as they stood; it is read as a record batch of `original_schema` is, a part of it at a time.

    content: an Arrow stream of them, as JSON where it `is_json`, and else in the columns and types they came in: of
    those, JSON is made for the rows that somebody reads, which are few.
    """

    num_rows: int
    is_json: bool
    content: Any

    @staticmethod
    def of_texts(texts: Any) -> Originals:
        """Rows as JSON: a string array, or Python's strings."""
        import pyarrow as pa

        column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        return Originals(len(column), True, packed(pa.record_batch([column], schema=original_schema())))

    @staticmethod
    def of_columns(rows: RecordBatch) -> Originals:
        """Rows of types that `dsel.json_columns` knows, and of sound texts."""
        return Originals(rows.num_rows, False, packed(rows))

    @staticmethod
    def of_rows(rows: Iterable[Mapping[str, Any]]) -> Originals:
        return Originals.of_texts([as_json(row) for row in rows])

    @property
    def nbytes(self) -> int:
        return len(self.content)

    def select(self, _: Sequence[str]) -> Originals:
        return self

    def slice(self, offset: int = 0, length: int | None = None) -> RecordBatch:
        return self._json(self._open().slice(offset, length))

    def take(self, indices: Any) -> RecordBatch:
        return self._json(self._open().take(indices))

    def pack(self) -> RecordBatch:
        """One row of `packed_schema`."""
        import pyarrow as pa

        ends = pa.py_buffer(pa.array([0, len(self.content)], pa.int64()).buffers()[1])
        stream = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(self.content)])
        return pa.record_batch([pa.array([self.num_rows]), pa.array([self.is_json]), stream], schema=packed_schema())

    @staticmethod
    def unpack(batch: RecordBatch) -> Originals:
        """What `pack` has made, of which nothing is copied (as a scalar of Arrow's would be)."""
        import pyarrow.compute as pc

        count, is_json, stream = (batch.column(name) for name in packed_schema().names)
        length = pc.binary_length(stream)[0].as_py()
        return Originals(count[0].as_py(), is_json[0].as_py(), stream.buffers()[2].slice(0, length))

    def _open(self) -> RecordBatch:
        import pyarrow as pa

        return pa.ipc.open_stream(self.content).read_next_batch()

    def _json(self, rows: RecordBatch) -> RecordBatch:
        import pyarrow as pa

        return rows if self.is_json else pa.record_batch([json_of(rows)], schema=original_schema())


def unpacked(columns: Columns) -> Columns:
    """The column `json` of the rows in a file of `packed_schema`."""
    return Columns([Originals.unpack(batch) for batch in columns.batches], original_schema())
