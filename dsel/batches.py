"""The rows of a pool as Arrow's record batches: their columns, ids told apart, and the content's digest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.json_columns import texts_of
from dsel.messages import message_type, turn_counts

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch, Schema, StringArray

RESERVED = ("id", "messages", "source")
"""The columns of every pool; a score has another name."""

ROWS = 8192  # of a batch at most
BYTES = 2**26  # and of a batch of more than one row
SHORT = 64  # bytes of an id


@cache
def row_schema() -> Schema:
    """What each row of a pool has."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("messages", message_type()), ("source", pa.string())])


def as_json(row: Mapping[str, Any]) -> str:
    """A row as JSON, whatever is in it."""
    try:
        text = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN and infinity are not JSON
        row = _finite(row)
        text = json.dumps(row, ensure_ascii=False, default=str)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a column no format reads may still hold broken bytes: keep them, escaped
        text = json.dumps(row, default=str)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pieces(batch: RecordBatch) -> list[RecordBatch]:
    """A batch cut, without a copy, into those of at most `ROWS` rows and `BYTES` bytes, or of one row."""
    if batch.num_rows <= 1 or (batch.num_rows <= ROWS and batch.nbytes <= BYTES):
        return [batch] if batch.num_rows else []
    half = ROWS if batch.num_rows > ROWS else batch.num_rows // 2
    cut = [batch.slice(start, half) for start in range(0, batch.num_rows, half)]
    return [piece for part in cut for piece in pieces(part)]


class Distinct:
    """Gives each row of a pool an id of its own: one that has come before gets a suffix (`a`, `a#2`, `a#3`).

    Kept of an id are 64 bits of its digest, in a table of open addressing; so two of ten million are taken for the same
    once in 400,000 pools, and then the second has a suffix that it would not need.
    """

    def __init__(self) -> None:
        self._table = np.zeros(2**16, dtype=np.uint64)  # 0: free
        self._count = 0
        self._repeats: dict[str, int] = {}

    def __call__(self, ids: StringArray) -> StringArray:
        import pyarrow as pa

        keys = keys_of(ids)
        if not self._contains(keys).any() and len(np.unique(keys)) == len(keys):
            self._add(keys)
            return ids
        return pa.array([self._name(name) for name in ids.to_pylist()], pa.string())

    def _name(self, name: str) -> str:
        import pyarrow as pa

        unique = name
        while self._contains(key := keys_of(pa.array([unique], pa.string())))[0]:
            self._repeats[name] = self._repeats.get(name, 1) + 1
            unique = f"{name}#{self._repeats[name]}"
        self._add(key)
        return unique

    def _contains(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(keys), dtype=bool)
        places, left = self._places(keys), np.arange(len(keys))
        while len(left):
            there = self._table[places]
            found[left] = there == keys[left]
            on = (there != 0) & ~found[left]
            left, places = left[on], (places[on] + 1) % len(self._table)
        return found

    def _add(self, keys: npt.NDArray[np.uint64]) -> None:
        """Note keys of which none is there, nor twice among them."""
        self._count += len(keys)
        if self._count * 2 > len(self._table):
            keys = np.concatenate([self._table[self._table != 0], keys])
            self._table = np.zeros(1 << (4 * self._count - 1).bit_length(), dtype=np.uint64)
        places = self._places(keys)
        while len(keys):
            free = self._table[places] == 0
            self._table[places[free]] = keys[free]
            left = self._table[places] != keys  # what was taken, also by another of these keys
            keys, places = keys[left], (places[left] + 1) % len(self._table)

    def _places(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        return (keys % np.uint64(len(self._table))).astype(np.int64)


def keys_of(texts: StringArray) -> npt.NDArray[np.uint64]:
    """uint64[n], none of them 0: digests of texts, of which two are the same for one in 2⁶⁴ pairs of different ones.

    A short text's is the sum of a random number for each of its bytes at its place (tabulation hashing).
    """
    import xxhash

    ends, data = texts_of(texts)
    lengths = np.diff(ends)
    places = np.arange(len(data)) - np.repeat(ends[:-1], lengths)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_random()[places % SHORT, data], dtype=np.uint64)])
    keys = sums[ends[1:]] - sums[ends[:-1]]
    for number in np.flatnonzero(lengths > SHORT).tolist():
        keys[number] = xxhash.xxh3_64_intdigest(data[ends[number] : ends[number + 1]].tobytes())
    return np.where(keys == 0, np.uint64(1), keys)


@cache
def _random() -> npt.NDArray[np.uint64]:
    """uint64[SHORT, 256]"""
    return np.random.default_rng(0).integers(2**64, size=(SHORT, 256), dtype=np.uint64)


class Fingerprint:
    """A digest of columns, in order: the same however their rows are cut into batches.

    Each column of texts is two streams, its bytes one after the other and their lengths; a list's is its lengths too.
    """

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}
        self._rows = 0

    def add(self, batch: RecordBatch) -> None:
        self._rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self.column(name, column)

    def column(self, name: str, column: Array) -> None:
        """Texts, float64, or lists and structs of them, without gaps."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_list(column.type):
            self.feed(f"{name}:", turn_counts(column))
            self.column(f"{name}[]", column.flatten())
        elif pa.types.is_struct(column.type):
            for i, field in enumerate(column.type):
                self.column(f"{name}.{field.name}", column.field(i))
        elif pa.types.is_string(column.type):
            self.feed(f"{name}:", pc.binary_length(column).to_numpy(zero_copy_only=False))
            if len(column) and (data := column.buffers()[2]) is not None:
                ends = np.frombuffer(column.buffers()[1], np.int32)
                self.feed(name, memoryview(data)[ends[column.offset] : ends[column.offset + len(column)]])
        else:
            values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
            self.feed(name, np.where(np.isnan(values), np.nan, values))  # of all the NaN there are, one

    def feed(self, stream: str, data: Any) -> None:
        """Bytes of a stream."""
        import xxhash

        self._streams.setdefault(stream, xxhash.xxh3_128()).update(data)

    def hexdigest(self) -> str:
        told = {name: stream.hexdigest() for name, stream in self._streams.items()}
        return hashlib.sha256(json.dumps([self._rows, told], sort_keys=True).encode()).hexdigest()[:24]
