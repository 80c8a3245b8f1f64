"""Pools on disk: written batch by batch as they are read, and mapped into memory afterwards.

A stored pool is a folder: `rows.arrow` (`id`, `messages`, `source`); `scores.arrow` (a float64 column a score, in the
same batches); `originals.arrow` (each row as it stood: see `dsel.originals`); `truth.arrow`, where something is known;
`reported.parquet` (`file`, `row` and `reason` of each row that was not used); and `pool.json` with its name, count,
fingerprint, how many rows were skipped for which reason, and what its reader said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.batches import RESERVED, Distinct, Fingerprint, pieces, row_schema
from dsel.cache import Cache
from dsel.columns import Columns, beside, mapped_from
from dsel.files import read_json, write_json
from dsel.originals import Originals, packed_schema, unpacked
from dsel.pool import Pool

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch, Schema

log = logging.getLogger(__name__)

KIND = "pools"  # in the cache
FORMAT = 2  # of the files
FACTS = "pool.json"
NAMES = ("rows", "scores", "originals", "truth")
LEFT = ".left"  # of a file that a killed run has not finished
REPORTED = "reported.parquet"
AT_ONCE = 2**15  # rows that were not used, before they are written

Said = Sequence[tuple[int, str]]
"""Lines for the log, each with its level."""


def stored(cache: Cache | None, key: Any, fill: Callable[[Writer], Pool]) -> Pool:
    """The pool of `key`: the one in the cache, or the one that `fill` makes, once however many processes want it.

    A pool that is found says again what its reader said. Without a cache it is made in memory.

    Args:
        cache: where it is kept.
        key: all that decides what is in it.
        fill: writes all rows, and returns what `Writer.finish` does.
    """
    if cache is None:
        return fill(Writer(None))

    def build(folder: Path) -> None:
        fill(Writer(folder))

    folder, found = cache.artifact(KIND, {"format": FORMAT, "of": key}, build, lease=True, wait=False)
    return read(folder, found=found)


class Writer:
    """Writes a pool to `folder`, or keeps it in memory where there is none."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            for name in (FACTS, REPORTED, *(f"{name}.arrow" for name in NAMES)):
                if name in ("rows.arrow", "originals.arrow") and (folder / name).exists():
                    (folder / name).replace((folder / name).with_suffix(LEFT))  # of a killed run: see `left_of`
                (folder / name).unlink(missing_ok=True)
        self._rows = self._sink("rows", row_schema())
        self._originals = self._sink("originals", packed_schema())
        self._truth: Sink | None = None
        self._distinct, self._fingerprint = Distinct(), Fingerprint()
        self._scores: list[tuple[int, dict[str, npt.NDArray[np.float64]]]] = []  # of each batch: rows, and its columns
        self._reported: list[tuple[str, int, str]] = []
        self._report: Any = None

    def write(self, rows: RecordBatch, originals: Originals, truth: RecordBatch | None = None) -> None:
        """Add rows, in order.

        Args:
            rows: the columns of `dsel.batches.row_schema`; any other is a score (numbers, null where there is none),
                and need not be in each batch. Ids that have come before are made distinct.
            originals: as many, as they stood.
            truth: what is known about them, of as many rows; with the first batch or never.
        """
        if truth is not None and self._truth is None:
            self._truth = self._sink("truth", truth.schema)
        start = 0
        for piece in pieces(rows):
            part = piece.select(RESERVED).cast(row_schema())
            part = part.set_column(0, "id", self._distinct(part.column("id")))
            self._rows.write(part)
            self._fingerprint.add(part)
            scores = {name: _floats(piece.column(name)) for name in piece.schema.names if name not in RESERVED}
            self._scores.append((piece.num_rows, scores))
            if self._truth is not None and truth is not None:
                self._truth.write(truth.slice(start, piece.num_rows).cast(self._truth.schema))
            start += piece.num_rows
        if start:
            self._originals.write(originals.pack())

    def report(self, file: str, row: int, reason: str) -> None:
        """Note a row that is not used."""
        self._reported.append((file, row, reason))
        if len(self._reported) >= AT_ONCE:
            self._write_reported()

    def finish(
        self,
        name: str,
        *,
        scores: Mapping[str, Sequence[str]] | None = None,
        skipped: Mapping[str, int] | None = None,
        said: Said = (),
    ) -> Pool:
        """The pool of all that was written.

        Args:
            name: its name.
            scores: its score columns, each with the columns it is of, as they were written: it has the first number
                there. None: those that were written, as they are.
            skipped: how many rows were not used, by reason.
            said: what its reader has to say about it, to be said again when it is found.
        """
        written = sorted({column for _, columns in self._scores for column in columns})
        wanted = {column: [column] for column in written} if scores is None else dict(sorted(scores.items()))
        numbers = self._write_scores(wanted) if wanted else None
        self._write_reported()
        if self._report is not None:
            self._report.close()
        facts = {
            "name": name,
            "count": sum(count for count, _ in self._scores),
            "fingerprint": self._fingerprint.hexdigest(),
            "skipped": dict(skipped or {}),
            "said": [list(line) for line in said],
        }
        if self.folder is not None:
            write_json(self.folder / FACTS, facts)
        truth = None if self._truth is None else self._truth.close()
        return _pool(facts, self._rows.close(), numbers, unpacked(self._originals.close()), truth)

    def _write_scores(self, wanted: Mapping[str, Sequence[str]]) -> Columns:
        import pyarrow as pa

        sink = self._sink("scores", pa.schema([(column, pa.float64()) for column in wanted]))
        for count, columns in self._scores:
            values = [_first([columns[part] for part in parts if part in columns], count) for parts in wanted.values()]
            batch = pa.record_batch([pa.array(v, pa.float64()) for v in values], schema=sink.schema)
            for column in wanted:
                self._fingerprint.column(column, batch.column(column))
            sink.write(batch)
        return sink.close()

    def _write_reported(self) -> None:
        """Write what is noted of rows that are not used: nothing where all are."""
        if self.folder is not None and self._reported:
            import pyarrow as pa
            import pyarrow.parquet as pq

            schema = pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())])
            columns = [pa.array(values, field.type) for values, field in zip(zip(*self._reported), schema, strict=True)]
            if self._report is None:
                self._report = pq.ParquetWriter(self.folder / REPORTED, schema)
            self._report.write_batch(pa.record_batch(columns, schema=schema))
        self._reported.clear()

    def _sink(self, name: str, schema: Schema) -> Sink:
        return Sink(schema, None if self.folder is None else self.folder / f"{name}.arrow")


