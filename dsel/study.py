"""What a selector is given: the pool, the budget, a generator, and everything costly on demand."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.arrays import Floats, Indices
from dsel.cache import Cache
from dsel.clusterer.base import Clusterer, Clustering, sized
from dsel.component import identity
from dsel.embedder.base import Embedder
from dsel.engine.base import Engine
from dsel.engine.local import Local
from dsel.errors import ConfigError
from dsel.pool import Pool
from dsel.progress import speed
from dsel.reading import cuts, sentence
from dsel.resources import POOL, RESOURCES, clear, closure, score, target_of
from dsel.scorer.base import Scorer
from dsel.spent import counted, keep, kept
from dsel.stage import Stage, unrecorded
from dsel.targets.base import Target, Targets
from dsel.targets.none import NoTargets

log = logging.getLogger(__name__)

DIMENSIONS = 1024  # of embeddings that are yet to be made, where nobody says

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
Notes = Callable[[str, int, Columns], None]
Stages = Callable[[str], AbstractContextManager[Stage]]


def unnoted(table: str, round: int, columns: Columns) -> None:
    """Rows that no record keeps."""


@dataclass
class Study:
    """One selection problem. What `dsel.resources` lists is computed on first use, and cached on disk.

    `rng` is the run's generator: a selector draws from it and from nothing else. `stage(name)` opens a timed stage
    of the run's record, and `note(table, round, columns)` adds rows to one of the record's tables. `verify(indices,
    responses) -> bool[m]` says whether each response is right for its example, where the pool knows. `engine` has
    many examples read. `target` has the examples to choose for, of the component `targets`.
    """

    pool: Pool
    budget: int
    rng: np.random.Generator
    embedder: Embedder
    clusterer: Clusterer
    scorer: Scorer
    cache: Cache
    targets: Targets = field(default_factory=NoTargets)
    target: Target | None = None
    stage: Stages = unrecorded
    note: Notes = unnoted
    verify: Callable[[npt.NDArray[np.int64], Sequence[str]], npt.NDArray[np.bool_]] | None = None
    engine: Engine = field(default_factory=Local)

    computed: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.clusterer = sized(self.clusterer, len(self.pool))  # what clusters are known by has their number

    @property
    def embeddings(self) -> Floats:
        """float32[n, d], memory-mapped and read-only."""
        return self.resource("embeddings")

    @property
    def target_embeddings(self) -> Floats | None:
        """float32[m, d] of the targets; None with `targets=none`."""
        return self.resource("target_embeddings")

    @property
    def clustering(self) -> Clustering:
        """The clusters of the embeddings."""
        return self.resource("clustering")

    @property
    def quality(self) -> Floats | None:
        """float32[n], higher is better; None with `scorer=none`."""
        return self.resource("quality")

    @property
    def dimensions(self) -> int:
        """Columns of the embeddings: those that are cached, or what the embedder says; else 1,024. Computes nothing."""
        found = RESOURCES["embeddings"]
        here = self.cache.path(found.kind, self.key("embeddings"))
        if here.is_dir():
            with suppress(OSError, ValueError, EOFError, IndexError):  # damaged: who reads it makes it again
                return int(found.load(here).shape[1])
        return getattr(self.embedder, "dimensions", None) or DIMENSIONS

    def resource(self, name: str) -> Any:
        """A resource of `dsel.resources`, computed or found on first use; `computed` has what was asked for by now."""
        if name not in self.computed:
            self.computed[name] = self._make(name)
        return self.computed[name]

    def _make(self, name: str) -> Any:
        resource = RESOURCES[name]
        if not resource.exists(self):
            return None
        for other in resource.of:
            if other != POOL:
                self.resource(other)  # before this one's stage begins
        build = partial(resource.build, self)
        items = resource.items(self)
        return resource.load(self.artifact(resource.stage, resource.kind, self.key(name), build, items=items))

    def key(self, name: str) -> Any:
        """What a resource, or the pool, is known by in the cache."""
        if name == POOL:
            return self.pool.fingerprint
        of, groups = RESOURCES[name].of, RESOURCES[name].groups
        return {**{n: self.key(n) for n in of}, **{group: identity(getattr(self, group)) for group in groups}}

    def is_cached(self, name: str) -> bool:
        """Whether the cache has a resource. Computes nothing."""
        return self.cache.has(RESOURCES[name].kind, self.key(name))

    def restrict(self, kept: npt.NDArray[np.int64]) -> Study:
        """The same problem over the examples at `kept` alone; what they have here (clusters, quality) stays theirs."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Study) if f.init}
        verify = self.verify
        own = {
            "pool": self.pool.take(kept),
            "note": lambda table, round, columns: self.note(table, round, _in_whole(columns, kept)),
            "verify": verify and (lambda indices, responses: verify(kept[indices], responses)),
        }
        return _Part(**{**fields, **own}, whole=self, kept=kept)

    def clusters(self, k: int) -> Clustering:
        """The clusters there would be with `clusterer.k` at `k`."""
        return self.in_clusters(k).clustering

    def in_clusters(self, k: int) -> Study:
        """The same problem with `clusterer.k` at `k`."""
        clusterer: Any = self.clusterer
        return replace(self, clusterer=replace(clusterer, k=k))

    def scores(self, scorer: Scorer, pool: Pool) -> Floats:
        """What `scorer` says of the examples of `pool`: float32[n]."""
        quality, key = RESOURCES["quality"], {POOL: pool.fingerprint, "scorer": identity(scorer)}
        build = partial(score, scorer, pool, engine=self.engine)
        return quality.load(self.artifact(quality.stage, quality.kind, key, build, items=len(pool)))

    def target_or_fail(self) -> Target:
        """`target`, for a method that cannot do without: `ConfigError` with `targets=none`."""
        return target_of(self)

    def quality_or_fail(self) -> npt.NDArray[np.float32]:
        """`quality`, for a method that cannot do without: `ConfigError` with `scorer=none`."""
        if self.quality is None:
            raise ConfigError("this selector needs quality scores: choose a scorer, for instance scorer=column")
        return self.quality

    def artifact(
        self, name: str, kind: str, key: Any, build: Callable[[Path], None], *, items: int | None = None
    ) -> Path:
        """The folder of something costly, computed now or found: the stage `name` of the run, over `items` examples.

        What was not read of their texts is said and recorded in either case, and so is what it cost to make.
        """

        def whole(folder: Path) -> None:
            with counted() as spent:
                build(folder)
            keep(spent, folder)
            clear(folder)

        with self.stage(name) as stage:
            folder, stage.cached = self.cache.artifact(kind, key, whole, lease=True)
            stage.items = len(self.pool) if items is None else items
            stage.cut, stage.artifact, stage.spent = cuts(folder), f"{kind}/{folder.name}", kept(folder)
        if stage.cached:
            log.info("%s: reused from the cache (%s)", kind, folder.name)
        else:
            log.info("%s: computed in %.1f s (%s)", kind, stage.seconds, speed(stage.per_second, "examples"))
        for cut in stage.cut:
            log.warning("%s", sentence(cut))
        return folder


def _in_whole(columns: Columns, kept: npt.NDArray[np.int64]) -> Columns:
    return {**columns, "index": kept[np.asarray(columns["index"])]} if "index" in columns else columns


@dataclass(kw_only=True)
class _Part(Study):
    """Some examples of a study: what was computed for the whole is cut, not computed again."""

    whole: Study
    kept: Indices

    def _make(self, name: str) -> Any:
        if not self._has_part(name):
            return super()._make(name)
        found = self.whole.resource(name)
        return None if found is None else RESOURCES[name].part(found, self.kept)

    def key(self, name: str) -> Any:
        if name == POOL or not self._has_part(name):
            return super().key(name)
        return {"whole": self.whole.key(name), "kept": self.pool.fingerprint}

    def _has_part(self, name: str) -> bool:
        """Whether a resource is made with the components that the whole study has."""
        makers = [group for each in closure([name]) for group in RESOURCES[each].groups]
        return all(getattr(self, group) is getattr(self.whole, group) for group in makers)
