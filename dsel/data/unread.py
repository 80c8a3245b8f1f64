"""What of a row is not read: columns that carry text or meaning are named, numbers become scores."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsel.data.reading import Row, is_nothing, printable
from dsel.errors import ODD
from dsel.pool import RESERVED, Message, text_of

ABOUT = re.compile(
    r"(^|_)(ids?|idx|index|no|number|uuid|uid|hash|sha\d*|md5|urls?|uri|links?|sources?|datasets?|origin|licen[sc]e|lang|"
    r"languages?|date|time|timestamp|created|updated|at|version|revision|models?|generator|splits?|tags?|scores?|ratings?|"
    r"ranks?|file(name)?s?|path|meta|metadata|redacted|timezone)$"
)
"""Names of columns that say something about a row rather than in it."""

LABEL = re.compile(
    r"(^|_)(categor(y|ies)|tasks?|types?|topics?|domains?|subjects?|status|difficulty|level|quality|names?|country|state)$"
)
"""Names of columns that do so in a word or two; a longer text there is a text like any other."""

COUNTED = re.compile(
    r"(^|_)(ids?|idx|index|no|number|uuid|hash|date|time|timestamp|year|zip|phone|answers?|solution|"
    r"targets?|labels?)$|^$|^unnamed: \d+$"
)
"""Names of columns whose numbers, where they stand as text, are no scores."""

PLAIN_FACT = re.compile(r"https?://\S+|\d{4}-\d\d-\d\d([T ][\d:.+Z-]+)?|[0-9a-f-]{16,}", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
MISSING = ("", "nan", "none", "null", "na", "n/a")


def carries_text(name: str, value: Any) -> bool:
    """Whether a column or key that is not read holds text or meaning: no id, source, date, address or number."""
    plain = name.lower()
    label = isinstance(value, str) and LABEL.search(plain) and len(value.split()) <= 2
    return not ABOUT.search(plain) and not label and (isinstance(value, bool) or _has_text(value))


def says_of_loss(name: str, value: Any) -> bool:
    """Whether a key of a turn that is not read may say which of its words are trained on."""
    return bool(re.search(r"(^|_)(train\w*|loss|mask\w*)(_|$)", name.lower())) and value is not None


def unread_columns(row: Row, read: Collection[str], messages: Iterable[Message]) -> list[str]:
    """The columns beyond those that were `read` that carry text which the messages do not have."""
    left = [name for name, value in row.items() if name not in read and not is_nothing(value)]
    left = [name for name in left if name == "messages" or carries_text(name, row[name]) or not may_be_named(name)]
    if not left:
        return []
    told = {text.strip() for m in messages for text in (m["content"], text_of(m))}
    told |= {value.strip() for name, value in row.items() if name in read and isinstance(value, str)}
    parts = [text.strip() for name, text in row.items() if name in read and isinstance(text, str) and text.strip()]
    parts = parts or [m["content"].strip() for m in messages]
    return [name for name in left if not repeats(row[name], told, parts)]


def scores_of(row: Row, read: Collection[str]) -> dict[str, float]:
    """The row's numeric columns that were not read: scores it came with."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in read and name not in RESERVED and isinstance(value, (int, float)) and not isinstance(value, bool)
        if abs(value) <= sys.float_info.max  # isfinite() raises on integers beyond it; NaN compares false
        if may_be_named(name)
    }


@dataclass
class TextScores:
    """Columns of numbers that stand as text, as in a CSV: scores when the whole column is numbers.

    numbers, words: in how many rows a column holds a number, and other text. texts: those with a number in text.
    """

    numbers: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)

    def of(self, row: Row, read: Collection[str]) -> dict[str, float]:
        """The numbers that the row's unread texts are; what else stands in such a column is counted."""
        found = {}
        for name, value in row.items():
            if name in read or name in RESERVED or not isinstance(value, str) or not may_be_named(name):
                continue
            number = number_in(name, value)
            if number is not None:
                found[name] = number
                self.numbers[name] += 1
                self.texts.add(name)
            elif is_word(value):
                self.words[name] += 1
        return {name: value for name, value in found.items() if abs(value) <= sys.float_info.max}

    def add(self, other: TextScores) -> None:
        self.numbers.update(other.numbers)
        self.words.update(other.words)
        self.texts |= other.texts

    def settled(self) -> set[str]:
        """The columns whose texts are all numbers."""
        return {name for name in self.numbers if not self.words[name]}

    def mixed(self) -> list[str]:
        """The columns that hold more numbers than other text."""
        return sorted(name for name in self.numbers if 0 < self.words[name] < self.numbers[name])


def number_in(name: str, text: str) -> float | None:
    """The number that a text in a column of that name is; None where it is none, or none that could be a score."""
    plain = text.strip()
    return float(plain) if NUMBER.fullmatch(plain) and not COUNTED.search(name.lower()) else None


def is_word(text: str) -> bool:
    """Whether a text that is no number says more than that there is none."""
    return text.strip().lower() not in MISSING


def shown(name: str) -> str:
    """A column's name as a log can print it."""
    return f"`{printable(name)}`"


def may_be_named(name: str) -> bool:
    """Whether a column may be called so in a pool: Arrow's names end at a NUL, and half a sign has no bytes."""
    return not ODD.search(name)


def _has_text(value: Any, depth: int = 6) -> bool:
    if isinstance(value, str):
        plain = value.strip()
        return bool(plain) and not PLAIN_FACT.fullmatch(plain) and not NUMBER.fullmatch(plain)
    if isinstance(value, Mapping):
        return depth > 0 and any(not ABOUT.search(str(k).lower()) and _has_text(v, depth - 1) for k, v in value.items())
    return depth > 0 and isinstance(value, (list, tuple)) and any(_has_text(v, depth - 1) for v in value)


def repeats(value: Any, told: Collection[str], parts: Collection[str]) -> bool:
    """Whether a value only says again what is read: a turn's text, or a rendering of all that was read."""
    if isinstance(value, str):
        return value.strip() in told or (bool(parts) and all(_holds(value, part) for part in parts))
    if isinstance(value, Mapping):
        return all(repeats(v, told, parts) for k, v in value.items() if k not in ("role", "from") and _has_text(v))
    if isinstance(value, (list, tuple)):
        return bool(value) and all(repeats(v, told, parts) for v in value)
    return False


def _holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as words of its own."""
    start = text.find(part)
    while start >= 0:
        around = text[max(start - 1, 0) : start] + text[start + len(part) : start + len(part) + 1]
        if not any(c.isalnum() for c in around):
            return True
        start = text.find(part, start + 1)
    return False
