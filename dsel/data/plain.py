"""Rows of the common shapes, a batch at a time: what `read_row` makes of each, without an object for each.

The shapes are a question and an answer in two columns of texts, with a system prompt or something given beside them,
and a list of turns that each have a role and a text. Every row that is odd in any way (a value of another type, text
that may hold turns, a role nobody knows, a verdict, tools, reasoning) is left for `read_row`, so that only one place
says what it means.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.data.calls import TOOLS
from dsel.data.formats import UNWANTED, VERDICTS, Format, candidates, rename
from dsel.data.reading import Row
from dsel.data.rows import Meaning, can_be_named, free_name, replaced_by
from dsel.data.talk import ASSISTANT, SYSTEM_TURN, USER, Talk, conversations, talk_of
from dsel.data.turns import ANSWERS, GIVEN, MEDIA, PROMPTS, REASONING, SYSTEM, may_be_turns
from dsel.data.typed import Column, Mask, carries, codes_of, deep
from dsel.data.unread import is_word, may_be_named, number_in, repeats
from dsel.pool import RESERVED

if TYPE_CHECKING:
    from pyarrow import Array, ListArray, StringArray

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass
class Noted:
    """A column that is not read: in how many rows, the first of them, and what could name it in the row `last`."""

    name: str
    rows: int
    first: int
    last: int = -1
    free: str = ""


@dataclass
class Plain:
    """The plain rows of a batch.

    rows: their numbers in the batch, ascending. ids: null where a row has none. sure, unsure: scores, NaN where there
    is none; the unsure ones stand as text. words: how many texts of a column are no numbers. numbers: how many are, or
    are numbers anyway. texts: columns with a number in text. seen: which of the columns that `data.columns` names are
    there.
    """

    rows: Indices
    ids: StringArray
    sources: StringArray
    messages: ListArray
    form: str
    sure: dict[str, Numbers] = field(default_factory=dict)
    unsure: dict[str, Numbers] = field(default_factory=dict)
    unread: list[Noted] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)


def plain_rows(columns: Mapping[str, Column], meaning: Meaning) -> Plain | None:
    """The plain rows of those that have `columns`, all of the same length; None where there is none."""
    names = rename({name: name for name in columns}, meaning.columns)
    ours = {name: columns[theirs] for name, theirs in names.items()}
    if not all(may_be_named(name) for name in (*columns, *ours, meaning.name, meaning.label or "")):
        return None
    form = _form(ours, meaning)
    if form is None:
        return None
    shape = _Chat(ours, form, meaning) if len(form.required) == 1 else _Pair(ours, form)
    rows = np.flatnonzero(shape.plain & _usual(columns, ours, shape.read))
    if not len(rows):
        return None
    if len(rows) < shape.n:
        columns = {name: column.take(rows) for name, column in columns.items()}
    shape.take(rows)
    ours = {name: columns[theirs] for name, theirs in names.items()}
    ids, sources = _ids(ours, len(rows)), _sources(ours, meaning, len(rows))
    seen = set(columns) & set(meaning.columns.values())
    found = Plain(rows, ids, sources, shape.messages(), form.name, seen=seen)
    _score(found, columns, ours, shape.read)
    _note_unread(found, columns, ours, form, shape, meaning)
    return found


def _form(ours: Mapping[str, Column], meaning: Meaning) -> Format | None:
    """The format that plain rows have: the first of which each column holds something in some row."""
    known = candidates(tuple(ours), meaning.format, frozenset(meaning.columns))
    form = next((f for f in known if not any(ours[c].nothing.all() for c in f.required)), None)
    if form is None:
        return None
    if len(form.required) == 1:
        return form if ours[form.required[0]].kind in ("turns", "other") else None
    ask, answer = form.required
    texts = ask in PROMPTS and answer in ANSWERS and ours[ask].kind == ours[answer].kind == "text"
    return form if texts else None


class _Pair:
    """A question and an answer, perhaps with a system prompt and something given beside them."""

    def __init__(self, ours: Mapping[str, Column], form: Format):
        ask, answer = form.required
        self.n = len(ours[ask])
        self.given = [c for c in GIVEN if c in ours and c != ask]
        self.systems = [c for c in SYSTEM if c in ours]
        self.read = {ask, answer, *self.given, *self.systems, *(c for c in (*REASONING, "history") if c in ours)}
        self.plain = _may_be_side(ours[ask]) & _may_be_side(ours[answer])
        for name in self.read - {ask, answer}:
            if ours[name].kind != "text" or name in REASONING or name == "history":
                self.plain &= ours[name].nothing
        for beside in (self.given, self.systems):  # of several that hold something the order matters
            self.plain &= sum((~ours[name].nothing).astype(int) for name in beside) <= 1 if beside else True
        self.ask, self.answer, self.ours = ours[ask], ours[answer], ours

    def take(self, rows: Indices) -> None:
        beside = [c for c in (*self.given, *self.systems) if self.ours[c].kind == "text"]
        whole = len(rows) == self.n
        self.texts = {c: self.ours[c] if whole else self.ours[c].take(rows) for c in beside}
        self.n, self.whole = len(rows), whole
        if not whole:
            self.ask, self.answer = self.ask.take(rows), self.answer.take(rows)

    def messages(self) -> ListArray:
        import pyarrow.compute as pc

        asked = self.ask.array
        for name in self.given:
            if name in self.texts and not (blank := self.texts[name].nothing).all():
                both = pc.binary_join_element_wise(asked, self.texts[name].array, "\nInput: ")
                asked = pc.if_else(_mask(blank), asked, both)
        system = _first([self.texts[c] for c in self.systems if c in self.texts])
        self.said = [asked, self.answer.array] if system is None else [system, asked, self.answer.array]
        return _interleaved(self.said, (SYSTEM_TURN, USER, ASSISTANT)[-len(self.said) :])

    def parts(self) -> list[Column]:
        """The texts that are read, which a rendering of all of them would hold."""
        return [self.ask, self.answer, *self.texts.values()]

    def told(self) -> list[Column]:
        return [*self.parts(), *(Column("text", text) for text in self.said)]

    def longest(self) -> Indices:
        """int64[n]: bytes of the longest of a row's parts."""
        return np.max([_trimmed_sizes(part) for part in self.parts()], axis=0)

    def equal(self, value: Array) -> Mask:
        """bool[n]: where a text is one that is told."""
        return np.any([_equal(value, column.trimmed) for column in self.told()], axis=0)

    def told_in(self, row: int) -> tuple[set[str], list[str]]:
        """What is told in one row, and its parts."""
        told = {str(text).strip() for column in self.told() if (text := column.value(row)) is not None}
        parts = [str(text).strip() for part in self.parts() if (text := part.value(row)) is not None]
        return told, [part for part in parts if part]


