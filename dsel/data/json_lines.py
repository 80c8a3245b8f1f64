"""Lines of JSON, many at once: what `json.loads` makes of each, where that is sure, without its objects.

Sure are objects of nothing but texts, all with the keys of the first. Any other line, and all beside it, are left for
Python: what Arrow's reader makes of numbers, of keys that are missing or of an object on several lines is not the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyarrow import RecordBatch, StringArray

NEWLINE, BEGIN, END = b"\n{}"
SPACE = " \t\n\r"
DIGITS = 4000  # of a number: somewhat fewer than Python takes


def groups_of(content: bytes, rows: int, size: int) -> Iterator[bytes]:
    """The lines cut into groups of at most so many, which end where they have so many bytes."""
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == NEWLINE) + 1
    ends = ends if len(ends) and ends[-1] == len(content) else np.append(ends, len(content))
    line = start = 0
    while start < len(content):
        line = min(line + rows, int(np.searchsorted(ends, start + size)) + 1, len(ends))
        yield content[start : ends[line - 1]]
        start = int(ends[line - 1])


def columns_of(content: bytes) -> tuple[RecordBatch, StringArray] | None:
    """The rows of lines as columns of texts, and the lines; None where they are not so plain."""
    import pyarrow as pa
    from pyarrow import json as reader

    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    ends = ends if len(ends) and ends[-1] == len(data) - 1 else np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    if not ((ends > starts).all() and (data[starts] == BEGIN).all() and (data[ends - 1] == END).all()):
        return None  # an object of texts alone that goes on in the next line ends this one with another sign
    try:
        first = json.loads(content[: ends[0]])
        names = list(first)
        if not names or len({name.strip().lower() for name in names}) < len(names):
            return None  # which of two names is meant is told by the order in each row
        if not all(type(value) is str for value in first.values()):
            return None
        kinds = pa.schema([(name, pa.string()) for name in names])
        table = reader.read_json(
            pa.BufferReader(content),
            reader.ReadOptions(use_threads=False, block_size=len(content) + 1),
            reader.ParseOptions(explicit_schema=kinds, unexpected_field_behavior="error"),
        )
        columns = [table.column(name).combine_chunks() for name in names]
        if len(table) != len(ends) or any(column.null_count for column in columns):
            return None
        lengths = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int32)
        text = content.replace(b"\n", b"")
        lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(lengths), pa.py_buffer(text))
        for texts in (lines, *columns):
            texts.validate(full=True)
    except (pa.ArrowException, ValueError, RecursionError):
        return None
    return pa.record_batch(columns, names), lines


def standing(line: Any, row: Any) -> str | None:
    """A line as the JSON of its row; None where that has to be written anew, for readers stricter than Python's."""
    if not isinstance(row, dict):
        return None
    text = str(line).strip(SPACE)
    if not text.startswith("{") or not _is_utf8(text):
        return None
    if len(text) > DIGITS and re.search(rf"\d{{{DIGITS}}}", text) and not _has_no_long_number(text):
        return None
    only_texts = all(type(value) is str for value in row.values())
    return text if only_texts or not ("NaN" in text or "Infinity" in text) else None


def _has_no_long_number(text: str) -> bool:
    """Whether a JSON text has no number of more digits than Python takes."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
