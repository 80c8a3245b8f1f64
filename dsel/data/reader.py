"""Rows out of files: JSON, JSON lines, CSV, Parquet and Arrow, plain or compressed.

A row that cannot be read does not stop the file: it comes back as `Unreadable` with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dsel.data.delimited import read_delimited
from dsel.data.folder import saved_files, saved_splits, suffix_of
from dsel.data.json_text import read_json, read_json_lines
from dsel.data.native import rows_of
from dsel.data.raw import Row, Unreadable
from dsel.errors import ConfigError, need
from dsel.files import State, state_of
from dsel.guard import batches


def read_rows(path: Path, split: str | None = "train") -> Iterator[Row | Unreadable]:
    """The rows of one file, or of a folder written by `datasets.save_to_disk`, in order.

    split: of a file that holds several; None for all of them.
    """
    try:
        if path.is_dir():
            for file in saved(path, split):
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
    before = state_of(path)
    yield from rows
    need_same(path, before)


def need_same(path: Path, before: State) -> None:
    """Raise `ConfigError` when a file was written to since it was in that state."""
    need(state_of(path) == before, f"{path}: was changed while it was read; start again when it is whole")


def saved(path: Path, split: str | None) -> list[Path]:
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
        yield from rows_of(batch)
