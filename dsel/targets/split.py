"""Targets taken out of the pool itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from dsel.cache import Cache
from dsel.constraints import Seed, ShareOrCount, Text
from dsel.errors import need
from dsel.pool import Pool
from dsel.targets.base import Target, need_once


@dataclass
class SplitTargets:
    """A seeded part of some of the pool's sources, each a task, that is then not in the pool any more.

    sources: their names. examples: how many of each source, a fraction of it when below 1. seed: which. subtask: a
    column of the files that names them.
    """

    sources: Sequence[Text] = ()
    examples: Annotated[float, ShareOrCount()] = 24
    seed: Seed = 0
    subtask: Text | None = None

    def check(self) -> None:
        need(bool(self.sources), "targets.sources is empty: name sources of the pool, as targets.sources=[gsm8k]")
        need_once(self.sources, "targets.sources")
        need(self.examples > 0, f"targets.examples={self.examples}: wants a fraction or a count above 0")

    def take(self, pool: Pool, cache: Cache) -> tuple[Pool, Target | None]:
        sources = np.asarray(pool.sources, dtype=object)
        rng = np.random.default_rng(self.seed)
        chosen = []
        for name in self.sources:
            members = np.flatnonzero(sources == name)
            has = ", ".join(sorted(set(sources.tolist()))[:8])
            need(members.size > 0, f"targets.sources: the pool has no source {name}; it has {has}")
            count = int(self.examples) if self.examples >= 1 else max(1, round(self.examples * members.size))
            left = f"targets.examples={self.examples}: source {name} has {members.size} examples, and some must stay"
            need(count < members.size, left)
            chosen.append(np.sort(rng.permutation(members)[:count]))
        taken = np.concatenate(chosen)
        rest = np.setdiff1d(np.arange(len(pool)), taken)
        return pool.take(rest), Target.of(pool.take(taken), subtask=self.subtask)
