"""What is read of a pool, chunk by chunk, so that a run that is killed goes on from there.

The rows of a chunk are in the files that `dsel.stored.Writer` writes; the journal beside them has a line for each, once
it is there: its account, its scores, and a digest of its rows. Who comes after a kill reads these rows out of what is
left of the files, and goes on with the next unit.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dsel.batches import Fingerprint, row_schema
from dsel.component import digest
from dsel.data.account import Account
from dsel.data.convert import ROW, SURE, UNSURE, Chunk
from dsel.data.units import Unit
from dsel.originals import Originals
from dsel.stored import left_of

if TYPE_CHECKING:
    from pyarrow import RecordBatch

log = logging.getLogger(__name__)

FILE = "read.jsonl"


class Journal:
    """The chunks that a killed run has left in a folder, and those that this one adds. Without a folder it is empty.

    unit: the number of the first unit of which not all is known.
    """

    def __init__(self, folder: Path | None, units: Sequence[Unit]):
        self.path = None if folder is None else folder / FILE
        self.key = digest([asdict(unit) for unit in units])
        self._lines: list[dict[str, Any]] = []
        self._left: Iterator[Chunk] = iter(())
        self._file: IO[str] | None = None
        if folder is not None and self.path is not None:
            self._lines = _sound(self.path, self.key)
            self._left = _chunks(folder, self._lines)
            if self._lines:
                rows = sum(line["account"]["rows"] for line in self._lines)
                log.info("%s rows were read before this run", f"{rows:,}")
        self._known = Counter(line["unit"] for line in self._lines)
        self.unit = max(self._known, default=0)

    def __enter__(self) -> Journal:
        if self.path is not None:
            self._file = self.path.open("w", encoding="utf-8")
            self._write({"key": self.key})
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()
        if error[0] is None and self.path is not None:
            self.path.unlink(missing_ok=True)

    def known(self, unit: int) -> int:
        """How many chunks of a unit there are."""
        return self._known[unit]

    def of(self, unit: int) -> Iterator[Chunk]:
        """These; asked for one unit after the other."""
        for _ in range(self._known[unit]):
            yield next(self._left)

    def add(self, unit: int, chunk: Chunk) -> None:
        """Note a chunk whose rows are written."""
        if self._file is not None:
            scores = {
                name: [None if value != value else value for value in chunk.rows.column(name).to_pylist()]
                for name in chunk.rows.schema.names
                if name.startswith((SURE, UNSURE))
            }
            rows = {"count": chunk.rows.num_rows, "digest": _digest(chunk.rows, chunk.originals), "scores": scores}
            self._write({"unit": unit, **rows, "account": chunk.account.plain()})

    def _write(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _sound(path: Path, key: str) -> list[dict[str, Any]]:
    """The lines of a journal, if it is one of the same units; the last may be cut."""
    found: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    return found[1:] if found and found[0].get("key") == key else []


def _chunks(folder: Path, lines: list[dict[str, Any]]) -> Iterator[Chunk]:
    """The chunks of the lines, of which those are taken away whose rows are not there as they were written."""
    whole = 0
    for line, rows, originals in zip(lines, _rows(folder, lines), _originals(folder, lines)):
        if rows is None or originals is None or _digest(rows, originals) != line["digest"]:
            break
        whole += 1
    del lines[whole:]
    pairs = zip(lines, _rows(folder, lines), _originals(folder, lines))
    return (
        _chunk(line, rows, originals) for line, rows, originals in pairs if rows is not None and originals is not None
    )


def _chunk(line: dict[str, Any], rows: RecordBatch, originals: Originals) -> Chunk:
    import pyarrow as pa

    account = Account.of(line["account"])
    numbers = pa.array(np.full(rows.num_rows, account.rows, np.int64))
    columns = {ROW: numbers, **{name: rows.column(name) for name in ("id", "messages", "source")}}
    for name, values in line["scores"].items():
        columns[name] = pa.array([np.nan if value is None else value for value in values], pa.float64())
    return Chunk(pa.record_batch(list(columns.values()), list(columns)), originals, account)


def _rows(folder: Path, lines: Sequence[dict[str, Any]]) -> Iterator[RecordBatch | None]:
    """The rows of each line, one batch each; None from where they end on."""
    import pyarrow as pa

    found = left_of(folder, "rows")
    for line in lines:
        parts, missing = [], line["count"]
        while missing > 0 and (batch := next(found, None)) is not None:
            parts.append(batch)
            missing -= batch.num_rows
        if missing:
            yield None
        else:
            yield pa.concat_batches(parts) if parts else pa.RecordBatch.from_pylist([], row_schema())


def _originals(folder: Path, lines: Sequence[dict[str, Any]]) -> Iterator[Originals | None]:
    """The same of the rows as they stood."""
    found = map(Originals.unpack, left_of(folder, "originals"))
    for line in lines:
        yield next(found, None) if line["count"] else Originals.of_texts([])


def _digest(rows: RecordBatch, originals: Originals) -> str:
    """A digest of rows and their originals; ids are left out, as they are told apart when they are written."""
    found = Fingerprint()
    found.add(rows.select(["messages", "source"]))
    found.feed("originals", originals.content)
    return found.hexdigest()
