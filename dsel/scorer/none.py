"""No quality scores."""

from __future__ import annotations

from dataclasses import dataclass

from dsel.errors import ConfigError
from dsel.pool import Pool


@dataclass
class NoScorer:
    """For selectors that need no quality; one that does says so before anything is computed."""

    def check(self) -> None:
        raise ConfigError("this selector needs quality scores: choose a scorer, for instance scorer=column")

    def score(self, pool: Pool) -> None:
        return None
