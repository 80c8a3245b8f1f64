"""What of a file is read at once: byte ranges of JSON lines, row groups of Parquet, or all of it in order.

How a file is cut depends on the file alone, and not on who reads it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel import guard
from dsel.data.convert import Chunk, Lines, convert, numbered
from dsel.data.folder import suffix_of
from dsel.data.json_lines import columns_of, groups_of, standing
from dsel.data.json_text import first_row, rows_of_lines
from dsel.data.native import rows_of
from dsel.data.raw import Row, Unreadable, lines_of
from dsel.data.reader import read_rows, saved
from dsel.data.rows import Meaning
from dsel.errors import ConfigError, need

if TYPE_CHECKING:
    from pyarrow import RecordBatch

ROWS = 2**13  # of a batch at most
LINES = 2**24  # bytes or characters of a batch of text, about
CUT_LINES, CUT_ROWS = 2**25, 2**14  # bytes, or rows, of a unit, about
WHOLE_LINES = 2**26  # bytes of lines in memory: a unit of more has a line that is long
MARK = b"\xef\xbb\xbf"  # before UTF-8

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unit:
    """Some of the rows of a file.

    kind: `lines` from byte `start` to `stop`; `parquet`, of the row group `group` the rows from `start` to `stop`, or
    all groups where it is None; all of an `arrow` file; or all `rows` of any other. only: the numbers of the rows that
    are wanted, counted from 0 and ascending; None: all. count: how many it has, where that was counted.
    """

    path: str
    kind: str
    start: int = 0
    stop: int = 0
    group: int | None = None
    split: str | None = None
    only: Sequence[int] | None = None
    count: int | None = None

    @property
    def part(self) -> tuple[int, int, int] | None:
        """Which part of a Parquet file it is; None for all of it."""
        return None if self.group is None else (self.group, self.start, self.stop)


@dataclass(frozen=True)
class Batch:
    """Rows as they stand in a file.

    count: how many rows of the file it stands for, of which not all may be wanted. numbers: int64, which of them its
    rows are, counted from 0; None: all. lines: as which the rows stand, where they do.
    """

    rows: RecordBatch | Sequence[Row | Unreadable]
    count: int
    numbers: Indices | None = None
    lines: Lines | None = None

    def converted(self, meaning: Meaning) -> Chunk:
        """What the rows hold."""
        return numbered(convert(self.rows, meaning, self.lines), self.count, self.numbers)

    def only(self, numbers: Indices) -> Batch:
        """Some of the rows."""
        return Batch(_some(self.rows, numbers), self.count, numbers, _some(self.lines, numbers))

    def first(self, count: int) -> Batch:
        """The same without the rows after the first so many of the file."""
        kept = count if self.numbers is None else int(np.searchsorted(self.numbers, count))
        numbers = None if self.numbers is None else self.numbers[:kept]
        return Batch(_until(self.rows, kept), count, numbers, _until(self.lines, kept))


def _some(rows: Any, numbers: Indices) -> Any:
    """Those of a list, or of something of Arrow's, or of nothing."""
    import pyarrow as pa

    if isinstance(rows, list):
        return [rows[number] for number in numbers]
    return None if rows is None else rows.take(pa.array(numbers, pa.int64()))


def _until(rows: Any, count: int) -> Any:
    if isinstance(rows, list):
        return rows[:count]
    return None if rows is None else rows.slice(0, count)


def units_of(path: Path, split: str | None) -> Iterator[Unit]:
    """The units of a file, or of a folder that `datasets.save_to_disk` wrote."""
    try:
        if path.is_dir():
            for file in saved(path, split):
                yield Unit(str(file), "arrow")
            return
        suffix, size = suffix_of(path), path.stat().st_size
        if suffix in (".parquet", ".arrow"):
            need(path.suffix.lower() == suffix, f"{path}: decompress it first: {suffix} files compress themselves")
            yield from _groups(path) if suffix == ".parquet" else [Unit(str(path), "arrow")]
        elif path.suffix.lower() in (".jsonl", ".ndjson") and _is_lines(path):
            for start, stop in _ranges(path, size):
                yield Unit(str(path), "lines", start, stop)
        else:
            yield Unit(str(path), "rows", split=split)
    except OSError as error:  # no permission, a disk that fails
        raise ConfigError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error


