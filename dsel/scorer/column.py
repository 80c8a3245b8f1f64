"""Scores that are already in the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsel.errors import need
from dsel.pool import Pool


@dataclass
class Column:
    """The numeric column `name` of the pool's files."""

    name: str | None = None

    def check(self) -> None:
        need(self.name is not None, "scorer=column needs scorer.name=…, a numeric column of the pool's files")

    def score(self, pool: Pool) -> npt.NDArray[np.float32]:
        """float32[n]. Raises `ConfigError` when the column is missing, or not a number in some row."""
        has = ", ".join(pool.score_columns) or "no numeric columns"
        need(self.name in pool.score_columns, f"scorer.name={self.name}: the pool has {has}")
        scores = np.asarray(pool.rows[self.name], dtype=np.float32)
        missing = np.flatnonzero(~np.isfinite(scores))
        rows = ", ".join(pool.ids[i] for i in missing[:5])
        need(not len(missing), f"scorer.name={self.name}: {len(missing)} examples have no score (ids {rows})")
        return scores
