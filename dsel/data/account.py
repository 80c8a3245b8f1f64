"""The account of rows that were read: what could not be used, what was not read, what was read as something else."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsel.data.turns import REASONING
from dsel.data.unread import TextScores, shown

Line = tuple[int, str]
"""A line for the log, with its level."""


@dataclass
class Unread:
    """A column that no row's messages hold.

    rows: in how many it carries something. free: what could name it, by what stands beside it in the row `last`.
    """

    rows: int = 0
    free: str = ""
    last: int = 0


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used, why, and what to do. Rows are counted from 1."""

    row: int
    reason: str
    advice: str = ""


@dataclass(frozen=True)
class Formless:
    """A row whose columns are of no format: these, and what to say of it.

    last: the format of the last row before it that had one; None where that is not known.
    """

    row: int
    columns: tuple[str, ...]
    fault: str
    last: str | None


@dataclass
class Account:
    """Of some rows in a row: how many there are, and what there is to say of them, in the order it came up.

    last: the format of the last one that had any. seen: which of the columns that `data.columns` names were there.
    """

    rows: int = 0
    bad: list[Bad] = field(default_factory=list)
    formless: list[Formless] = field(default_factory=list)
    last: str | None = None
    seen: set[str] = field(default_factory=set)
    forms: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)  # of turns
    unread: dict[str, Unread] = field(default_factory=dict)
    texts: TextScores = field(default_factory=TextScores)

    def add(self, other: Account) -> None:
        """Those of `other` come after ours. What cannot be used is for the caller to settle."""
        for name, found in other.unread.items():
            ours = self.unread.setdefault(name, Unread())
            ours.rows += found.rows
            if found.last:
                ours.free, ours.last = found.free, found.last
        for mine, more in ((self.forms, other.forms), (self.repairs, other.repairs), (self.keys, other.keys)):
            mine.update(more)
        self.rows += other.rows
        self.seen |= other.seen
        self.last = other.last or self.last
        self.texts.add(other.texts)

    def plain(self) -> dict[str, Any]:
        """All of it in types of JSON."""
        return {
            "rows": self.rows,
            "bad": [[bad.row, bad.reason, bad.advice] for bad in self.bad],
            "formless": [[row.row, row.columns, row.fault, row.last] for row in self.formless],
            "last": self.last,
            "seen": sorted(self.seen),
            "forms": self.forms,
            "repairs": self.repairs,
            "keys": self.keys,
            "unread": {name: [found.rows, found.free, found.last] for name, found in self.unread.items()},
            "texts": [self.texts.numbers, self.texts.words, sorted(self.texts.texts)],
        }

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Account:
        """The account that `plain` was made of."""
        numbers, words, texts = plain["texts"]
        return Account(
            rows=plain["rows"],
            bad=[Bad(*each) for each in plain["bad"]],
            formless=[Formless(row, tuple(columns), fault, last) for row, columns, fault, last in plain["formless"]],
            last=plain["last"],
            seen=set(plain["seen"]),
            forms=Counter(plain["forms"]),
            repairs=Counter(plain["repairs"]),
            keys=Counter(plain["keys"]),
            unread={name: Unread(*found) for name, found in plain["unread"].items()},
            texts=TextScores(Counter(numbers), Counter(words), set(texts)),
        )

    def lines(self, columns: Mapping[str, str]) -> list[Line]:
        """What to say of what was not read and what was read otherwise than it stood. columns: `data.columns`."""
        said: list[Line] = []
        mixed = self.texts.mixed()
        left = Counter({name: found.rows for name, found in self.unread.items() if name not in mixed})
        if left:
            said.append((logging.WARNING, f"columns not read: {_counts(left, 'row')}{self._way(left, columns)}"))
        if self.keys:
            said.append((logging.WARNING, f"keys of turns not read: {_counts(self.keys, 'turn')}"))
        for name in mixed:
            numbers, words = self.texts.numbers[name], self.texts.words[name]
            fault = f"numbers in {numbers} rows, other text in {words}: that is no score"
            said.append((logging.WARNING, f"{shown(name)}: {fault}"))
        said += [(logging.INFO, f"{repair}: {count}") for repair, count in self.repairs.items()]
        if len(self.forms) > 1:
            formats = _counts(self.forms, "row")
            said.append((logging.INFO, f"formats: {formats}; data.format=… names one"))
        if read := sorted(self.texts.settled() & self.texts.texts):
            said.append((logging.INFO, f"numbers in text read as scores: {', '.join(map(shown, read))}"))
        return said

    def _way(self, unread: Iterable[str], columns: Mapping[str, str]) -> str:
        """How the first of the columns that could be read is read, beside what is named already."""
        name = next((name for name in unread if self.unread[name].free), None)
        if name is None:
            return ""
        mapping = ", ".join(f"{k}: {v}" for k, v in {**columns, self.unread[name].free: name}.items())
        way = "as reasoning" if self.unread[name].free in REASONING else "into the prompt"
        return f"; data.columns={{{mapping}}} would read {shown(name)} {way}"


def _counts(found: Counter[str], unit: str) -> str:
    return ", ".join(f"{shown(name)} ({count} {unit}{'s' * (count > 1)})" for name, count in found.items())