def whole(path: Path, split: str | None) -> Iterator[Unit]:
    """The same file in as few units as there can be, where nobody shares the work."""
    for unit in units_of(path, split) if path.is_dir() or suffix_of(path) != ".parquet" else ():
        if unit.kind != "lines":
            yield unit
        elif unit.start == 0:
            yield replace(unit, stop=path.stat().st_size)
    if not path.is_dir() and suffix_of(path) == ".parquet":
        need(path.suffix.lower() == ".parquet", f"{path}: decompress it first: .parquet files compress themselves")
        yield Unit(str(path), "parquet")


def _groups(path: Path) -> Iterator[Unit]:
    rows, sizes = guard.row_groups(path)
    for group, (count, taken) in enumerate(zip(rows, sizes, strict=True)):
        step = max(1, min(CUT_ROWS, CUT_LINES * count // max(1, taken)))
        for start in range(0, count, step):
            stop = min(start + step, count)
            yield Unit(str(path), "parquet", start, stop, group)


def _is_lines(path: Path) -> bool:
    """Whether a file is UTF-8, and its first line that is not empty a row: else it may be anything."""
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))
    return encoding.startswith("utf-8") and isinstance(first_row(path), dict)


def _ranges(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """Where to cut a file so that each piece ends with a line."""
    start = 0
    with path.open("rb") as file:
        while start < size:
            file.seek(min(start + CUT_LINES, size))
            file.readline()
            stop = size if start + CUT_LINES >= size else min(file.tell(), size)
            yield start, stop
            start = stop


def batches(unit: Unit, raw: Iterator[RecordBatch] | None = None) -> Iterator[Batch]:
    """The rows of a unit.

    raw: the record batches of a unit of Parquet or Arrow, where they are not to be read by a process of their own.
    """
    if unit.only is not None and not len(unit.only):
        yield Batch([], unit.count or 0, np.empty(0, np.int64))
        return
    if unit.kind in ("parquet", "arrow"):
        found: Iterable[Batch] = _native(
            unit, guard.batches(Path(unit.path), unit.kind, part=unit.part) if raw is None else raw
        )
    elif unit.kind == "lines":
        found = _lines(unit)
    else:
        found = listed(read_rows(Path(unit.path), unit.split), unit.only)
    try:
        yield from found
    except OSError as error:
        raise ConfigError(f"{error.filename or unit.path}: cannot be read ({error.strerror or error})") from error


def count_of(unit: Unit) -> int:
    """How many rows a unit has: read, where its file's head does not say so."""
    if unit.group is not None:
        return unit.stop - unit.start
    if unit.kind == "lines":
        return sum(isinstance(line, Unreadable) or bool(line.strip()) for some in _some_lines(unit) for line in some)
    return sum(batch.count for batch in batches(unit))


def _native(unit: Unit, found: Iterator[RecordBatch]) -> Iterator[Batch]:
    import pyarrow as pa

    at = 0
    for batch in _fewer(found):
        if unit.only is None:
            yield Batch(batch, batch.num_rows)
        else:
            numbers = _among(unit.only, at, at + batch.num_rows)
            yield Batch(batch.take(pa.array(numbers)), batch.num_rows, numbers)
        at += batch.num_rows


def _fewer(found: Iterator[RecordBatch]) -> Iterator[RecordBatch]:
    """Fewer batches: small ones that follow each other put together."""
    import pyarrow as pa

    parts: list[RecordBatch] = []
    rows = size = 0
    for batch in found:
        if parts and (rows + batch.num_rows > ROWS or size + batch.nbytes > LINES):
            yield parts[0] if len(parts) == 1 else pa.concat_batches(parts)
            parts, rows, size = [], 0, 0
        if batch.num_rows:
            parts.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
    if parts:
        yield parts[0] if len(parts) == 1 else pa.concat_batches(parts)


def _lines(unit: Unit) -> Iterator[Batch]:
    at = 0
    for group in _groups_of_lines(unit):
        if isinstance(group, bytes) and (found := columns_of(group)) is not None:
            rows, lines = found
            batch = Batch(rows, rows.num_rows, lines=lines)
            if unit.only is not None:
                batch = batch.only(_among(unit.only, at, at + batch.count))
        else:
            there = [line for line in _decoded(group) if isinstance(line, Unreadable) or line.strip()]
            numbers = None if unit.only is None else _among(unit.only, at, at + len(there))
            chosen = there if numbers is None else [there[n] for n in numbers]
            listed = list(rows_of_lines(chosen, first=False))
            stood = [standing(line, row) for line, row in zip(chosen, listed, strict=True)]
            batch = Batch(listed, len(there), numbers, stood)
        yield batch
        at += batch.count


def _groups_of_lines(unit: Unit) -> Iterator[bytes | list[str | Unreadable]]:
    """The lines of a unit, as many at once as have room."""
    if unit.stop - unit.start <= WHOLE_LINES:
        with Path(unit.path).open("rb") as file:
            file.seek(unit.start)
            content = file.read(unit.stop - unit.start)
        yield from groups_of(content.removeprefix(MARK).removeprefix(MARK) if unit.start == 0 else content, ROWS, LINES)
        return
    first = unit.start == 0
    for lines in _some_lines(unit):
        if first and isinstance(lines[0], str):
            lines[0] = lines[0].removeprefix("\ufeff")
        first = False
        yield lines


def _decoded(group: bytes | list[str | Unreadable]) -> Iterable[str | Unreadable]:
    if isinstance(group, list):
        return group
    return lines_of(io.TextIOWrapper(io.BytesIO(group), "utf-8", "surrogateescape", "\n"))


def _some_lines(unit: Unit) -> Iterator[list[str | Unreadable]]:
    """The lines of a unit, as many at once as have room."""
    with Path(unit.path).open("rb") as file:
        file.seek(unit.start)
        raw = io.BufferedReader(Range(file, unit.stop - unit.start), 2**20)
        text = io.TextIOWrapper(raw, "utf-8-sig" if unit.start == 0 else "utf-8", "surrogateescape", "\n")
        lines, size = list[str | Unreadable](), 0
        for line in lines_of(text):
            lines.append(line)
            size += len(line) if isinstance(line, str) else 0
            if len(lines) >= ROWS or size >= LINES:
                yield lines
                lines, size = [], 0
        if lines:
            yield lines


class Range(io.RawIOBase):
    """The next `left` bytes of a file."""

    def __init__(self, file: Any, left: int):
        self.file, self.left = file, left

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target)[: self.left]
        count = int(self.file.readinto(view)) if len(view) else 0
        self.left -= count
        return count


