"""A batch of raw rows as a part of the pool: Arrow's columns of what can be used, and an account of all."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.batches import as_json
from dsel.data.account import Account, Unread
from dsel.data.native import rows_of
from dsel.data.plain import Plain, plain_rows
from dsel.data.raw import Row, Unreadable
from dsel.data.rows import Found, Meaning, read_row
from dsel.data.typed import Column, of_array, of_values
from dsel.json_columns import is_known
from dsel.messages import to_column
from dsel.originals import Originals

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch, StringArray

Indices = npt.NDArray[np.int64]
Lines = Any
"""The line of each row: a string array, or a list of strings, None where it is to be written anew."""

FEW = 24  # rows of the same columns that are read one by one: fewer are not worth their arrays
ROW, SURE, UNSURE = "row", "sure:", "unsure:"


@dataclass
class Chunk:
    """What some rows in a row of a file hold.

    rows: of each row that is used `row` (its number, counted from 1 over those of this account), `id` (null where it
    has none), `messages`, `source`, and for each score `sure:` or `unsure:` and its name: a number, or one that stands
    as text and is a score only if all texts of its column are numbers. originals: the rows as they stood.
    """

    rows: RecordBatch
    originals: Originals
    account: Account


def convert(raw: RecordBatch | Sequence[Row | Unreadable], meaning: Meaning, lines: Lines | None = None) -> Chunk:
    """What a batch of rows holds. lines: as which they stood, where they did."""
    batch = _Listed(raw, lines) if isinstance(raw, Sequence) else _Arrow(raw, lines)
    groups = [plain for group in batch.groups() if (plain := _plain(*group, meaning)) is not None]
    odd = np.ones(batch.n, bool)
    for plain in groups:
        odd[plain.rows] = False
    account, found = _read_odd(batch.rows(np.flatnonzero(odd)), groups, meaning)
    for plain in groups:
        _add(account, plain)
    account.rows = batch.n
    parts = [_plain_columns(plain) for plain in groups] + ([_found_columns(found)] if found else [])
    rows = _together(parts)
    return Chunk(rows, batch.originals(rows.column(ROW).to_numpy() - 1), account)


def numbered(chunk: Chunk, count: int, numbers: Indices | None) -> Chunk:
    """A chunk of rows that are some of more. count: how many those are. numbers: which of them, counted from 0."""
    import pyarrow as pa

    chunk.account.rows = count
    if numbers is not None:
        number = chunk.rows.schema.get_field_index(ROW)
        rows = pa.array(numbers[chunk.rows.column(ROW).to_numpy() - 1] + 1, pa.int64())
        chunk.rows = chunk.rows.set_column(number, ROW, rows)
        account = chunk.account
        account.bad = [replace(bad, row=int(numbers[bad.row - 1]) + 1) for bad in account.bad]
        account.formless = [replace(row, row=int(numbers[row.row - 1]) + 1) for row in account.formless]
    return chunk


class _Arrow:
    """Rows of a record batch."""

    def __init__(self, batch: RecordBatch, lines: Lines | None):
        self.batch, self.n, self.lines = batch, batch.num_rows, lines

    def groups(self) -> Iterator[tuple[Indices, dict[str, Column]]]:
        """Rows that have the same columns, and these; none where Python is to look at each value."""
        import pyarrow as pa

        if self.n < FEW:
            return
        try:
            found = [of_array(array) for array in self.batch.columns]
        except (ValueError, OverflowError, ArithmeticError, LookupError, RecursionError, pa.ArrowException):
            return
        columns = {name: each for name, each in zip(self.batch.schema.names, found, strict=True) if each is not None}
        if len(columns) == len(found) > 0:
            yield np.arange(self.n), columns

    def rows(self, numbers: Indices) -> Iterator[tuple[int, Row | Unreadable]]:
        """Some of them, each with its number."""
        import pyarrow as pa

        if len(numbers):
            yield from zip(numbers.tolist(), rows_of(self.batch.take(pa.array(numbers))), strict=True)

    def originals(self, numbers: Indices) -> Originals:
        """Some of them, which are used, as they stood."""
        import pyarrow as pa

        taken, all_of = pa.array(numbers), len(numbers) == self.n
        if self.lines is not None:
            return Originals.of_texts(self.lines if all_of else self.lines.take(taken))
        chosen = self.batch if all_of else self.batch.take(taken)
        if is_known(chosen.schema):
            return Originals.of_columns(chosen)
        return Originals.of_rows(row for row in rows_of(chosen) if isinstance(row, dict))


class _Listed:
    """Rows in Python's types."""

    def __init__(self, rows: Sequence[Row | Unreadable], lines: Lines | None):
        self.listed, self.n, self.lines = rows, len(rows), lines

    def groups(self) -> Iterator[tuple[Indices, dict[str, Column]]]:
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, row in enumerate(self.listed):
            if isinstance(row, dict):
                groups.setdefault(tuple(row), []).append(number)
        for names, numbers in groups.items():
            if len(numbers) >= FEW and names and all(isinstance(name, str) for name in names):
                rows: list[Any] = [self.listed[number] for number in numbers]
                yield np.array(numbers), {name: of_values([row[name] for row in rows]) for name in names}

    def rows(self, numbers: Indices) -> Iterator[tuple[int, Row | Unreadable]]:
        return ((number, self.listed[number]) for number in numbers.tolist())

    def originals(self, numbers: Indices) -> Originals:
        rows: list[Any] = [self.listed[number] for number in numbers.tolist()]
        if self.lines is None:
            return Originals.of_rows(rows)
        lines = [self.lines[number] for number in numbers.tolist()]
        return Originals.of_texts([as_json(row) if line is None else line for row, line in zip(rows, lines)])


