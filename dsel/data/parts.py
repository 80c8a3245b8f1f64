"""The parts of a pool, files and what else has rows, as chunks in order: made here, or by processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsel.data.convert import Chunk
from dsel.data.journal import Journal
from dsel.data.reader import need_same
from dsel.data.rows import Meaning
from dsel.data.units import Batch, Unit, batches, count_of, units_of, whole
from dsel.data.workers import Workers, processors
from dsel.errors import ConfigError, need
from dsel.files import State, state_of

LARGE = 2**25  # bytes of files from which on processes of their own read them
FEW_ROWS = 20_000  # no processes where no more than so many rows are wanted

Redo = Callable[[int], Chunk]
"""The same chunk without the rows after the first so many."""

Chunks = Iterator[tuple[Chunk, Redo]]


@dataclass(frozen=True)
class Part:
    """A file (or a subset of the hub's) as a part of its source.

    label, name, where: see `Meaning`. file: what is read, or else `batches`. files: Arrow files with the rows of these
    batches, for processes that read them side by side. split: of a file that holds several.
    """

    label: str | None
    name: str
    where: str
    file: Path | None = None
    batches: Iterable[Batch] = ()
    files: Sequence[Path] = ()
    split: str | None = None


@dataclass(frozen=True)
class Sample:
    """Which rows are wanted: a share of all, or so many where it is 1 or more, drawn with a seed."""

    size: float
    seed: int

    def draw(self, counts: Sequence[int]) -> list[npt.NDArray[np.int64]]:
        """Of several lists of so many rows, the numbers in each of those that are wanted, ascending.

        Raises:
            ConfigError: there are not so many.
        """
        total = sum(counts)
        wanted = max(1, round(self.size * total)) if self.size < 1 else int(self.size)
        need(wanted <= total, f"data.sample={self.size:g}: there are {total:,} rows")
        drawn = np.sort(np.random.default_rng(self.seed).choice(total, wanted, replace=False, shuffle=False))
        ends = np.cumsum([0, *counts])
        cuts = np.searchsorted(drawn, ends)
        return [drawn[a:b] - start for a, b, start in zip(cuts[:-1], cuts[1:], ends[:-1], strict=True)]


@dataclass
class Plan:
    """A part, and what of it is read: units of its file (with how many rows each has, where only some are wanted)."""

    part: Part
    meaning: Meaning
    units: list[Unit] = field(default_factory=list)
    batches: Iterable[Batch] = ()
    state: State | None = None
    fault: ConfigError | None = None


def chunks_of(
    parts: Sequence[Part],
    meaning: Callable[[Part], Meaning],
    folder: Path | None = None,
    sample: Sample | None = None,
    limit: int | None = None,
) -> Iterator[tuple[Part, Chunks]]:
    """The parts, each with its chunks; a part has to be read to its end before the next, or be the last.

    What a chunk holds depends on neither the number of processes nor on whether there are any.

    Args:
        parts: in order.
        meaning: how a part's rows are read.
        folder: where a killed run may have left chunks (`dsel.data.journal`), and this one leaves its own.
        sample: which rows are wanted; None: all. Without numbers of rows in a file's head, that is read twice.
        limit: how many usable rows are wanted.
    """
    few = limit is not None and limit <= FEW_ROWS
    alone = few or sum(map(_size, parts)) < LARGE
    if alone and sample is None:
        for part in parts:
            yield part, _here(Plan(part, meaning(part), batches=part.batches), lazily=True)
        return
    plans = [_planned(part, meaning(part)) for part in parts]
    if sample is not None:
        _draw(plans, sample)
    if alone:
        for plan in plans:
            yield plan.part, _here(plan)
        return
    yield from _side_by_side(plans, folder)


def _planned(part: Part, meaning: Meaning) -> Plan:
    if part.file is None:
        units = [Unit(str(file), "arrow") for file in part.files]
        return Plan(part, meaning, units, () if units else part.batches)
    try:
        with _readable(part.file):
            state = None if part.file.is_dir() else state_of(part.file)
            return Plan(part, meaning, list(units_of(part.file, part.split)), state=state)
    except ConfigError as error:  # said when the parts before it are read
        return Plan(part, meaning, fault=error)


def _draw(plans: Sequence[Plan], sample: Sample) -> None:
    """Leave of all plans only the rows that are drawn."""
    counts: list[int] = []
    for plan in plans:
        if plan.fault is not None:
            raise plan.fault
        if plan.batches:
            plan.batches = list(plan.batches)
            counts += [batch.count for batch in plan.batches]
        plan.units = [replace(unit, count=count_of(unit)) for unit in plan.units]
        counts += [unit.count or 0 for unit in plan.units]
    drawn = iter(sample.draw(counts))
    for plan in plans:
        plan.batches = [batch.only(next(drawn)) for batch in plan.batches]
        plan.units = [replace(unit, only=next(drawn).tolist()) for unit in plan.units]


def _here(plan: Plan, lazily: bool = False) -> Chunks:
    """The chunks of a part, converted in this process. lazily: it is not yet known which units its file has."""
    file, meaning = plan.part.file, plan.meaning

    def redo(batch: Batch) -> Redo:
        return lambda count: batch.first(count).converted(meaning)

    with _unchanged(file, plan.state):
        units: Iterable[Unit] = whole(file, plan.part.split) if lazily and file is not None else plan.units
        for batch in chain(plan.batches, (batch for unit in units for batch in batches(unit))):
            yield batch.converted(meaning), redo(batch)


def _side_by_side(plans: Sequence[Plan], folder: Path | None) -> Iterator[tuple[Part, Chunks]]:
    """The same of several processes; what a journal has is not read again."""
    units = [(unit, plan.meaning) for plan in plans for unit in plan.units]
    with Journal(folder, [unit for unit, _ in units]) as journal, Workers(processors()) as workers:
        found, first = _Found(workers.chunks(units[journal.unit :]), journal.unit), 0
        for plan in plans:
            yield plan.part, _there(plan, found, first, journal) if plan.part.file or plan.units else _here(plan)
            first += len(plan.units)


def _there(plan: Plan, found: _Found, first: int, journal: Journal) -> Chunks:
    """The chunks of a part, whose units are those from number `first` on."""

    def redo(unit: Unit, at: int) -> Redo:
        def again(count: int) -> Chunk:
            return next(islice(batches(unit), at, None)).first(count).converted(plan.meaning)

        return again

    if plan.fault is not None:
        raise plan.fault
    with _unchanged(plan.part.file, plan.state):
        for number, unit in enumerate(plan.units, start=first):
            new = islice(found.of(number), journal.known(number), None)
            for at, chunk in enumerate(chain(journal.of(number), new)):
                yield chunk, redo(unit, at)
                journal.add(number, chunk)  # it is written now


class _Found:
    """The chunks of one unit after the other; start: the number of the first."""

    def __init__(self, chunks: Iterator[tuple[int, Chunk]], start: int):
        self.chunks, self.start = chunks, start
        self.next: tuple[int, Chunk] | None = None

    def of(self, number: int) -> Iterator[Chunk]:
        """Those of one unit: none of one before the first."""
        while number >= self.start:
            found = self.next or next(self.chunks, None)
            self.next = found
            if found is None or found[0] + self.start != number:
                return
            self.next = None
            yield found[1]


def _size(part: Part) -> int:
    """Bytes of a part's files; 0 where they are not there, which is said when they are read."""
    with suppress(OSError):
        if part.files:
            return sum(file.stat().st_size for file in part.files)
        if part.file is not None and part.file.is_dir():
            return sum(file.stat().st_size for file in part.file.iterdir())
        if part.file is not None:
            return part.file.stat().st_size
    return 0


@contextmanager
def _unchanged(file: Path | None, state: State | None) -> Iterator[None]:
    """Raise `ConfigError` when the file is written to before the block ends. state: it was in; None: it is in now."""
    if file is None or file.is_dir():
        yield
        return
    with _readable(file):
        before = state or state_of(file)
    yield
    with _readable(file):
        need_same(file, before)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{error.filename or file}: cannot be read ({error.strerror or error})") from error
