"""One map for all that reads many rows: a worker that is built once, and a file for each finished shard of its results.

Embedders, scorers and what a model in training is asked describe a worker; who computes the shards, and where, is for
the engine to say (`dsel.engine`).
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dsel.errors import ConfigError
from dsel.files import piece, read_json, save_piece
from dsel.lazy import Indices, fetched
from dsel.progress import progress

log = logging.getLogger(__name__)

Results = npt.NDArray[Any] | list[str]
"""One for each row: an array whose first axis are the rows (with records, where there are several values), or texts."""

Read = Callable[[list[Any]], Results]
"""What a worker does with the rows of a shard: texts, conversations, or pairs of them."""


class Worker(Protocol):
    """What reads rows, as a description of plain data: whoever gets it, here or elsewhere, can build it.

    shard_size: how many rows it should be given at once, and a killed run loses at most. suffix: of the shards' files,
    `.npy` where its results are an array and `.json` where they are texts.
    """

    @property
    def shard_size(self) -> int: ...

    @property
    def suffix(self) -> str: ...

    def build(self) -> Read:
        """Load what it needs (weights, a client); asked for once, and not at all where all shards are there."""


@dataclass(frozen=True)
class Shard:
    """Some of the rows, by their numbers, and the file of their results."""

    rows: Indices
    path: Path

    def finish(self, read: Read, rows: list[Any]) -> None:
        """Compute the results, and save them whole or not at all.

        Args:
            read: the worker.
            rows: those of this shard, in its order.

        Raises:
            ValueError: if there is not one result for each row.
        """
        try:
            found = read(rows)
        except ConfigError:  # says itself what is wrong
            raise
        except Exception:
            log.error("%s: %d rows could not be read; what is finished is kept", self.path.name, len(rows))
            raise
        if len(found) != len(rows):
            raise ValueError(f"{self.path.name}: {len(found)} results for {len(rows)} rows")
        save_piece(self.path, lambda file: _write(file, found))

    def results(self) -> Results:
        """What `finish` has saved."""
        return read_json(self.path) if self.path.suffix == ".json" else np.load(self.path)


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
        shards = _cut(np.zeros(len(rows)) if sizes is None else sizes, worker, folder, title)
        missing = [shard for shard in shards if piece(shard.path) is None]
        todo = sum(len(shard.rows) for shard in missing)
        if 0 < todo < len(rows):
            log.info("%s: %d of %d %s were done before", title, len(rows) - todo, len(rows), unit)
        if missing:
            with progress(title, total=todo, unit=unit) as advance:
                self._compute(worker, missing, rows, advance)
        return _together(shards, len(rows), worker.suffix)

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
            shard.finish(read, list(fetched(rows, shard.rows)))
            advance(len(shard.rows))


HERE = InProcess()


def _cut(sizes: npt.ArrayLike, worker: Worker, folder: Path, title: str) -> list[Shard]:
    """All rows in shards, the largest first.

    A file's name says which rows it holds, so that one that was cut to another size is not taken for it.
    """
    order, step = np.argsort(-np.asarray(sizes), kind="stable"), worker.shard_size
    ends = [(start, min(start + step, len(order))) for start in range(0, len(order), step)]
    return [
        Shard(order[start:end], folder / f"shard-{title}-{start:08d}-{end:08d}{worker.suffix}") for start, end in ends
    ]


def _together(shards: Sequence[Shard], n: int, suffix: str) -> Results:
    """The results of all n rows, in their order."""
    if suffix == ".json":
        texts = [""] * n
        for shard in shards:
            for i, text in zip(shard.rows, shard.results(), strict=True):
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
