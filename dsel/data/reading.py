"""What the readers of rows share: a row's refusal, what is noted while it is read, and values read as text."""

from __future__ import annotations

import ast
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

from dsel.errors import plain

Row = Mapping[str, Any]

DEEPEST = 100  # levels of lists and maps: further down Python's own JSON gives up
LONGEST = 2**20  # characters of a Python list in a text that are parsed


class BadRow(Exception):
    """A row that cannot be used; the message is the reason, in a few words that group well; `advice` what to do."""

    def __init__(self, reason: str, advice: str = ""):
        super().__init__(plain(reason))
        self.advice = plain(advice)


@dataclass
class Reading:
    """How rows are read, and what there is to say about one.

    roles: names of roles beyond those everybody knows → system, user, assistant or tool.
    read: the columns that went into the messages. unread: keys of turns that carry something and did not.
    repairs: what was read otherwise than it stood, each with how often. tools: schemas of the tools that may be called.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    unread: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    tools: list[Any] = field(default_factory=list)

    def take(self, row: Row, column: str) -> Any:
        """The value of a column, which is thereby read; None where there is none."""
        if column in row:
            self.read.add(column)
        return row.get(column)

    def first(self, row: Row, columns: Iterable[str], kind: type | tuple[type, ...] = object) -> tuple[str, Any]:
        """Name and value of the first of `columns` that holds something of that kind; its empty ones are read too."""
        for column in columns:
            if column not in row:
                continue
            if is_nothing(row[column]):
                self.read.add(column)
            elif isinstance(row[column], kind):
                return column, self.take(row, column)
        return "", None


def is_nothing(value: Any) -> bool:
    """Whether a value says nothing: None, NaN, white space, or an empty list or map."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value or (isinstance(value, (list, tuple, Mapping)) and not value)


def as_text(value: Any, name: str, reading: Reading) -> str:
    """A column or key as text: None and NaN as nothing, numbers and booleans as Python writes them.

    Raises `BadRow` naming it when it holds anything else.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, Number):  # booleans too
        reading.repairs[f"numbers and booleans of `{name}` read as text"] += 1
        return str(value)
    raise BadRow(f"`{name}` is {kind_of(value)}, not text")


def kind_of(value: Any) -> str:
    """What a value is, in a word or two of JSON rather than Python."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, str):
        return "text"
    return "a number" if isinstance(value, Number) else f"of type {type(value).__name__}"


def unpacked(value: Any, name: str, reading: Reading) -> Any:
    """The list or map that a text holds as JSON, or as Python writes it (what `to_csv` makes of a list).

    Raises `BadRow` when a text is neither. Any other value comes back as it is.
    """
    if not isinstance(value, str) or not value.strip():
        return value
    if value.lstrip()[0] not in "[{":
        raise BadRow(
            f"`{name}` is text, not a list of turns",
            f"where it is a question, data.columns={{prompt: {name}, completion: …}} says so",
        )
    found = parsed(value)
    if found is None:
        raise BadRow(
            f"`{name}` is text that looks like a list, but is not JSON",
            "write the table as JSON lines or Parquet, where a list stays a list",
        )
    reading.repairs[f"lists of `{name}` read out of text"] += 1
    return found


def parsed(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or map that `text` is as JSON or as a Python literal; None when it is neither."""
    found: Any = None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if len(text) <= LONGEST:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of backslashes that are no escapes
                    found = ast.literal_eval(text.strip())
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return None
    return found if isinstance(found, (list, dict)) and not is_deep(found) else None


def is_deep(value: Any) -> bool:
    """Whether lists and maps are nested deeper than the libraries that store a row can follow."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, (list, tuple, Mapping))
        ]
        if not level:
            return False
    return True


def bare(value: Any) -> Any:
    """A nested value in JSON's own types, without the empty keys that Arrow's structs add to maps of different keys."""
    if isinstance(value, Mapping):
        return {str(k): bare(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [bare(v) for v in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def check_text(text: str) -> None:
    """Raise `BadRow` when `text` holds bytes that were not UTF-8 (they arrive as lone surrogates)."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRow("broken UTF-8") from error


def printable(name: Any) -> str:
    """A name out of a file as a log can print it."""
    return plain(str(name))