def listed(rows: Iterable[Row | Unreadable], only: Sequence[int] | None = None) -> Iterator[Batch]:
    """Rows of any origin, as many at once as have room."""
    found, numbers = list[Row | Unreadable](), list[int]()
    count = size = 0
    wanted = None if only is None else frozenset(only)
    for at, row in enumerate(rows):
        if wanted is None or at in wanted:
            found.append(row)
            numbers.append(count)
            size += _size(row) if isinstance(row, dict) else 0
        count += 1
        if len(found) >= ROWS or size >= LINES:
            yield Batch(found, count, None if wanted is None else np.array(numbers, np.int64))
            found, numbers, count, size = [], [], 0, 0
    if count:
        yield Batch(found, count, None if wanted is None else np.array(numbers, np.int64))


def rows_in(found: Iterable[Batch]) -> Iterator[Row | Unreadable]:
    """The rows of batches, in Python's types."""
    for batch in found:
        yield from batch.rows if isinstance(batch.rows, Sequence) else rows_of(batch.rows)


def _size(value: Any, depth: int = 4) -> int:
    """About how much room a value takes, in bytes."""
    if isinstance(value, str):
        return 50 + len(value)
    if depth and isinstance(value, dict):
        return 100 + sum(_size(each, depth - 1) for each in value.values())
    if depth and isinstance(value, (list, tuple)):
        return 60 + sum(_size(each, depth - 1) for each in value)
    return 30


def _among(only: Sequence[int], start: int, stop: int) -> Indices:
    """Those of `only` from `start` to `stop`, counted from `start`."""
    chosen = np.asarray(only, dtype=np.int64)
    return chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, stop)] - start
