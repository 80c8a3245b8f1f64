"""All rows of a pool, one file after the other, into its store: what takes the whole of them to say is settled here.

That is the number of a row in its source, of which its id is made where it has none; what is a file of no known format;
the first row that is an error; how many are enough; and which columns are scores. It holds no rows: memory grows by the
64 bits of an id, and by the scores.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsel.data.account import Account, Bad, Formless, Line
from dsel.data.convert import ROW, SURE, UNSURE, Chunk
from dsel.data.formats import format_named
from dsel.data.parts import Chunks, Part, Sample, chunks_of
from dsel.data.reading import printable
from dsel.data.rows import Meaning
from dsel.errors import ConfigError, need
from dsel.progress import progress

if TYPE_CHECKING:
    from dsel.pool import Pool
    from dsel.stored import Writer

log = logging.getLogger(__name__)

NAMED_ROWS = 5  # how many bad rows of each reason the log names
UNKNOWN_ROWS = 100  # after so many rows of no known format, and none of one, a file is given up


@dataclass
class Reason:
    """Why rows are not used: of how many that is true, the first of them, and what to do."""

    advice: str
    count: int = 0
    places: list[str] = field(default_factory=list)


@dataclass
class Gathering:
    """How rows are read (the options of `data=local`), and all there is to say of those that were."""

    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    limit: int | None = None
    sample: Sample | None = None
    strict: bool = False
    account: Account = field(default_factory=Account)
    usable: int = 0
    numbers: Counter[str] = field(default_factory=Counter)  # of each source, the rows so far
    reasons: dict[str, Reason] = field(default_factory=dict)
    scores: set[str] = field(default_factory=set)  # columns of them
    names: Sequence[str] = ()  # of the first usable row's columns

    def read(self, parts: Iterable[Part], writer: Writer, name: str, where: str, truth: str | None = None) -> Pool:
        """Write all rows of all parts.

        Args:
            parts: in order.
            writer: gets their rows.
            name: the pool's.
            where: they are, for a message.
            truth: the name under which the pool's truth has the number of each row in its part, counted from 0.

        Raises:
            ConfigError: no row can be used, a file has no known format, or what else is wrong with one.
        """
        with said_by("dsel.data", "dsel.guard") as said:
            with progress("reading the pool", total=self.limit, unit="rows") as advance:
                chunks_of_parts = chunks_of(list(parts), self._meaning, writer.folder, self.sample, self.limit)
                for part, chunks in chunks_of_parts:
                    self._read(part, chunks, writer, advance, truth)
                    if self._is_enough():
                        break
            has = ", ".join(sorted(map(printable, self.names)))
            unseen = sorted(set(self.columns.values()) - self.account.seen)
            fault = f"data.columns names {', '.join(unseen)}, but the columns are {has}"
            need(not (has and unseen) or self._is_enough(), fault)
            need(self.usable > 0, f"data: no usable example in {where} ({self._summary() or 'the files are empty'})")
            for level, line in [*self._skipped(), *self.account.lines(self.columns)]:
                log.log(level, "%s", line)
        skipped = {reason: found.count for reason, found in self.reasons.items()}
        return writer.finish(name, scores=self._score_columns(), skipped=skipped, said=said)

    def _meaning(self, part: Part) -> Meaning:
        return Meaning(part.name, part.where, part.label, self.columns, self.roles, self.format)

    def _is_enough(self) -> bool:
        return self.limit is not None and self.usable >= self.limit

    def _read(
        self,
        part: Part,
        chunks: Chunks,
        writer: Writer,
        advance: Callable[[int], None],
        truth: str | None,
    ) -> None:
        rows, last, unknown = 0, None, list[str]()
        for chunk, redo in chunks:
            if self.limit is not None and chunk.rows.num_rows >= self.limit - self.usable:
                until = chunk.rows.column(ROW)[self.limit - self.usable - 1].as_py()
                chunk = redo(until) if until < chunk.account.rows else chunk
            self._settle(part, chunk.account, rows, last, unknown, writer)
            if chunk.rows.num_rows:
                self._write(part, chunk, rows, writer, truth)
            rows += chunk.account.rows
            last = chunk.account.last or last
            self.account.add(chunk.account)
            self.numbers[part.name] += chunk.account.rows  # of the source: shards go on counting
            advance(chunk.account.rows if self.limit is None else chunk.rows.num_rows)
            if self._is_enough():
                return
        if not rows and part.file is not None:
            log.warning("%s: holds no row", part.file)
        if unknown and last is None:
            raise ConfigError(unknown[0])

    def _settle(
        self, part: Part, account: Account, rows: int, last: str | None, unknown: list[str], writer: Writer
    ) -> None:
        """Note the rows that cannot be used. A file in which no row has a format is an error."""
        faults: list[Bad | Formless] = [*account.bad, *account.formless]
        for fault in sorted(faults, key=lambda each: each.row):
            bad = fault if isinstance(fault, Bad) else self._formless(fault, last, unknown)
            where, advice = f"{part.where} row {rows + bad.row}", f"; {bad.advice}" if bad.advice else ""
            if self.strict:
                raise ConfigError(f"{where}: {bad.reason}{advice} (data.on_bad_row=skip leaves such rows out)")
            found = self.reasons.setdefault(bad.reason, Reason(advice))
            found.count += 1
            if found.count <= NAMED_ROWS:
                found.places.append(where)
            writer.report(part.where, rows + bad.row, bad.reason)

    def _formless(self, row: Formless, last: str | None, unknown: list[str]) -> Bad:
        form = row.last or last
        lacks = [] if form is None else [c for c in format_named(form).required if c not in row.columns]
        if lacks:
            return Bad(row.row, f"no column `{lacks[0]}`")
        unknown.append(row.fault)
        if self.strict or len(unknown) >= UNKNOWN_ROWS:
            raise ConfigError(unknown[0])
        return Bad(row.row, "no known format has its columns")

    def _write(self, part: Part, chunk: Chunk, rows: int, writer: Writer, truth: str | None) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        found, ids = chunk.rows, chunk.rows.column("id")
        if ids.null_count:
            numbers = pc.cast(pc.add(found.column(ROW), self.numbers[part.name]), pa.string())
            ids = pc.coalesce(ids, pc.binary_join_element_wise(part.name, numbers, "/"))
        scores = [name for name in found.schema.names if name.startswith((SURE, UNSURE))]
        self.scores.update(scores)
        columns = [ids, *(found.column(name) for name in ("messages", "source", *scores))]
        known = None
        if truth is not None:
            known = pa.record_batch([pc.add(found.column(ROW), rows - 1)], [truth])
        writer.write(pa.record_batch(columns, ["id", "messages", "source", *scores]), chunk.originals, known)
        if not self.usable:
            self.names = list(json.loads(chunk.originals.slice(0, 1).column(0)[0].as_py()))
        self.usable += found.num_rows

    def _score_columns(self) -> dict[str, list[str]]:
        """Each score, and the columns it is of: texts are numbers only where the whole column is."""
        settled = self.account.texts.settled()
        found: dict[str, list[str]] = {}
        for column in sorted(self.scores):  # the sure ones first
            sure = column.startswith(SURE)
            name = column.removeprefix(SURE if sure else UNSURE)
            if sure or name in settled:
                found.setdefault(name, []).append(column)
        return found

    def _summary(self) -> str:
        found = sorted(self.reasons.items(), key=lambda item: -item[1].count)
        return ", ".join(f"{each.count} × {reason}{each.advice}" for reason, each in found)

    def _skipped(self) -> list[Line]:
        """A line for each reason why rows are not used."""
        lines = []
        for reason, found in self.reasons.items():
            more = f"; and {found.count - NAMED_ROWS} more" if found.count > NAMED_ROWS else ""
            places = "; ".join(found.places)
            lines.append((logging.WARNING, f"skipped {found.count} rows ({reason}{found.advice}): {places}{more}"))
        return lines


@contextmanager
def said_by(*names: str) -> Iterator[list[Line]]:
    """The lines that loggers of these names, and those below them, have for who runs us, while the block goes on."""
    said: list[Line] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append((record.levelno, record.getMessage()))

    keep = Keep(logging.INFO)
    for name in names:
        logging.getLogger(name).addHandler(keep)
    try:
        yield said
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(keep)
