"""What a selector is given: the pool, the budget, a generator, and everything costly on demand."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
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
from dsel.scorer.none import NoScorer

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
            self._keep(folder, "embeddings", vectors, "the embedder")

        folder = self._artifact("embed", "embeddings", self._embedding_key, build)
        return np.load(folder / "embeddings.npy", mmap_mode="r")

    def restrict(self, kept: npt.NDArray[np.int64]) -> Study:
        """The same problem over the examples at `kept` alone; what they have here (clusters, quality) stays theirs."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Study)}
        return _Part(**{**fields, "pool": self.pool.take(kept)}, whole=self, kept=kept)

    def clusters(self, k: int) -> Clustering:
        """The clusters there would be with `clusterer.k` at `k`."""
        return replace(self, clusterer=replace(self.clusterer, k=k)).clustering

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
        if isinstance(self.scorer, NoScorer):
            return None

        def build(folder: Path) -> None:
            scores = np.asarray(self.scorer.score(self.pool, folder), dtype=np.float32)
            self._keep(folder, "scores", scores, "the scorer")

        key = {"pool": self.pool.fingerprint, "scorer": identity(self.scorer)}
        return np.load(self._artifact("score", "scores", key, build) / "scores.npy")

    def quality_or_fail(self) -> npt.NDArray[np.float32]:
        """`quality`, for a method that cannot do without: `ConfigError` with `scorer=none`."""
        if self.quality is None:
            raise ConfigError("this selector needs quality scores: choose a scorer, for instance scorer=column")
        return self.quality

    @property
    def _embedding_key(self) -> dict[str, Any]:
        return {"pool": self.pool.fingerprint, "embedder": identity(self.embedder)}

    def _keep(self, folder: Path, name: str, values: npt.NDArray[np.float32], maker: str) -> None:
        """Save `values` [n, …] in place of the shards they came from; ValueError naming the examples with NaN."""
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if not len(bad):
            np.save(folder / f"{name}.npy", values)
        for shard in folder.glob("shard*"):  # bad ones too: the next run shall not find them
            shard.unlink()
        if len(bad):
            names = ", ".join(self.pool.ids[i] for i in bad[:5])
            raise ValueError(f"{maker} returned NaN or infinity for {len(bad)} examples (ids {names})")

    def _artifact(self, name: str, kind: str, key: Any, build: Callable[[Path], None]) -> Path:
        with self.stage(name) as stage:
            folder, stage.cached = self.cache.artifact(kind, key, build)
            stage.items = len(self.pool)
        if stage.cached:
            log.info("%s: reused from the cache (%s)", kind, folder.name)
        else:
            log.info("%s: computed in %.1f s (%.0f examples/s)", kind, stage.seconds, stage.per_second)
        return folder


@dataclass
class _Part(Study):
    """Some examples of a study: what was computed for the whole is cut, not computed again."""

    whole: Study
    kept: npt.NDArray[np.int64]

    @cached_property
    def embeddings(self) -> npt.NDArray[np.float32]:
        return np.asarray(self.whole.embeddings)[self.kept]

    @cached_property
    def clustering(self) -> Clustering:
        if self.clusterer is not self.whole.clusterer:
            return super().clustering
        found = self.whole.clustering
        return Clustering(found.labels[self.kept], found.centroids, found.distances[self.kept])

    @cached_property
    def quality(self) -> npt.NDArray[np.float32] | None:
        return None if self.whole.quality is None else self.whole.quality[self.kept]

    @property
    def _embedding_key(self) -> dict[str, Any]:
        return {"whole": self.whole._embedding_key, "kept": self.pool.fingerprint}
