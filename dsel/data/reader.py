"""Rows out of files: JSON, JSON lines, CSV, Parquet and Arrow, plain or compressed.

A row that cannot be read does not stop the file: it comes back as `Unreadable` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsel.data.delimited import read_delimited
from dsel.data.folder import saved_files, saved_splits, suffix_of
from dsel.data.json_text import loads, read_json, read_json_lines
from dsel.data.raw import Row, Unreadable
from dsel.errors import ConfigError, need
from dsel.guard import batches

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch


def read_rows(path: Path, split: str | None = "train") -> Iterator[Row | Unreadable]:
    """The rows of one file, or of a folder written by `datasets.save_to_disk`, in order.

    split: of a file that holds several; None for all of them.
    """
    try:
        if path.is_dir():
            for file in _saved(path, split):
                yield from _steady(file, _native(file, "arrow"))
        else:
            yield from _steady(path, _read(path, split))
    except OSError as error:  # no permission, a disk that fails
        raise ConfigError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error


def _read(path: Path, split: str | None) -> Iterator[Row | Unreadable]:
    suffix = suffix_of(path)
    if suffix in (".parquet", ".arrow"):
        need(path.suffix.lower() == suffix, f"{path}: decompress it first: {suffix} files compress themselves")
        return _native(path, suffix[1:])
    if suffix in (".csv", ".tsv"):
        return read_delimited(path, "," if suffix == ".csv" else "\t")
    return (read_json if suffix == ".json" else read_json_lines)(path, split)


def _steady(path: Path, rows: Iterator[Row | Unreadable]) -> Iterator[Row | Unreadable]:
    """The rows of a file. Raises `ConfigError` when it is written to meanwhile, as they would be of two states."""

    def state() -> tuple[int, ...]:
        found = path.stat()
        return found.st_size, found.st_mtime_ns, found.st_ino

    before = state()
    yield from rows
    need(state() == before, f"{path}: was changed while it was read; start again when it is whole")


def _saved(path: Path, split: str | None) -> list[Path]:
    """The files of a saved data set; of one with several splits those of the one that is asked for."""
    splits = saved_splits(path)
    if splits is None:
        return saved_files(path)
    need(
        split in splits or len(splits) == 1,
        f"{path}: holds the splits {', '.join(splits)}; set data.split to one of them",
    )
    return saved_files(path / str(split if split in splits else splits[0]))


def _native(path: Path, kind: str) -> Iterator[Row | Unreadable]:
    for batch in batches(path, kind):
        yield from _rows(batch)


def _rows(batch: RecordBatch) -> Iterator[Row | Unreadable]:
    """Rows of a batch, or of its halves; one that Python has no values for is `Unreadable`, the others are kept."""
    import pyarrow as pa

    try:
        yield from _values(batch)
    except (ValueError, OverflowError, ArithmeticError, LookupError, RecursionError, pa.ArrowException) as error:
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            yield from _rows(batch.slice(0, half))
            yield from _rows(batch.slice(half))
        elif isinstance(error, UnicodeDecodeError):
            yield Unreadable("broken UTF-8")
        else:
            yield Unreadable(f"a value that cannot be read: {type(error).__name__}")


def _values(batch: RecordBatch) -> list[Any]:
    """The rows of a batch in Python's types; what is JSON by its type (`datasets.Json`) is read as such."""
    rows = batch.to_pylist()
    for field in batch.schema:
        if (decode := _decoder(field.type)) is not None:
            for row in rows:
                row[field.name] = decode(row[field.name])
    return rows


def _decoder(kind: DataType) -> Callable[[Any], Any] | None:
    """What makes values of a type out of those that Arrow has; None where they are the same."""
    import pyarrow as pa

    if isinstance(kind, getattr(pa, "JsonType", ())):
        return lambda value: None if value is None else loads(value)
    if pa.types.is_struct(kind):
        inner = {f.name: decode for f in kind if (decode := _decoder(f.type)) is not None}
        return (lambda value: value and {**value, **{n: d(value[n]) for n, d in inner.items()}}) if inner else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        decode = _decoder(kind.value_type)
        return None if decode is None else lambda value: value and [decode(each) for each in value]
    return None
