"""From raw rows to the examples of a pool, with an account of all that was skipped, repaired or not read."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dsel.data.formats import Format, recognise, rename, to_messages
from dsel.data.raw import Unreadable
from dsel.data.reading import BadRow, Reading, Row, check_text, is_deep, is_nothing, printable
from dsel.data.turns import ANSWERS, GIVEN, REASONING
from dsel.data.unread import TextScores, carries_text, scores_of, shown, unread_columns
from dsel.errors import ConfigError, need
from dsel.pool import Example
from dsel.progress import progress

log = logging.getLogger(__name__)

NAMED_ROWS = 5  # how many bad rows of each reason the log names
UNKNOWN_ROWS = 100  # after so many rows of no known format, and none of one, a file is given up
THOUGHT = re.compile(r"thought|think|reason|rationale|cot$|explanation", re.IGNORECASE)
OUT_OF_PROMPTS = (*ANSWERS, "rejected", "non_preferred_output")


@dataclass
class Unread:
    """A column that no row's messages hold: in how many rows it carries something, and what could name it."""

    rows: int = 0
    free: str = ""


@dataclass(frozen=True)
class Part:
    """A file (or a subset of the hub's) as a part of its source.

    label: the source that the user says it is. name: the source's name where neither that nor a column says. where: for
    messages.
    """

    label: str | None
    name: str
    where: str
    rows: Iterable[dict[str, Any] | Unreadable]


