"""Rows out of files: JSON, JSON lines, CSV, Parquet and Arrow, plain or compressed.

A row that cannot be read does not stop the file: it comes back as `Unreadable` with the reason. Bytes that are not
UTF-8 survive decoding as lone surrogates, which `dsel.data.formats` then finds in the one row that has them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel.errors import ConfigError, need

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst")

Row = dict[str, Any]


@dataclass(frozen=True)
class Unreadable:
    """A row no reader could make sense of, and why."""

    reason: str


def files_of(path: Path) -> list[Path]:
    """The data files a path stands for: itself, or everything readable below a folder, sorted by name.

    A folder that `datasets.save_to_disk` wrote stands for itself. Raises `ConfigError` when there is nothing to read.
    """
    if path.is_file():
        need(_suffix(path) in SUFFIXES, f"{path}: not a data file this reads ({', '.join(SUFFIXES)}; also .gz, .zst)")
        return [path]
    if _is_saved_dataset(path):
        return [path]
    found = sorted(_files_below(path))
    need(bool(found), f"{path}: no data file in this folder ({', '.join(SUFFIXES)}; also .gz, .zst)")
    return found


def read_rows(path: Path) -> Iterator[Row | Unreadable]:
    """The rows of one file, or of a folder written by `datasets.save_to_disk`, in order."""
    if path.is_dir():
        yield from _saved_dataset(path)
        return
    suffix = _suffix(path)
    if suffix == ".parquet":
        yield from _parquet(path)
    elif suffix == ".arrow":
        yield from _arrow(path)
    elif suffix in (".csv", ".tsv"):
        yield from _csv(_text(path), delimiter="," if suffix == ".csv" else "\t")
    elif suffix == ".json":
        yield from _json(_text(path), path)
    else:
        yield from _json_lines(_text(path))


def _files_below(folder: Path) -> Iterator[Path]:
    """Data files in `folder` and below it, and folders that stand for themselves; nothing hidden."""
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name in ("dataset_info.json", "dataset_infos.json"):
            continue
        if entry.is_dir() and not _is_saved_dataset(entry):
            yield from _files_below(entry)
        elif entry.is_dir() or _suffix(entry) in SUFFIXES:
            yield entry


def _suffix(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        elif path.suffix.lower() == ".zst":
            data = _unzstd(data)
    except Exception as error:  # each library raises its own kinds: what matters is that the file is damaged
        raise ConfigError(f"{path}: cannot be decompressed ({error})") from error
    return data.decode("utf-8-sig", errors="surrogateescape")


def _unzstd(data: bytes) -> bytes:
    import zstandard

    parts = []
    while data:  # a file may hold several frames
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("the file ends in the middle")
        data = frame.unused_data
    return b"".join(parts)


def _json(text: str, path: Path) -> Iterator[Row | Unreadable]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        lines = list(_json_lines(text))  # many files called .json hold one object a line
        if any(isinstance(row, dict) for row in lines):
            yield from lines
            return
        raise ConfigError(f"{path}: not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error
    if isinstance(content, dict):  # {"data": [...]}: the one list of objects inside
        lists = [v for v in content.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        content = lists[0] if len(lists) == 1 else [content]
    need(isinstance(content, list), f"{path}: expected a JSON array of objects, found a {type(content).__name__}")
    for row in content:
        yield row if isinstance(row, dict) else Unreadable("not an object")


def _json_lines(text: str) -> Iterator[Row | Unreadable]:
    for line in text.split("\n"):  # not splitlines(): U+2028 and friends are legal inside JSON strings
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield Unreadable("not JSON")
            continue
        yield row if isinstance(row, dict) else Unreadable("not an object")


def _csv(text: str, delimiter: str) -> Iterator[Row | Unreadable]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:  # a NUL byte, before Python 3.11
            yield Unreadable("not CSV")
            continue
        yield Unreadable("wrong number of columns") if None in row or None in row.values() else dict(row)


def _parquet(path: Path) -> Iterator[Row | Unreadable]:
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    try:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from _batch_rows(batch)
    except (ArrowException, OSError) as error:  # pyarrow reports damage as either
        raise ConfigError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error


def _arrow(path: Path) -> Iterator[Row | Unreadable]:
    import pyarrow as pa
    from pyarrow.lib import ArrowException

    try:
        try:
            batches: Any = pa.ipc.open_stream(pa.memory_map(str(path)))
        except (ArrowException, OSError):
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        for batch in batches:
            yield from _batch_rows(batch)
    except (ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not a readable Arrow file ({_first_line(error)})") from error


def _batch_rows(batch: Any) -> Iterator[Row | Unreadable]:
    """Rows of an Arrow batch; a row whose strings are not UTF-8 is `Unreadable`, the others are kept."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield from batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError:
                yield Unreadable("broken UTF-8")


def _saved_dataset(path: Path) -> Iterator[Row | Unreadable]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise ConfigError(f"{path}: not a readable saved data set ({_first_line(error)})") from error
    if isinstance(saved, DatasetDict):
        need(
            "train" in saved or len(saved) == 1,
            f"{path}: holds the splits {', '.join(saved)}; point data.path at the folder of one of them",
        )
        saved = saved["train"] if "train" in saved else next(iter(saved.values()))
    yield from saved


def _is_saved_dataset(path: Path) -> bool:
    return (path / "dataset_dict.json").exists() or ((path / "state.json").exists())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