def _plain(numbers: Indices, columns: dict[str, Column], meaning: Meaning) -> Plain | None:
    """The plain rows of a group, by their numbers in the batch."""
    found = plain_rows(columns, meaning)
    if found is not None:
        found.rows = numbers[found.rows]
        for noted in found.unread:
            noted.first = int(numbers[noted.first])
            noted.last = int(numbers[noted.last]) if noted.last >= 0 else -1
    return found


def _read_odd(
    rows: Iterator[tuple[int, Row | Unreadable]], groups: Sequence[Plain], meaning: Meaning
) -> tuple[Account, list[Found]]:
    """The rows that are not plain, and their account: it has what is said of plain rows, too, in its place."""
    account, found = Account(), list[Found]()
    marks = [(int(plain.rows[0]), -1, number, "") for number, plain in enumerate(groups)]
    marks += [
        (noted.first, at, number, noted.name)
        for number, plain in enumerate(groups)
        for at, noted in enumerate(plain.unread)
    ]
    marks.sort(reverse=True)

    def mark(until: float) -> None:
        while marks and marks[-1][0] < until:
            _, _, number, name = marks.pop()
            if name:
                account.unread.setdefault(name, Unread())
            else:
                account.forms.setdefault(groups[number].form, 0)

    last: tuple[int, str | None] = (-1, None)
    for number, row in rows:
        mark(number)
        account.last, formless = _form_before(number, groups, last), len(account.formless)
        each = read_row(number + 1, row, meaning, account)
        if len(account.formless) == formless and not isinstance(row, Unreadable):
            last = (number, account.last)
        if each is not None:
            found.append(each)
    mark(np.inf)
    account.last = _form_before(sys.maxsize, groups, last)
    return account, found


def _form_before(number: int, groups: Sequence[Plain], last: tuple[int, str | None]) -> str | None:
    """The format of the last row before this one that had any. last: among those that are not plain."""
    for plain in groups:
        at = int(np.searchsorted(plain.rows, number)) - 1
        if at >= 0 and plain.rows[at] > last[0]:
            last = (int(plain.rows[at]), plain.form)
    return last[1]


def _add(account: Account, plain: Plain) -> None:
    """Count plain rows in."""
    account.forms[plain.form] += len(plain.rows)
    for noted in plain.unread:
        unread = account.unread[noted.name]
        unread.rows += noted.rows
        if noted.last + 1 > unread.last:
            unread.free, unread.last = noted.free, noted.last + 1
    account.texts.numbers.update(plain.numbers)
    account.texts.words.update(plain.words)
    account.texts.texts |= plain.texts
    account.seen |= plain.seen


def _plain_columns(plain: Plain) -> dict[str, Array]:
    import pyarrow as pa

    fixed = {ROW: pa.array(plain.rows + 1), "id": plain.ids, "messages": plain.messages, "source": plain.sources}
    sure = {f"{SURE}{name}": pa.array(values) for name, values in plain.sure.items()}
    return {**fixed, **sure, **{f"{UNSURE}{name}": pa.array(values) for name, values in plain.unsure.items()}}


def _found_columns(found: Sequence[Found]) -> dict[str, Array]:
    import pyarrow as pa

    columns: dict[str, Array] = {
        ROW: pa.array([each.row for each in found], pa.int64()),
        "id": _strings([each.id for each in found]),
        "messages": to_column(each.messages for each in found),
        "source": _strings([each.source for each in found]),
    }
    for prefix, scores in ((SURE, [f.scores for f in found]), (UNSURE, [f.texts for f in found])):
        for name in dict.fromkeys(name for each in scores for name in each):
            columns[prefix + name] = pa.array([each.get(name, np.nan) for each in scores], pa.float64())
    return columns


def _together(parts: Sequence[dict[str, Array]]) -> RecordBatch:
    """The columns of all parts, their rows in order."""
    import pyarrow as pa

    if not parts:
        empty = _found_columns([])
        return pa.record_batch(list(empty.values()), list(empty))
    names = sorted({name for part in parts for name in part if name.startswith((SURE, UNSURE))})
    columns = {}
    for name in (ROW, "id", "messages", "source", *names):
        arrays = [part[name] if name in part else pa.array(np.full(len(part[ROW]), np.nan)) for part in parts]
        columns[name] = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
    rows = pa.record_batch(list(columns.values()), list(columns))
    return rows if len(parts) == 1 else rows.take(pa.array(np.argsort(columns[ROW].to_numpy(), kind="stable")))


def _strings(values: Sequence[str | None]) -> StringArray:
    import pyarrow as pa

    return pa.array(values, pa.string())
