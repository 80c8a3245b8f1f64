"""What a selector may read of a whole pool and is costly: one entry each, with all that the program knows of it.

`Study` serves a resource, a plan costs it, an experiment checks what it is made with, and a report knows which options
it depends on, all by this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dsel.arrays import Floats, Indices
from dsel.clusterer.base import Clusterer, Clustering, clustered
from dsel.constraints import shown
from dsel.embedder.base import Embedder
from dsel.errors import ConfigError, need
from dsel.lazy import blocks
from dsel.npy import is_file, taken
from dsel.pool import Pool
from dsel.scorer.base import Scorer
from dsel.scorer.none import NoScorer
from dsel.shards import Map
from dsel.targets.base import Target, Targets
from dsel.targets.none import NoTargets

POOL = "pool"
NO_TARGETS = "this selector chooses for targets: say which, for instance targets=local targets.path=…"


class Source(Protocol):
    """What resources are made of: the pool, the components, and each other. A `Study` is one."""

    pool: Pool
    targets: Targets
    target: Target | None
    embedder: Embedder
    clusterer: Clusterer
    scorer: Scorer

    @property
    def engine(self) -> Map: ...

    @property
    def embeddings(self) -> Floats: ...


@dataclass(frozen=True)
class Resource:
    """How something is made of a pool, and where it is kept.

    Attributes:
        groups: The config groups whose components it is made with.
        of: What else it is made of, the `POOL` or other resources. Its key in the cache is what it is made of and with.
        stage: Its name among the stages of a run.
        kind: Its folder in the cache.
        build: Makes it, in a folder.
        load: Reads it from there.
        part: What some examples have of it: `part(whole, indices)`.
        exists: Whether the components make it at all; else it is None.
        items: How many examples are read for it.
        check: Raises `ConfigError` where the pool and the components do not suit each other. Loads nothing.
        trial: The same before a run, for what takes a look at a tokenizer. Loads no weights.
    """

    groups: tuple[str, ...]
    of: tuple[str, ...]
    stage: str
    kind: str
    build: Callable[[Source, Path], None]
    load: Callable[[Path], Any]
    part: Callable[[Any, Indices], Any] = lambda whole, indices: whole[indices]
    exists: Callable[[Source], bool] = lambda source: True
    items: Callable[[Source], int] = lambda source: len(source.pool)
    check: Callable[[Source], None] = lambda source: None
    trial: Callable[[Source], None] = lambda source: None


def embed(source: Source, folder: Path) -> None:
    vectors = source.embedder.embed(source.pool.messages, folder, source.engine)
    keep(folder, "embeddings", vectors, source.pool, "the embedder")


def embed_targets(source: Source, folder: Path) -> None:
    wanted = target_of(source).pool
    keep(folder, "embeddings", source.embedder.embed(wanted.messages, folder, source.engine), wanted, "the embedder")


def target_of(source: Source) -> Target:
    """The targets, for a method that cannot do without: `ConfigError` with `targets=none`."""
    if source.target is None:
        raise ConfigError(NO_TARGETS)
    return source.target


def _by_text(source: Source) -> None:
    """Raise `ConfigError` for an embedder whose vectors of targets are none of the pool's space."""
    need(
        source.embedder.by_text,
        "this embedder makes vectors of a pool as a whole, and none of targets beside it: wants another, as "
        "embedder=minilm, model2vec, hashing or rds",
    )


def cluster(source: Source, folder: Path) -> None:
    clustered(source.clusterer, np.asarray(source.embeddings), folder).save(folder)


def score(scorer: Scorer, pool: Pool, folder: Path, *, engine: Map) -> None:
    """What `scorer` says of the examples of any pool, saved in `folder`."""
    keep(folder, "scores", np.asarray(scorer.score(pool, folder, engine), dtype=np.float32), pool, "the scorer")


def _cluster_part(whole: Clustering, indices: Indices) -> Clustering:
    return Clustering(whole.labels[indices], whole.centroids, whole.distances[indices])