class _Chat:
    """A list of turns, perhaps with a system prompt beside it."""

    def __init__(self, ours: Mapping[str, Column], form: Format, meaning: Meaning):
        column = ours[form.required[0]]
        self.n = len(column)
        self.systems = [c for c in SYSTEM if c in ours]
        self.read = {form.required[0], *self.systems}
        self.talk: Talk = talk_of(column, meaning.roles)
        self.plain = self.talk.plain.copy()
        for name in self.systems:
            if ours[name].kind != "text":
                self.plain &= ours[name].nothing
        held = sum(((~ours[name].nothing).astype(int) for name in self.systems), np.zeros(self.n, int))
        self.plain &= (held == 0) | ((held == 1) & ~self.talk.has_system)
        self.ours = ours

    def take(self, rows: Indices) -> None:
        if len(rows) < self.n:
            self.talk = self.talk.take(rows)
        texts = [self.ours[c] for c in self.systems if self.ours[c].kind == "text"]
        self.texts = texts if len(rows) == self.n else [column.take(rows) for column in texts]
        self.n = len(rows)

    def messages(self) -> ListArray:
        self.system = _first(self.texts)
        return self.talk.messages(self.system)

    def parts(self) -> list[Column]:
        return self.texts

    def longest(self) -> Indices:
        if self.system is None:
            return self.talk.longest()
        sizes = _trimmed_sizes(Column("text", self.system))
        return np.where(sizes > 0, sizes, self.talk.longest())

    def equal(self, value: Array) -> Mask:
        equal = self.talk.any_equal(value)
        return equal if self.system is None else equal | _equal(value, Column("text", self.system).trimmed)

    def told_in(self, row: int) -> tuple[set[str], list[str]]:
        contents = [text.strip() for text in self.talk.contents_of(row)]
        system = None if self.system is None else self.system[row].as_py()
        if system is None:
            return set(contents), contents
        return {*contents, system.strip()}, [system.strip()]


