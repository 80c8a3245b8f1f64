"""What an experiment asks of its data."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dsel.cache import Cache
from dsel.pool import Pool


@runtime_checkable
class Data(Protocol):
    """Where a pool comes from."""

    holdout: float  # a fraction or count kept out of the pool

    def check(self) -> None:
        """Raise `ConfigError` when it cannot be read here. Loads nothing heavy."""

    def load(self, cache: Cache | None = None) -> Pool:
        """All usable examples. Raises `ConfigError` when there is none.

        cache: where a pool that is read is kept, and found when its files and options are the same.
        """
        ...