class Sink:
    """Record batches on their way into a file, or into a list."""

    def __init__(self, schema: Schema, path: Path | None):
        import pyarrow as pa

        self.schema, self.path = schema, path
        self._batches: list[RecordBatch] = []
        self._file = None if path is None else pa.ipc.new_file(str(path), schema)

    def write(self, batch: RecordBatch) -> None:
        if self._file is None:
            self._batches.append(batch)
        else:
            self._file.write_batch(batch)

    def close(self) -> Columns:
        """What was written."""
        if self._file is None or self.path is None:
            return Columns(self._batches, self.schema)
        self._file.close()
        self.path.with_suffix(LEFT).unlink(missing_ok=True)
        return mapped_from(self.path)


def left_of(folder: Path, name: str) -> Iterator[RecordBatch]:
    """The batches that a killed run has left of a file called `name`, as far as they are whole."""
    import pyarrow as pa

    path = folder / f"{name}{LEFT}"
    if not path.exists():
        return
    with suppress(pa.ArrowException, OSError, EOFError), pa.memory_map(str(path)) as file:
        file.seek(8)  # a file is a stream after its first sign, and before its index
        yield from pa.ipc.open_stream(file)


def read(folder: Path, *, found: bool = False) -> Pool:
    """The pool in `folder`, mapped. One that was `found` says again what its reader said."""
    facts = read_json(folder / FACTS)
    if found:
        for level, line in facts["said"]:
            log.log(level, "%s", line)
    if (folder / REPORTED).exists():
        log.info("the rows that are not used are listed in %s", folder / REPORTED)
    there = {name: mapped_from(path) for name in NAMES if (path := folder / f"{name}.arrow").exists()}
    pool = _pool(facts, there["rows"], there.get("scores"), unpacked(there["originals"]), there.get("truth"))
    return replace(pool, found=found)


def _pool(
    facts: Mapping[str, Any], rows: Columns, scores: Columns | None, originals: Columns, truth: Columns | None
) -> Pool:
    return Pool(
        name=facts["name"],
        rows=rows if scores is None else beside(rows, scores),
        originals=originals,
        fingerprint=facts["fingerprint"],
        truth=truth,
        skipped=facts["skipped"],
    )


def _floats(column: Array) -> npt.NDArray[np.float64]:
    """Numbers, NaN where there is none."""
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))


def _first(columns: Sequence[npt.NDArray[np.float64]], count: int) -> npt.NDArray[np.float64]:
    """The first number that each row has in one of `columns`; NaN where it has none."""
    found = np.full(count, np.nan)
    for column in columns:
        found = np.where(np.isnan(found), column, found)
    return found