def _usual(columns: Mapping[str, Column], ours: Mapping[str, Column], read: set[str]) -> Mask:
    """bool[n]: the rows in which no column holds what another place has to judge."""
    import pyarrow as pa
    import pyarrow.compute as pc

    usual = np.ones(len(next(iter(columns.values()))), bool)
    for column in columns.values():
        usual &= ~column.broken & ~deep(column)
    for name, column in ours.items():
        if name in MEDIA or name in TOOLS or (name == "messages" and name not in read):
            usual &= column.nothing
        elif name in UNWANTED and column.kind == "text":
            said = pc.utf8_lower(column.trimmed)
            usual &= ~_bools(pc.fill_null(pc.is_in(said, pa.array(list(VERDICTS))), False))
        elif name in UNWANTED and column.kind == "number":
            usual &= ~np.isin(column.floats, (0, 1))
        elif name in UNWANTED:
            usual &= column.nothing
        if name in ("id", "source", "dataset") and column.kind not in ("text", "number"):
            usual &= column.nothing
        if name == "id" and column.kind == "number" and not pa.types.is_integer(column.array.type):
            usual &= column.nothing
        if column.kind == "other" and name not in read:
            known = (not isinstance(value, (str, int, float)) for value in column.values or ())
            usual &= np.fromiter(known, bool, len(usual))
    return usual


def _ids(ours: Mapping[str, Column], n: int) -> StringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = ours.get("id")
    if column is None or column.kind not in ("text", "number"):
        return pa.nulls(n, pa.string())
    if column.kind == "number":
        whole = pa.types.is_integer(column.array.type)
        return pc.cast(column.array, pa.string()) if whole else pa.nulls(n, pa.string())
    return _unless(column.sizes == 0, column.array)


def _sources(ours: Mapping[str, Column], meaning: Meaning, n: int) -> StringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    own = [ours[name] for name in ("source", "dataset") if name in ours and ours[name].kind == "text"]
    last = pa.array([meaning.label or meaning.name], pa.string())
    if meaning.label or not own:
        return pc.take(last, pa.array(np.zeros(n, np.int64)))
    return pc.coalesce(*(_unless(column.sizes == 0, column.array) for column in own), last[0])


def _score(found: Plain, columns: Mapping[str, Column], ours: Mapping[str, Column], read: set[str]) -> None:
    """Add the numbers of columns that are not read, and those that stand as text."""
    for name, column in ours.items():
        if name in read or name in RESERVED:
            continue
        if column.kind == "number":
            values = np.where(np.abs(column.floats) <= sys.float_info.max, column.floats, np.nan)
            there = int((~np.isnan(values)).sum())
            if there:
                found.numbers[name] = found.numbers.get(name, 0) + there
                _split(found, name, values, columns)
        elif column.kind == "text":
            _score_texts(found, name, column, columns)


def _score_texts(found: Plain, name: str, column: Column, columns: Mapping[str, Column]) -> None:
    coded = column.array.dictionary_encode()
    texts = coded.dictionary.to_pylist()
    numbers = [number_in(name, text) for text in texts]
    counts = np.bincount(codes_of(coded)[column.valid], minlength=len(texts))
    words = sum(int(c) for c, t, number in zip(counts, texts, numbers) if number is None and is_word(t))
    if words:
        found.words[name] = found.words.get(name, 0) + words
    total = sum(int(c) for c, number in zip(counts, numbers, strict=True) if number is not None)
    if total:
        found.numbers[name] = found.numbers.get(name, 0) + total
        found.texts.add(name)
        known = np.array([np.nan if v is None or abs(v) > sys.float_info.max else v for v in numbers])
        _split(found, name, np.where(column.valid, known[np.where(column.valid, codes_of(coded), 0)], np.nan), columns)


