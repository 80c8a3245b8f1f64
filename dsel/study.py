"""What a selector is given: the pool, the budget, a generator, and everything costly on demand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.cache import Cache
from dsel.clusterer.base import Clustering
from dsel.component import identity
from dsel.errors import ConfigError
from dsel.pool import Pool
from dsel.record import Stage

log = logging.getLogger(__name__)


@dataclass
class Study:
    """One selection problem. Embeddings, clustering and quality are computed on first use, and cached on disk.

    `rng` is the run's generator: a selector draws from it and from nothing else. `stage(name)` opens a timed stage
    of the run's record.
    """

    pool: Pool
    budget: int
    rng: np.random.Generator
    embedder: Any
    clusterer: Any
    scorer: Any
    cache: Cache
    stage: Callable[[str], AbstractContextManager[Stage]]

    @cached_property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """float32[n, d], memory-mapped and read-only."""

        def build(folder: Path) -> None:
            vectors = self.embedder.embed(self.pool.texts, folder)
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if len(bad):
                names = ", ".join(self.pool.ids[i] for i in bad[:5])
                raise ValueError(f"the embedder returned NaN or infinity for {len(bad)} examples (ids {names})")
            np.save(folder / "embeddings.npy", vectors)
            for shard in folder.glob("shard*"):
                shard.unlink()

        folder = self._artifact("embed", "embeddings", self._embedding_key, build)
        return np.load(folder / "embeddings.npy", mmap_mode="r")

    @cached_property
    def clustering(self) -> Clustering:
        """The clusters of the embeddings."""
        embeddings = self.embeddings

        def build(folder: Path) -> None:
            self.clusterer.cluster(np.asarray(embeddings)).save(folder)

        key = {"embeddings": self._embedding_key, "clusterer": identity(self.clusterer)}
        return Clustering.load(self._artifact("cluster", "clusterings", key, build))

    @cached_property
    def quality(self) -> npt.NDArray[np.float32] | None:
        """float32[n], higher is better; None with `scorer=none`."""
        with self.stage("score") as stage:
            stage.items = len(self.pool)
            return self.scorer.score(self.pool)

    def quality_or_fail(self) -> npt.NDArray[np.float32]:
        """`quality`, for a method that cannot do without: `ConfigError` with `scorer=none`."""
        if self.quality is None:
            raise ConfigError("this selector needs quality scores: choose a scorer, for instance scorer=column")
        return self.quality

    @property
    def _embedding_key(self) -> dict[str, Any]:
        return {"pool": self.pool.fingerprint, "embedder": identity(self.embedder)}

    def _artifact(self, name: str, kind: str, key: Any, build: Callable[[Path], None]) -> Path:
        with self.stage(name) as stage:
            folder, stage.cached = self.cache.artifact(kind, key, build)
            stage.items = len(self.pool)
        if stage.cached:
            log.info("%s: reused from the cache (%s)", kind, folder.name)
        else:
            log.info("%s: computed in %.1f s (%.0f examples/s)", kind, stage.seconds, stage.per_second)
        return folder
