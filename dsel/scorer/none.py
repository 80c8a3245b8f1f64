"""No quality scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dsel.errors import ConfigError
from dsel.pool import Pool
from dsel.scorer.base import Scorer
from dsel.shards import HERE, Map


@dataclass
class NoScorer(Scorer):
    """For selectors that need no quality; one that does says so before anything is computed."""

    def check(self) -> None:
        raise ConfigError("this selector needs quality scores: choose a scorer, for instance scorer=column")

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> None:
        return None
