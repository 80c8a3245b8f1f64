"""Rows out of files: JSON, JSON lines, CSV, Parquet and Arrow, plain or compressed.

A row that cannot be read does not stop the file: it comes back as `Unreadable` with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsel.data.delimited import read_delimited
from dsel.data.json_text import read_json, read_json_lines
from dsel.data.raw import COMPRESSED, Row, Unreadable, read_text
from dsel.errors import ConfigError, need

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
READ = f"{', '.join(SUFFIXES)}; also {', '.join(COMPRESSED)}"
COMPANIONS = (".md", ".py", ".yaml", ".yml", ".lock", ".png", ".jpg", ".pdf")
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of a data set, not rows


def files_of(path: Path) -> list[Path]:
    """The data files a path stands for: itself, or everything readable below a folder, sorted by name.

    A folder that `datasets.save_to_disk` wrote stands for itself. Raises `ConfigError` when there is nothing to read.
    """
    if path.is_file():
        need(_suffix(path) in SUFFIXES, f"{path}: not a data file this reads ({READ})")
        return [path]
    if _is_saved_dataset(path):
        return [path]
    found = sorted(_files_below(path))
    need(bool(found), f"{path}: no data file in this folder ({READ})")
    return found


def read_rows(path: Path, split: str | None = "train") -> Iterator[Row | Unreadable]:
    """The rows of one file, or of a folder written by `datasets.save_to_disk`, in order.

    split: of a file that holds several; None for all of them.
    """
    try:
        yield from _read(path, split)
    except OSError as error:  # no permission, a disk that fails
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read(path: Path, split: str | None) -> Iterator[Row | Unreadable]:
    if path.is_dir():
        yield from _saved_dataset(path, split)
        return
    suffix = _suffix(path)
    if suffix in (".parquet", ".arrow"):
        need(path.suffix.lower() == suffix, f"{path}: decompress it first: {suffix} files compress themselves")
        yield from (_parquet if suffix == ".parquet" else _arrow)(path)
    elif suffix in (".csv", ".tsv"):
        yield from read_delimited(read_text(path, legacy=True), path, "," if suffix == ".csv" else "\t")
    else:
        yield from (read_json if suffix == ".json" else read_json_lines)(read_text(path), path, split)


def not_data(folder: Path) -> list[Path]:
    """Files below a folder whose kind is not read, but for those that accompany data: papers, code, what is hidden."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and _suffix(file) not in (*SUFFIXES, *COMPANIONS, "")
        and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    )


def _files_below(folder: Path) -> Iterator[Path]:
    """Data files in `folder` and below it, and folders that stand for themselves; nothing hidden."""
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name in DESCRIPTIONS:
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


def _saved_dataset(path: Path, split: str | None) -> Iterator[Row | Unreadable]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise ConfigError(f"{path}: not a readable saved data set ({_first_line(error)})") from error
    if isinstance(saved, DatasetDict):
        need(
            split in saved or len(saved) == 1,
            f"{path}: holds the splits {', '.join(saved)}; set data.split to one of them",
        )
        saved = saved[split] if split in saved else next(iter(saved.values()))
    yield from saved


def _is_saved_dataset(path: Path) -> bool:
    return (path / "dataset_dict.json").exists() or ((path / "state.json").exists())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
