"""Scores that are already in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.batches import ROWS, keys_of
from dsel.constraints import Text
from dsel.data.folder import files_of
from dsel.data.reader import read_rows
from dsel.errors import ConfigError, need, need_path
from dsel.files import hashed
from dsel.pool import Pool
from dsel.scorer.base import Scorer, Scores
from dsel.shards import HERE, Map


@dataclass
class Column(Scorer):
    """The numeric column `name` of the pool's files, or of a side file.

    file: a table (JSON, JSON lines, CSV, Parquet; plain or compressed) whose column `id` says which example a row
    is about. Rows about examples that are not in the pool are passed over.
    """

    name: Text | None = None
    file: Text | None = None

    def check(self) -> None:
        need(self.name is not None, "scorer=column needs scorer.name=…, a numeric column of the pool's files")
        if self.file is not None:
            need_path(self.file, option="scorer.file")

    def extra_identity(self) -> dict[str, Any]:
        if self.file is None:
            return {}
        sha = hashlib.sha256()
        for path in files_of(Path(self.file).expanduser()):
            hashed(path, sha)
        return {"file": sha.hexdigest()[:24]}

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n]. Raises `ConfigError` when the column is missing, or not a number for some example."""
        scores = self._from_pool(pool) if self.file is None else self._from_file(pool)
        missing = np.flatnonzero(~np.isfinite(scores))
        rows = ", ".join(pool.ids[i] for i in missing[:5])
        need(not len(missing), f"scorer.name={self.name}: {len(missing)} examples have no score (ids {rows})")
        return scores

    def _from_pool(self, pool: Pool) -> Scores:
        if self.name not in pool.score_columns:
            has = ", ".join(pool.score_columns) or "no numeric columns"
            values = (json.loads(text).get(self.name) for text in pool.originals["json"])
            text = next((value for value in values if isinstance(value, str) and value.strip()), None)
            said = "" if text is None else f", and this column holds text that is no number, as {text[:40]!r}"
            raise ConfigError(f"scorer.name={self.name}: the pool has {has}{said}")
        return pool.rows.arrow(self.name).to_numpy().astype(np.float32)

    def _from_file(self, pool: Pool) -> Scores:
        """A table of keys and numbers, 16 bytes each, is held of the file, and no text."""
        keys, numbers = [np.empty(0, np.uint64)], [np.empty(0)]
        rows = self._rows()
        while some := list(islice(rows, ROWS)):
            keys.append(keys_of(_strings([name for name, _ in some])))
            numbers.append(np.array([value for _, value in some]))
        known, values = np.concatenate(keys), np.concatenate(numbers)
        need(len(known) > 0, f"scorer.file={self.file}: no row with an id and a number")
        order = np.argsort(known, kind="stable")
        known, values = known[order], values[order]
        self._need_one(known[1:][(known[1:] == known[:-1]) & (values[1:] != values[:-1])])
        found = list[Scores]()
        for batch in pool.batches(["id"]):
            wanted = keys_of(batch.column(0))
            at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            found.append(np.where(known[at] == wanted, values[at], np.nan).astype(np.float32))
        return np.concatenate([np.empty(0, np.float32), *found])

    def _rows(self) -> Iterator[tuple[str, float]]:
        """Ids and numbers of the file, of rows that have both."""
        for path in files_of(Path(str(self.file)).expanduser()):
            for row in read_rows(path):
                if not isinstance(row, dict) or row.get("id") is None:
                    continue
                need(self.name in row, f"{path}: no column {self.name}; the columns are {', '.join(sorted(row))}")
                value = _number(row[str(self.name)])
                if value == value:
                    yield str(row["id"]), value

    def _need_one(self, twice: npt.NDArray[np.uint64]) -> None:
        """Raise `ConfigError` naming the first id of a key that is there with different numbers."""
        if len(twice):
            name = next(name for name, _ in self._rows() if np.isin(keys_of(_strings([name])), twice)[0])
            raise ConfigError(f"{self.file}: two different scores for id {name}")


def _strings(names: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array([name.encode("utf-8", "backslashreplace") for name in names], pa.binary()).cast(pa.string())


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
