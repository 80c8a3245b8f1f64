"""No targets."""

from __future__ import annotations

from dataclasses import dataclass

from dsel.cache import Cache
from dsel.pool import Pool
from dsel.targets.base import Target


@dataclass
class NoTargets:
    """`targets=none`: for methods that look at the pool alone."""

    def check(self) -> None:
        """Nothing can be missing."""

    def take(self, pool: Pool, cache: Cache) -> tuple[Pool, Target | None]:
        return pool, None