def _split(found: Plain, name: str, values: Numbers, columns: Mapping[str, Column]) -> None:
    """Those of rows in which the column of that name holds text are unsure."""
    column = columns.get(name)
    as_text = column.valid if column is not None and column.kind == "text" else np.zeros(len(values), bool)
    for into, where in ((found.sure, ~as_text), (found.unsure, as_text)):
        chosen = np.where(where, values, np.nan)
        if not np.isnan(chosen).all():
            into[name] = chosen


def _note_unread(
    found: Plain,
    columns: Mapping[str, Column],
    ours: Mapping[str, Column],
    form: Format,
    shape: _Pair | _Chat,
    meaning: Meaning,
) -> None:
    """Add the columns that carry text which the messages do not have, as `read_row` notes them of each row."""
    left = [(name, column, True) for name, column in ours.items() if name not in shape.read]
    left += [(name, columns[name], False) for name in replaced_by(meaning.columns) if name in columns]
    for name, column, may_repeat in left:
        unread = carries(name, column)
        if may_repeat and unread.any():
            unread &= ~_repeated(column, unread, shape)
        rows = np.flatnonzero(unread)
        if len(rows):
            noted = Noted(name, len(rows), int(found.rows[rows[0]]))
            texts = rows[ours[name].valid[rows]] if name in ours and ours[name].kind == "text" else rows[:0]
            if len(texts):
                row: Row = {
                    c: each.value(int(texts[-1])) for c, each in ours.items() if c in (name, *GIVEN, *REASONING)
                }
                if can_be_named(name, row):
                    noted.last, noted.free = int(found.rows[texts[-1]]), free_name(name, row, form)
            found.unread.append(noted)


def _repeated(column: Column, of: Mask, shape: _Pair | _Chat) -> Mask:
    """bool[n]: which of the rows `of` have a value that only says again what is read."""
    found = np.zeros(len(column), bool)
    if column.kind == "flag":
        return found
    unknown = of
    if column.kind == "text":  # one that is shorter than a part does not hold it
        found = of & shape.equal(column.trimmed)
        unknown = of & ~found & (column.sizes >= shape.longest())
    for row in np.flatnonzero(unknown).tolist():
        told, parts = shape.told_in(row)
        found[row] = repeats(column.value(row), told, parts)
    return found


def _may_be_side(column: Column) -> Mask:
    """bool[n]: where a text is a question or an answer as it stands, and not perhaps a list of turns."""
    found = ~column.nothing
    for row in np.flatnonzero((column.leads == ord("[")) | (column.leads == ord("{"))).tolist():
        found[row] &= not may_be_turns(column.value(row))
    return found


def _first(columns: Sequence[Column]) -> StringArray | None:
    """The texts of the columns, null where there is none; None where no row has one."""
    import pyarrow.compute as pc

    texts = [_unless(column.nothing, column.array) for column in columns if not column.nothing.all()]
    return pc.coalesce(*texts) if texts else None


def _interleaved(texts: Sequence[StringArray], roles: Sequence[int]) -> ListArray:
    """Conversations of one turn out of each of `texts`, but for those that are null."""
    import pyarrow as pa

    n, turns = len(texts[0]), len(texts)
    order = np.arange(n * turns).reshape(turns, n).T.ravel()
    who = np.tile(np.array(roles, np.int64), n)
    lengths = np.full(n, turns, np.int64)
    if texts[0].null_count:
        there = np.asarray(texts[0].is_valid().to_numpy(zero_copy_only=False), bool)
        keep = np.ones((n, turns), bool)
        keep[:, 0] = there
        order, who, lengths = order[keep.ravel()], who[keep.ravel()], lengths - ~there
    return conversations(pa.concat_arrays(texts).take(pa.array(order)), who, lengths)


def _trimmed_sizes(column: Column) -> Indices:
    return Column("text", column.trimmed).sizes


def _unless(nothing: Mask, texts: StringArray) -> StringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(_mask(nothing), pa.scalar(None, pa.string()), texts) if nothing.any() else texts


def _equal(one: Array, two: Array) -> Mask:
    import pyarrow.compute as pc

    return _bools(pc.fill_null(pc.equal(one, two), False))


def _bools(array: Any) -> Mask:
    return np.asarray(array.to_numpy(zero_copy_only=False), bool)


def _mask(values: Mask) -> Array:
    import pyarrow as pa

    return pa.array(values)
