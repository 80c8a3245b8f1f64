"""What a selector is given: the pool, the budget, a generator, and everything costly on demand."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
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
from dsel.reading import cuts, sentence
from dsel.scorer.none import NoScorer
from dsel.stage import Stage

log = logging.getLogger(__name__)

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]


@dataclass
class Study:
    """One selection problem. Embeddings, clustering and quality are computed on first use, and cached on disk.

    `rng` is the run's generator: a selector draws from it and from nothing else. `stage(name)` opens a timed stage
    of the run's record, and `note(table, round, columns)` adds rows to one of the record's tables. `verify(indices,
    responses) -> bool[m]` says whether each response is right for its example, where the pool knows.
    """

    pool: Pool
    budget: int
    rng: np.random.Generator
    embedder: Any
    clusterer: Any
    scorer: Any
    cache: Cache
    stage: Callable[[str], AbstractContextManager[Stage]]
    note: Callable[[str, int, Columns], None] = lambda table, round, columns: None
    verify: Callable[[npt.NDArray[np.int64], Sequence[str]], npt.NDArray[np.bool_]] | None = None

    @cached_property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """float32[n, d], memory-mapped and read-only."""

        def build(folder: Path) -> None:
            vectors = self.embedder.embed(self.pool.messages, folder)
            self._keep(folder, "embeddings", vectors, self.pool, "the embedder")

        folder = self.artifact("embed", "embeddings", self._embedding_key, build)
        return np.load(folder / "embeddings.npy", mmap_mode="r")

    def restrict(self, kept: npt.NDArray[np.int64]) -> Study:
        """The same problem over the examples at `kept` alone; what they have here (clusters, quality) stays theirs."""
        fields, verify = {f.name: getattr(self, f.name) for f in dataclasses.fields(Study)}, self.verify
        own = {
            "pool": self.pool.take(kept),
            "note": lambda table, round, columns: self.note(table, round, _in_whole(columns, kept)),
            "verify": verify and (lambda indices, responses: verify(kept[indices], responses)),
        }
        return _Part(**{**fields, **own}, whole=self, kept=kept)

    def clusters(self, k: int) -> Clustering:
        """The clusters there would be with `clusterer.k` at `k`."""
        return replace(self, clusterer=replace(self.clusterer, k=k)).clustering

    @cached_property
    def clustering(self) -> Clustering:
        """The clusters of the embeddings."""
        embeddings = self.embeddings

        def build(folder: Path) -> None:
            self.clusterer.cluster(np.asarray(embeddings)).save(folder)

        return Clustering.load(self.artifact("cluster", "clusterings", self._clustering_key, build))

    @cached_property
    def quality(self) -> npt.NDArray[np.float32] | None:
        """float32[n], higher is better; None with `scorer=none`."""
        return None if isinstance(self.scorer, NoScorer) else self.scores(self.scorer, self.pool)

    def scores(self, scorer: Any, pool: Pool) -> npt.NDArray[np.float32]:
        """What `scorer` says of the examples of `pool`: float32[n]."""

        def build(folder: Path) -> None:
            self._keep(folder, "scores", np.asarray(scorer.score(pool, folder), dtype=np.float32), pool, "the scorer")

        key = _scores_key(scorer, pool)
        return np.load(self.artifact("score", "scores", key, build, items=len(pool)) / "scores.npy")

    def quality_or_fail(self) -> npt.NDArray[np.float32]:
        """`quality`, for a method that cannot do without: `ConfigError` with `scorer=none`."""
        if self.quality is None:
            raise ConfigError("this selector needs quality scores: choose a scorer, for instance scorer=column")
        return self.quality

    def is_cached(self, name: str) -> bool:
        """Whether the cache has the `embeddings`, the `clustering` or the `quality`. Computes nothing."""
        kind, key = {
            "embeddings": lambda: ("embeddings", self._embedding_key),
            "clustering": lambda: ("clusterings", self._clustering_key),
            "quality": lambda: ("scores", _scores_key(self.scorer, self.pool)),
        }[name]()
        return self.cache.path(kind, key).is_dir()

    @property
    def _embedding_key(self) -> dict[str, Any]:
        return {"pool": self.pool.fingerprint, "embedder": identity(self.embedder)}

    @property
    def _clustering_key(self) -> dict[str, Any]:
        return {"embeddings": self._embedding_key, "clusterer": identity(self.clusterer)}

    @staticmethod
    def _keep(folder: Path, name: str, values: npt.NDArray[np.float32], pool: Pool, maker: str) -> None:
        """Save `values` [n, …]; ValueError naming the examples with NaN, whose shards no later run shall find."""
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if len(bad):
            _clear(folder)
            names = ", ".join(pool.ids[i] for i in bad[:5])
            raise ValueError(f"{maker} returned NaN or infinity for {len(bad)} examples (ids {names})")
        np.save(folder / f"{name}.npy", values)

    def artifact(
        self, name: str, kind: str, key: Any, build: Callable[[Path], None], *, items: int | None = None
    ) -> Path:
        """The folder of something costly, computed now or found: the stage `name` of the run, over `items` examples.

        What was not read of their texts is said and recorded in either case.
        """

        def whole(folder: Path) -> None:
            build(folder)
            _clear(folder)

        with self.stage(name) as stage:
            folder, stage.cached = self.cache.artifact(kind, key, whole)
            stage.items = len(self.pool) if items is None else items
            stage.cut = cuts(folder)
        if stage.cached:
            log.info("%s: reused from the cache (%s)", kind, folder.name)
        else:
            log.info("%s: computed in %.1f s (%.0f examples/s)", kind, stage.seconds, stage.per_second)
        for cut in stage.cut:
            log.warning("%s", sentence(cut))
        return folder


def _scores_key(scorer: Any, pool: Pool) -> dict[str, Any]:
    return {"pool": pool.fingerprint, "scorer": identity(scorer)}


def _clear(folder: Path) -> None:
    """Remove the shards that a killed run would have gone on from."""
    for shard in folder.glob("shard*"):
        shard.unlink()


def _in_whole(columns: Columns, kept: npt.NDArray[np.int64]) -> Columns:
    return {**columns, "index": kept[np.asarray(columns["index"])]} if "index" in columns else columns


@dataclass(kw_only=True)
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
