"""From a raw row to an example of the pool, or to the reason why it is none: the one definition of what a row means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dsel.data.account import Account, Bad, Formless, Unread
from dsel.data.formats import Format, recognise, rename, to_messages
from dsel.data.raw import Unreadable
from dsel.data.reading import BadRow, Reading, Row, check_text, is_deep, is_nothing, printable
from dsel.data.turns import ANSWERS, GIVEN, REASONING
from dsel.data.unread import carries_text, scores_of, unread_columns
from dsel.errors import ConfigError
from dsel.pool import Message

THOUGHT = re.compile(r"thought|think|reason|rationale|cot$|explanation", re.IGNORECASE)
OUT_OF_PROMPTS = (*ANSWERS, "rejected", "non_preferred_output")


@dataclass(frozen=True)
class Meaning:
    """How the rows of a file are read: the options of `data=local` that say so, and what the file is.

    label: the source that the user says it is. name: the source's name where neither that nor a column says. where: for
    messages.
    """

    name: str
    where: str
    label: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None


@dataclass(frozen=True)
class Found:
    """What a row holds.

    id: None where the row has none, and is known by its number. scores: numbers. texts: numbers that stand as text.
    """

    row: int
    id: str | None
    messages: list[Message]
    source: str
    original: Row
    scores: Mapping[str, float]
    texts: Mapping[str, float]


def read_row(number: int, row: Row | Unreadable, meaning: Meaning, account: Account) -> Found | None:
    """What a row holds; None where that cannot be used, and in any case a note in the account.

    Args:
        number: the row's, counted from 1 over all rows of this account.
        row: as it stands in the file.
        meaning: how it is read.
        account: of this row and those before it.
    """
    try:
        if isinstance(row, Unreadable):
            raise BadRow(row.reason)
        ours = rename(row, meaning.columns)
        account.seen.update(c for c in meaning.columns.values() if c in row)
        form = _recognised(number, row, ours, meaning, account)
        return None if form is None else _found(number, row, ours, form, meaning, account)
    except BadRow as bad:
        account.bad.append(Bad(number, str(bad), bad.advice))
        return None


def _recognised(number: int, row: Row, ours: Row, meaning: Meaning, account: Account) -> Format | None:
    """The format of one row, each judged by itself; one without is noted."""
    try:
        form = recognise(ours, meaning.where, meaning.format, tuple(meaning.columns))
    except ConfigError as error:
        missing = sorted(c for c in meaning.columns.values() if c not in row)
        has = ", ".join(sorted(map(printable, row)))
        named = f"{meaning.where}: data.columns names {', '.join(missing)}, but the columns are {has}"
        account.formless.append(Formless(number, tuple(ours), named if missing else str(error), account.last))
        return None
    account.last = form.name
    return form


def _found(number: int, row: Row, ours: Row, form: Format, meaning: Meaning, account: Account) -> Found:
    if any(isinstance(value, (list, dict)) and is_deep(value) for value in row.values()):
        raise BadRow("lists within lists, too deep to be kept")
    reading = Reading(meaning.roles)
    messages = to_messages(ours, form, reading)
    own = next((ours[c] for c in ("source", "dataset") if isinstance(ours.get(c), str) and ours[c]), None)
    source, name = meaning.label or own or meaning.name, ours.get("id")
    identifier = str(name) if isinstance(name, (str, int)) and str(name) else None
    check_text(source + (identifier or meaning.name))
    scores = scores_of(ours, reading.read)
    _note(number, row, ours, form, meaning, reading, messages, account)
    account.texts.numbers.update(scores.keys())
    texts = account.texts.of(ours, reading.read)
    # numbers are kept whatever becomes of the column's texts, but for those that only our name for a text's column has
    sure = {c: v for c, v in {**scores, **texts}.items() if not isinstance(row.get(c), str)}
    unsure = {c: v for c, v in {**scores, **texts}.items() if c not in sure}
    return Found(number, identifier, messages, source, row, sure, unsure)


def _note(
    number: int,
    row: Row,
    ours: Row,
    form: Format,
    meaning: Meaning,
    reading: Reading,
    messages: Sequence[Message],
    account: Account,
) -> None:
    """Add what there is to say about a row that is used."""
    account.forms[form.name] += 1
    account.repairs.update(reading.repairs)
    account.keys.update(reading.unread)
    replaced = [c for c in replaced_by(meaning.columns) if c in row]
    replaced = [c for c in replaced if not is_nothing(row[c]) and carries_text(c, row[c])]
    for name in (*unread_columns(ours, reading.read, messages), *replaced):
        found = account.unread.setdefault(name, Unread())
        found.rows += 1
        if can_be_named(name, ours):
            found.free, found.last = free_name(name, ours, form), number


def replaced_by(columns: Mapping[str, str]) -> list[str]:
    """Our names whose own columns a mapping puts others in place of."""
    return [c for c in columns if c not in columns.values()]


def can_be_named(name: str, ours: Row) -> bool:
    """Whether `data.columns` could name an unread column of this row as something that is read."""
    usual = name not in OUT_OF_PROMPTS and re.fullmatch(r"[\w.-]+", name) is not None
    return usual and isinstance(ours.get(name), str)


def free_name(name: str, ours: Row, form: Format) -> str:
    """What that would be: the first of our names for such a column that holds nothing in this row."""
    ways = REASONING[1:2] if THOUGHT.search(name) else GIVEN
    return next((c for c in ways if c in form.optional and is_nothing(ours.get(c))), "")
