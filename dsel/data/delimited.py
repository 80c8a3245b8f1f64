"""Rows of CSV in the dialects that spreadsheets write: commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from dsel.data.raw import Row, Unreadable
from dsel.errors import ConfigError, need

log = logging.getLogger(__name__)

DELIMITERS = (",", ";", "\t", "|")


def read_delimited(text: str, path: Path, usual: str) -> Iterator[Row | Unreadable]:
    """The rows below the first, which names the columns; `usual` separates them where another sign does not.

    A quote that is never closed, or closed in the middle of a field, costs the row it is in: without that it would
    swallow those below it. Raises `ConfigError` for two columns of one name.
    """
    csv.field_size_limit(2**31 - 1)
    lines = list(io.StringIO(text, newline=""))
    told = re.fullmatch(r'"?sep=(.)"?\s*', lines[0]) if lines else None  # a line for Excel
    delimiter = told[1] if told else _delimiter(lines, usual)
    if delimiter != usual:
        log.info("%s: its columns are separated by %r", path, delimiter)
    records = _records(lines[1:] if told else lines, delimiter)
    header = next(records, None)
    if header is None:
        return
    if isinstance(header, Unreadable):
        raise ConfigError(f"{path}: the line that names its columns cannot be read ({header.reason})")
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    need(not twice, f"{path}: two columns are called {', '.join(twice)}")
    for record in records:
        if isinstance(record, Unreadable):
            yield record
        elif len(record) != len(names):
            yield Unreadable("wrong number of columns")
        else:
            yield dict(zip(names, record, strict=True))


def _delimiter(lines: list[str], usual: str) -> str:
    """What separates the columns of the first line: `usual`, unless that leaves it whole and another sign does not."""

    def columns(delimiter: str) -> int:
        header = next(_records(lines, delimiter), None)
        return len(header) if isinstance(header, list) else 0

    return usual if columns(usual) > 1 else max((usual, *DELIMITERS), key=columns)


def _records(lines: list[str], delimiter: str) -> Iterator[list[str] | Unreadable]:
    """The fields of each record, empty lines left out; after one that cannot be read it goes on with the next line."""
    start = 0
    while start < len(lines):
        reader = csv.reader(map(lines.__getitem__, range(start, len(lines))), delimiter=delimiter, strict=True)
        begin = 0
        try:
            for record in reader:
                begin = reader.line_num
                if record:
                    yield record
            return
        except csv.Error as error:
            yield Unreadable("not CSV" if "NUL" in str(error) else "a stray quote")
            start += begin + 1
