"""Rows of CSV in the dialects that spreadsheets write: commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from dsel.data.raw import Row, Unreadable, lines_of, opened
from dsel.data.reading import printable
from dsel.errors import ConfigError, need

log = logging.getLogger(__name__)

DELIMITERS = (",", ";", "\t", "|")
LONGEST_FIELD = 2**25  # characters; a longer one is a stray quote's
HEAD = 100  # lines in which the first record ends


def read_delimited(path: Path, usual: str) -> Iterator[Row | Unreadable]:
    """The rows below the first, which names the columns; `usual` separates them where another sign does not.

    A quote that is never closed, or closed in the middle of a field, costs the row it is in: without that it would
    swallow those below it. Raises `ConfigError` for two columns of one name.
    """
    csv.field_size_limit(LONGEST_FIELD)
    with opened(path, newline="", legacy=True) as file:
        lines = _lines(file, path)
        head = list(itertools.islice(lines, HEAD))
        told = re.fullmatch(r'"?sep=(.)"?\s*', head[0]) if head else None  # a line for Excel
        head = head[1:] if told else head
        delimiter = told[1] if told else _delimiter(head, usual)
        if delimiter != usual:
            log.info("%s: its columns are separated by %r", path, delimiter)
        records = _records(itertools.chain(head, lines), delimiter)
        header = next(records, None)
        if header is None:
            return
        if isinstance(header, Unreadable):
            raise ConfigError(f"{path}: the line that names its columns cannot be read ({header.reason})")
        names = [name.strip() for name in header]
        twice = sorted({printable(name) for name in names if names.count(name) > 1})
        need(not twice, f"{path}: two columns are called {', '.join(twice)}")
        for record in records:
            if isinstance(record, Unreadable):
                yield record
            elif len(record) != len(names):
                yield Unreadable("wrong number of columns")
            else:
                yield dict(zip(names, record, strict=True))


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(lines_of(file), start=1):
        if isinstance(line, Unreadable):
            raise ConfigError(f"{path}: cannot be read from line {number} on ({line.reason})")
        yield line.removeprefix("\ufeff") if number == 1 else line


def _delimiter(head: list[str], usual: str) -> str:
    """What separates the columns of the first line: `usual`, unless that leaves it whole and another sign does not."""

    def columns(delimiter: str) -> int:
        header = next(_records(head, delimiter), None)
        return len(header) if isinstance(header, list) else 0

    return usual if columns(usual) > 1 else max((usual, *DELIMITERS), key=columns)


def _records(lines: Iterable[str], delimiter: str) -> Iterator[list[str] | Unreadable]:
    """The fields of each record, empty lines left out; after one that cannot be read it goes on with the next line."""
    following, used = iter(lines), list[str]()  # used: the lines of the record that is read now
    again: list[str] = []  # lines to be read once more, the next one last

    def line() -> Iterator[str]:
        while again:
            used.append(again.pop())
            yield used[-1]
        for each in following:
            used.append(each)
            yield each

    width = 0
    while True:
        used.clear()
        try:
            for record in csv.reader(line(), delimiter=delimiter, strict=True):
                width = width or len(record)
                if len(record) != width and _swallowed(used, delimiter, width):
                    raise csv.Error
                if record:
                    yield record
                used.clear()
            return
        except csv.Error as error:
            yield Unreadable("not CSV" if "NUL" in str(error) else "a stray quote")
            again += used[:0:-1]


def _swallowed(lines: list[str], delimiter: str, width: int) -> bool:
    """Whether a line of a record of several, beyond its first, would be a record of the right width by itself."""
    for line in lines[1:]:
        with suppress(csv.Error):
            if len(next(csv.reader([line], delimiter=delimiter, strict=True), ())) == width:
                return True
    return False