class Rows:
    """Turns raw rows into examples and keeps count of what could not be used.

    The options are those of `data=local`; strict: a row that cannot be used is an error.
    """

    def __init__(
        self,
        *,
        columns: Mapping[str, str] | None,
        roles: Mapping[str, str] | None,
        format: str | None,
        limit: int | None,
        strict: bool,
    ):
        self.columns = dict(columns or {})
        self.format, self.limit, self.strict = format, limit, strict
        self.rows: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.named: dict[str, list[str]] = {}
        self.advice: dict[str, str] = {}
        self.forms: Counter[str] = Counter()
        self.found = Reading(dict(roles or {}))
        self.unread: dict[str, Unread] = {}
        self.texts = TextScores()
        self.seen: set[str] = set()

    def examples(self, parts: Iterable[Part]) -> list[Example]:
        """The usable rows of all parts, at most `limit`. Raises `ConfigError` for a file of no known format."""
        examples = list(self._examples(parts))
        unseen = sorted(set(self.columns.values()) - self.seen)
        whole = self.limit is None or len(examples) < self.limit
        has = ", ".join(sorted(map(printable, examples[0].original))) if examples else ""
        need(not (has and whole and unseen), f"data.columns names {', '.join(unseen)}, but the columns are {has}")
        return [self._settled(example) for example in examples]

    def _examples(self, parts: Iterable[Part]) -> Iterator[Example]:
        usable = 0
        with progress("reading the pool", total=self.limit, unit="rows") as advance:
            for part in parts:
                form: Format | None = None
                unknown: list[ConfigError] = []
                for number, row in enumerate(part.rows, start=1):
                    self.rows[part.name] += 1  # of the source: shards go on counting
                    if usable == self.limit:
                        return
                    try:
                        if isinstance(row, Unreadable):
                            raise BadRow(row.reason)
                        ours = rename(row, self.columns)
                        self.seen.update(c for c in self.columns.values() if c in row)
                        form = self._recognise(row, ours, part.where, form, unknown)
                        example = self._example(row, ours, form, part)
                    except BadRow as bad:
                        self._bad(bad, f"{part.where} row {number}")
                        continue
                    usable += 1
                    advance(1)
                    yield example
                if unknown and form is None:
                    raise unknown[0]

    def _recognise(self, row: Row, ours: Row, where: str, last: Format | None, unknown: list[ConfigError]) -> Format:
        """The format of one row. Each is judged by itself; a file in which no row has a format is an error."""
        try:
            return recognise(ours, where, self.format, tuple(self.columns))
        except ConfigError as error:
            lacks = [c for c in last.required if c not in ours] if last else []
            if lacks:
                raise BadRow(f"no column `{lacks[0]}`") from error
            missing = sorted(c for c in self.columns.values() if c not in row)
            has = ", ".join(sorted(map(printable, row)))
            fault = ConfigError(f"{where}: data.columns names {', '.join(missing)}, but the columns are {has}")
            unknown.append(fault if missing else error)
            if self.strict or len(unknown) >= UNKNOWN_ROWS:
                raise unknown[0] from error
            raise BadRow("no known format has its columns") from error

    def _example(self, row: Row, ours: Row, form: Format, part: Part) -> Example:
        if any(isinstance(value, (list, dict)) and is_deep(value) for value in row.values()):
            raise BadRow("lists within lists, too deep to be kept")
        reading = Reading(self.found.roles)
        messages = to_messages(ours, form, reading)
        own = next((ours[c] for c in ("source", "dataset") if isinstance(ours.get(c), str) and ours[c]), None)
        source, name = part.label or own or part.name, ours.get("id")
        numbered = f"{part.name}/{self.rows[part.name]}"
        identifier = str(name) if isinstance(name, (str, int)) and str(name) else numbered
        check_text(source + identifier)
        scores = scores_of(ours, reading.read)
        self._note(row, ours, form, reading, messages)
        self.texts.numbers.update(scores.keys())
        return Example(identifier, messages, source, row, scores | self.texts.of(ours, reading.read))

    def _note(self, row: Row, ours: Row, form: Format, reading: Reading, messages: list[Any]) -> None:
        """Add what there is to say about a row that is used."""
        self.forms[form.name] += 1
        self.found.repairs.update(reading.repairs)
        self.found.unread.update(reading.unread)
        replaced = [c for c in self.columns if c in row and c not in self.columns.values()]
        replaced = [c for c in replaced if not is_nothing(row[c]) and carries_text(c, row[c])]
        for name in (*unread_columns(ours, reading.read, messages), *replaced):
            found = self.unread.setdefault(name, Unread())
            found.rows += 1
            if isinstance(ours.get(name), str) and name not in OUT_OF_PROMPTS and re.fullmatch(r"[\w.-]+", name):
                ways = REASONING[1:2] if THOUGHT.search(name) else GIVEN
                found.free = next((c for c in ways if c in form.optional and is_nothing(ours.get(c))), "")

    def _settled(self, example: Example) -> Example:
        """The example without numbers out of texts whose column holds other texts too."""
        gone = {c for c in example.scores if c not in self.texts.settled() and isinstance(example.original.get(c), str)}
        return replace(example, scores={c: v for c, v in example.scores.items() if c not in gone}) if gone else example

    def _bad(self, bad: BadRow, where: str) -> None:
        reason, advice = str(bad), f"; {bad.advice}" if bad.advice else ""
        if self.strict:
            raise ConfigError(f"{where}: {reason}{advice} (data.on_bad_row=skip leaves such rows out)")
        self.skipped[reason] += 1
        self.named.setdefault(reason, []).append(where)
        self.advice.setdefault(reason, advice)

    def summary(self) -> str:
        return ", ".join(f"{count} × {reason}{self.advice[reason]}" for reason, count in self.skipped.most_common())

    def report(self) -> None:
        """Say what was skipped, what was not read and what was read otherwise than it stood, a line each."""
        for reason, places in self.named.items():
            some = "; ".join(places[:NAMED_ROWS])
            more = f"; and {len(places) - NAMED_ROWS} more" if len(places) > NAMED_ROWS else ""
            log.warning("skipped %d rows (%s%s): %s%s", len(places), reason, self.advice[reason], some, more)
            log.debug("skipped rows (%s): %s", reason, "; ".join(places))
        mixed = self.texts.mixed()
        left = Counter({name: found.rows for name, found in self.unread.items() if name not in mixed})
        if left:
            log.warning("columns not read: %s%s", _counts(left, "row"), self._how_to_name(left))
        if self.found.unread:
            log.warning("keys of turns not read: %s", _counts(self.found.unread, "turn"))
        for name in mixed:
            numbers, words = self.texts.numbers[name], self.texts.words[name]
            log.warning("%s: numbers in %d rows, other text in %d: that is no score", shown(name), numbers, words)
        for repair, count in self.found.repairs.items():
            log.info("%s: %d", repair, count)
        if len(self.forms) > 1:
            log.info("formats: %s; data.format=… names one", _counts(self.forms, "row"))
        if read := sorted(self.texts.settled() & self.texts.texts):
            log.info("numbers in text read as scores: %s", ", ".join(map(shown, read)))

    def _how_to_name(self, columns: Iterable[str]) -> str:
        """How the first of `columns` that could be read is read, beside what is named already."""
        name = next((name for name in columns if self.unread[name].free), None)
        if name is None:
            return ""
        mapping = ", ".join(f"{k}: {v}" for k, v in (self.columns | {self.unread[name].free: name}).items())
        way = "as reasoning" if self.unread[name].free in REASONING else "into the prompt"
        return f"; data.columns={{{mapping}}} would read {shown(name)} {way}"


def _counts(found: Counter[str], unit: str) -> str:
    return ", ".join(f"{shown(name)} ({count} {unit}{'s' * (count > 1)})" for name, count in found.items())
