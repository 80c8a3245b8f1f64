"""One map for all that reads many rows: a worker that is built once, and finished shards of its results on disk.

Embedders, scorers and what a model in training is asked describe a worker; who computes the shards, and where, is for
the engine to say (`dsel.engine`). A shard is a file of its own (`Map.map`), or its rows are written into the one file
of all results and a journal says that they are there (`Map.fill`): the way for results that are large.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dsel.errors import ConfigError
from dsel.files import append_line, piece, read_json, read_lines, save_piece, write_json
from dsel.lazy import Indices, fetched
from dsel.npy import Rows
from dsel.progress import progress, tracked
from dsel.reading import Tally, parted
from dsel.spent import Spent, counted, settle

log = logging.getLogger(__name__)

Results = npt.NDArray[Any] | list[str]
"""One for each row: an array whose first axis are the rows (with records, where there are several values), or texts."""

Read = Callable[[list[Any]], Results]
"""What a worker does with the rows of a shard: texts, conversations, or pairs of them."""


class Worker(Protocol):
    """What reads rows, as a description of plain data: whoever gets it, here or elsewhere, can build it.

    shard_size: how many rows it should be given at once, and a killed run loses at most. suffix: of the shards' files,
    `.npy` where its results are an array and `.json` where they are texts.

    One that says `in_process = True` is better off in the leading process, however many there are: it waits for a
    server, or takes hardly longer than its rows take to be sent. One that says `devices` takes so many GPUs.
    """

    @property
    def shard_size(self) -> int: ...

    @property
    def suffix(self) -> str: ...

    def build(self) -> Read:
        """Load what it needs (weights, a client); asked for once, and not at all where all shards are there."""


@dataclass(frozen=True)
class Shard(ABC):
    """Some of the rows, by their numbers, and what their results are known by."""

    rows: Indices
    path: Path

    @property
    def title(self) -> str:
        """What is done, as `Map.map` was told it."""
        return self.path.name.removeprefix("shard-").rsplit("-", 2)[0]

    def finish(self, read: Read, rows: list[Any]) -> Any:
        """Compute the results, and save them whole or not at all.

        Args:
            read: the worker.
            rows: those of this shard, in its order.

        Returns:
            What the leading process gives to `note`, plain JSON.

        Raises:
            ValueError: if there is not one result for each row.
        """
        try:
            with counted() as spent:
                found = read(rows)
        except ConfigError:  # says itself what is wrong
            raise
        except Exception:
            log.error("%s: %d rows could not be read; what is finished is kept", self.path.name, len(rows))
            raise
        if len(found) != len(rows):
            raise ValueError(f"{self.path.name}: {len(found)} results for {len(rows)} rows")
        return self._save(found, spent)

    @abstractmethod
    def _save(self, found: Results, spent: Spent) -> Any: ...

    def note(self, saved: Any) -> None:
        """Keep what `finish` has said, in the one process that leads: only then is the shard known to be there."""


class File(Shard):
    """A shard whose results are the file `path`."""

    def _save(self, found: Results, spent: Spent) -> None:
        write_json(self._account, spent.to_dict())
        save_piece(self.path, lambda file: _write(file, found))

    def spent(self) -> Spent:
        """What the results have cost, where that is known: not of those from before anybody counted."""
        try:
            return Spent(**read_json(self._account))
        except (OSError, ValueError, TypeError):
            return Spent()

    @property
    def _account(self) -> Path:
        return self.path.with_name(f"{self.path.name}.spent")

    def results(self) -> Results:
        """What `finish` has saved."""
        return read_json(self.path) if self.path.suffix == ".json" else np.load(self.path)


@dataclass(frozen=True)
class Part(Shard):
    """A shard whose results are rows of the file of all results, `whole`; a line of the `journal` says that they are.

    The line has a digest of the rows' numbers and values, so that what is not as it was written is known. Workers may
    write into the file at the same time; the leading process alone writes into the journal.
    """

    whole: Rows
    journal: Path

    def _save(self, found: Results, spent: Spent) -> dict[str, Any]:
        values, tally = parted(np.asarray(found))
        read = vars(tally)
        self.whole.write(self.rows, values)
        line = {"shard": self.path.name, "read": read, "digest": _digest(self.rows, values, read)}
        return {**line, "spent": spent.to_dict()}

    def note(self, saved: Any) -> None:
        append_line(self.journal, saved)

    def is_said_by(self, line: Mapping[str, Any]) -> bool:
        """Whether a line of the journal is of this shard, and the rows are what it says."""
        return bool(line["digest"] == _digest(self.rows, self.whole.read()[self.rows], line["read"]))


class Map(ABC):
    """Has rows read by a worker. Who does it is said in `_compute`; shards, their files and results are the same."""

    def map(
        self,
        worker: Worker,
        rows: Sequence[Any],
        folder: Path,
        *,
        title: str,
        sizes: npt.ArrayLike | None = None,
        unit: str = "examples",
    ) -> Any:
        """The worker's results for all rows, in their order; shards that `folder` holds are not computed again.

        Args:
            worker: what reads them.
            rows: plain data, of which a worker is given a shard at a time; lazy ones are made then, together.
            folder: gets a file for each shard, named after `title` and where in the order of work it begins and ends.
            title: what is done, for files and the progress bar.
            sizes: about how long each row is: the longest are read first, with others of their length (little padding,
                and memory runs out early or never). Without sizes, rows are read as they come.
            unit: what a row is called in the progress bar.

        Returns:
            An array, or a list of texts, of as many as there are rows.
        """
        shards = [File(each, path) for each, path in _cut(len(rows), sizes, worker, folder, title)]
        missing = [shard for shard in shards if piece(shard.path) is None]
        self._finish(worker, missing, rows, title, unit)
        new = {shard.path for shard in missing}
        for shard in shards:
            settle(shard.spent(), before=shard.path not in new)
        return _together(shards, len(rows), worker.suffix)

    def fill(
        self,
        worker: Worker,
        rows: Sequence[Any],
        file: Path,
        *,
        title: str,
        sizes: npt.ArrayLike | None = None,
        unit: str = "examples",
    ) -> tuple[npt.NDArray[Any], Tally]:
        """As `map`, with the results of all rows in the one NPY `file`: a shard's are in memory, never all.

        Args:
            worker: what reads them; its results are arrays, or records of a `value` and what was `read` for it.
            rows: plain data, at least one, of which a worker is given a shard at a time.
            file: gets the results. Beside it a journal, named after `title`, says which shards are there.
            title: as of `map`.
            sizes: as of `map`.
            unit: as of `map`.

        Returns:
            The array [n, …], memory-mapped and read-only, and the sum of what was read.
        """
        whole, journal = Rows(file, len(rows)), file.with_name(f"shard-{title}.jsonl")
        shards = [Part(each, path, whole, journal) for each, path in _cut(len(rows), sizes, worker, file.parent, title)]
        known = _known(journal, whole, shards)
        self._finish(worker, [shard for shard in shards if shard.path.name not in known], rows, title, unit)
        lines = _lines(journal)
        for shard in shards:
            spent = Spent(**lines[shard.path.name].get("spent", {}))
            settle(spent, before=shard.path.name in known)
        return whole.read(), sum((Tally(**lines[shard.path.name]["read"]) for shard in shards), Tally())

    def _finish(self, worker: Worker, missing: Sequence[Shard], rows: Sequence[Any], title: str, unit: str) -> None:
        """Have those shards computed that are `missing`."""
        todo = sum(len(shard.rows) for shard in missing)
        if 0 < todo < len(rows):
            log.info("%s: %d of %d %s were done before", title, len(rows) - todo, len(rows), unit)
        if missing:
            with progress(title, total=todo, unit=unit) as advance:
                self._compute(worker, missing, rows, advance)

    @abstractmethod
    def _compute(
        self, worker: Worker, shards: Sequence[Shard], rows: Sequence[Any], advance: Callable[[int], None]
    ) -> None:
        """`finish` all `shards` of `rows`; `advance` by the rows of each that is."""


class InProcess(Map):
    """In this process, one shard after the other."""

    def _compute(
        self, worker: Worker, shards: Sequence[Shard], rows: Sequence[Any], advance: Callable[[int], None]
    ) -> None:
        read = worker.build()
        for shard in shards:
            shard.note(shard.finish(read, list(fetched(rows, shard.rows))))
            advance(len(shard.rows))


HERE = InProcess()


def _cut(
    n: int, sizes: npt.ArrayLike | None, worker: Worker, folder: Path, title: str
) -> Iterator[tuple[Indices, Path]]:
    """All rows in shards, the largest first, and what each is called.

    A name says which rows they are, so that a shard that was cut to another size is not taken for it.
    """
    order = np.arange(n) if sizes is None else np.argsort(-np.asarray(sizes), kind="stable")
    size = worker.shard_size  # which may look into a file
    for start in range(0, n, size):
        end = min(start + size, n)
        yield order[start:end], folder / f"shard-{title}-{start:08d}-{end:08d}{worker.suffix}"


def _known(journal: Path, whole: Rows, shards: Sequence[Part]) -> set[str]:
    """The shards that a killed run has finished, by name: those whose rows are as its `journal` says.

    Where there are none, what is left of the file goes.
    """
    lines = _lines(journal) if whole.path.exists() else {}
    there = [shard for shard in shards if shard.path.name in lines]
    known = set()
    try:
        for shard in tracked(there, "looking at what is done", total=len(there), unit="shards"):
            if shard.is_said_by(lines[shard.path.name]):
                known.add(shard.path.name)
        lost = len(there) - len(known)
        if lost:
            log.warning("%s is damaged: %d shards are made again", whole.path, lost)
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s is damaged (%s): made again", whole.path, error)
        known = set()
    if not known:
        whole.path.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)
    return known


def _lines(journal: Path) -> dict[str, Any]:
    """What the journal says of each shard that it names."""
    return {line["shard"]: line for line in read_lines(journal) if isinstance(line, dict) and "shard" in line}


def _digest(rows: Indices, values: npt.NDArray[Any], read: Mapping[str, Any]) -> str:
    import xxhash

    digest = xxhash.xxh3_128(np.ascontiguousarray(rows, dtype=np.int64).data)
    digest.update(np.ascontiguousarray(values).data)
    digest.update(json.dumps(read, sort_keys=True).encode())
    return str(digest.hexdigest())


def _together(shards: Sequence[File], n: int, suffix: str) -> Results:
    """The results of all n rows, in their order."""
    if suffix == ".json":
        texts = [""] * n
        for shard in shards:
            for i, text in zip(shard.rows.tolist(), shard.results(), strict=True):
                texts[i] = text
        return texts
    out: npt.NDArray[Any] | None = None
    for shard in shards:
        found = np.asarray(shard.results())
        if out is None:
            out = np.empty((n, *found.shape[1:]), dtype=found.dtype)
        out[shard.rows] = found
    return np.empty(0) if out is None else out


def _write(path: Path, results: Results) -> None:
    if isinstance(results, list):
        path.write_text(json.dumps(results), encoding="utf-8")
    else:
        np.save(path, results, allow_pickle=False)
