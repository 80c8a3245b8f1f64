"""The data files in a folder: what is read, what is not and why, and what `datasets.save_to_disk` wrote."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsel.data.raw import COMPRESSED
from dsel.errors import ConfigError, need

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
READ = f"{', '.join(SUFFIXES)}; also {', '.join(COMPRESSED)}"
COMPANIONS = (".md", ".py", ".yaml", ".yml", ".lock", ".png", ".jpg", ".pdf")
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of a data set, not rows

DATA = ""  # the reason of what is read


def files_of(path: Path) -> list[Path]:
    """The data files a path stands for: itself, or everything readable below a folder, sorted by name.

    A folder that `datasets.save_to_disk` wrote stands for itself. Raises `ConfigError` when there is nothing to read.
    """
    try:
        if path.is_file():
            need(suffix_of(path) in SUFFIXES, f"{path}: not a data file this reads ({READ})")
            return [path]
        need(path.is_dir(), f"{path}: neither a file nor a folder")
        if is_saved(path):
            return [path]
        found = sorted(file for file, reason in _below(path) if reason == DATA)
    except OSError as error:  # no permission, a disk that fails
        raise ConfigError(f"{error.filename or path}: cannot be looked at ({error.strerror or error})") from error
    need(bool(found), f"{path}: no data file in this folder ({READ})")
    return found


def not_read(folder: Path) -> dict[str, list[Path]]:
    """What is below a folder and not read, by reason, but for what accompanies data: papers, code, what is hidden."""
    left: dict[str, list[Path]] = {}
    for file, reason in _below(folder):
        if reason != DATA:
            left.setdefault(reason, []).append(file)
    return left


def is_saved(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote the folder."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def saved_splits(folder: Path) -> list[str] | None:
    """The splits of a folder that `DatasetDict.save_to_disk` wrote; None of a single data set's."""
    if not (folder / "dataset_dict.json").exists():
        return None
    names = _described(folder / "dataset_dict.json", "splits")
    _need_names(folder, names)
    return names


def saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a folder that `Dataset.save_to_disk` wrote, in order."""
    entries = _described(folder / "state.json", "_data_files")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    _need_names(folder, names)
    return [folder / str(name) for name in names]


def suffix_of(path: Path) -> str:
    """The suffix that says a file's kind, without that of its compression."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _below(folder: Path) -> Iterator[tuple[Path, str]]:
    """All in a folder and below that is not hidden and no companion of data, with `DATA` or why it is not read."""
    linked: set[Path] = set()  # folders that were entered by a link: each is entered once

    def walk(folder: Path, above: frozenset[Path]) -> Iterator[tuple[Path, str]]:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or entry.name in DESCRIPTIONS:
                continue
            try:
                mode = entry.stat().st_mode
                whole = stat.S_ISDIR(mode) and is_saved(entry)
            except OSError as error:
                yield entry, "links to nothing" if entry.is_symlink() else f"cannot be looked at: {error.strerror}"
                continue
            if whole:
                yield entry, DATA
            elif stat.S_ISDIR(mode):
                real = entry.resolve()
                if real in above or (entry.is_symlink() and real in linked):
                    yield entry, "links in a circle"
                    continue
                linked.update({real} if entry.is_symlink() else ())
                yield from walk(entry, above | {real})
            elif not stat.S_ISREG(mode):
                yield entry, "pipes, sockets and devices"
            elif suffix_of(entry) in SUFFIXES:
                yield entry, DATA
            elif suffix_of(entry) not in (*COMPANIONS, "") and not entry.name.startswith("_"):
                yield entry, "no data files"

    yield from walk(folder, frozenset({folder.resolve()}))


def _described(file: Path, key: str) -> list[Any]:
    """A list in one of the descriptions of a saved data set."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file.parent}: not a readable saved data set ({file.name}: {error})") from error
    listed = found.get(key) if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ConfigError(f"{file.parent}: not a readable saved data set ({file.name} lists no {key})")
    return listed


def _need_names(folder: Path, names: list[Any]) -> None:
    """Raise `ConfigError` for what is no name of a file in this folder."""
    for name in names:
        plain = isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name and "\0" not in name
        need(plain, f"{folder}: not a readable saved data set (it names {str(name)[:100]!r})")