# In the order that they are made: a resource comes after those it is made of.
RESOURCES: dict[str, Resource] = {
    "embeddings": Resource(
        groups=("embedder",),
        of=(POOL,),
        stage="embed",
        kind="embeddings",
        build=embed,
        load=lambda folder: np.load(folder / "embeddings.npy", mmap_mode="r"),
        part=taken,
    ),
    "target_embeddings": Resource(
        groups=("embedder", "targets"),
        of=(POOL,),
        stage="embed targets",
        kind="embeddings",
        build=embed_targets,
        load=lambda folder: np.load(folder / "embeddings.npy"),
        part=lambda whole, indices: whole,
        exists=lambda source: not isinstance(source.targets, NoTargets),
        items=lambda source: len(target_of(source)),
        check=_by_text,
    ),
    "clustering": Resource(
        groups=("clusterer",),
        of=("embeddings",),
        stage="cluster",
        kind="clusterings",
        build=cluster,
        load=Clustering.load,
        part=_cluster_part,
        check=lambda source: source.clusterer.check_size(len(source.pool)),
    ),
    "quality": Resource(
        groups=("scorer",),
        of=(POOL,),
        stage="score",
        kind="scores",
        build=lambda source, folder: score(source.scorer, source.pool, folder, engine=source.engine),
        load=lambda folder: np.load(folder / "scores.npy"),
        exists=lambda source: not isinstance(source.scorer, NoScorer),
        trial=lambda source: source.scorer.try_on(source.pool),
    ),
}


def closure(needs: Iterable[str]) -> list[str]:
    """The resources among `needs`, and those that they are made of: their names, in the order they are made."""
    wanted = set(needs)
    for name in reversed(RESOURCES):
        if name in wanted:
            wanted |= set(RESOURCES[name].of)
    return [name for name in RESOURCES if name in wanted]


def need_known(needs: object, name: str) -> None:
    """Raise `ConfigError` where what a selector `needs`, a field called `name`, is no set of what there is."""
    known = [*RESOURCES, *makers(), "model"]
    fits = isinstance(needs, (frozenset, set)) and needs <= set(known)
    need(fits, f"{name}={shown(needs)}: wants a frozenset of {', '.join(known)}")


def makers(needs: Iterable[str] = RESOURCES) -> list[str]:
    """The config groups that `needs` name, or that the resources among them are made with; by default all there are."""
    used = {*needs, *(group for name in closure(needs) for group in RESOURCES[name].groups)}
    groups = dict.fromkeys(group for resource in RESOURCES.values() for group in resource.groups)
    return [group for group in groups if group in used]


def keep(folder: Path, name: str, values: npt.NDArray[Any], pool: Pool, maker: str) -> None:
    """Save `values` [n, …] if they are not in their file yet; ValueError naming examples with NaN, of which none stays.

    ConfigError for another shape than [n, d] of embeddings and [n] of scores: that is a mistake in a component's code.
    """
    shape = f"[{len(pool)}, d]" if name == "embeddings" else f"[{len(pool)}]"
    if values.shape[:1] != (len(pool),) or values.ndim != shape.count(",") + 1:
        clear(folder)
        raise ConfigError(f"{maker} returned {name} of shape {list(values.shape)}: wants {shape}, in the pool's order")
    rows = (values[part.start : part.stop].reshape(len(part), -1) for part in blocks(len(values)))
    finite = [np.isfinite(block).all(axis=1) for block in rows]
    bad = np.flatnonzero(~np.concatenate([np.empty(0, bool), *finite]))
    if len(bad):
        clear(folder)
        (folder / f"{name}.npy").unlink(missing_ok=True)
        names = ", ".join(pool.ids[i] for i in bad[:5].tolist())
        raise ValueError(f"{maker} returned NaN or infinity for {len(bad)} examples (ids {names})")
    if not is_file(values, folder / f"{name}.npy"):
        np.save(folder / f"{name}.npy", values)


def clear(folder: Path) -> None:
    """Remove the shards that a killed run would have gone on from."""
    for shard in folder.glob("shard*"):
        shard.unlink()
