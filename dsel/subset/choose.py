"""Choosing and no more: the components and the code of a run, for rows in files or in a program's hands."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from dsel import config_groups
from dsel.config_groups import GROUPS
from dsel.configured import component, need_names, settings
from dsel.data.given import ROW, Given
from dsel.data.local import Local
from dsel.embedder.given import GivenVectors
from dsel.ending import explained
from dsel.errors import ConfigError, need
from dsel.experiment import Experiment, Problem
from dsel.overrides import readable
from dsel.references import refuse, refuse_overrides
from dsel.resources import closure, makers
from dsel.selector.base import Selection
from dsel.targets.given import GivenTargets
from dsel.targets.local import LocalTargets
from dsel.targets.none import NoTargets

if TYPE_CHECKING:
    from omegaconf import DictConfig

Rows = TypeVar("Rows")

USUAL = (
    "data=local",
    # Nothing is known of the rows' quality, so what can be had without: copies go, and every cluster of what is left
    # gives its share. Drawing by length (`selector=kmq`) leans on whatever is long, which in a scraped pool is noise.
    "selector=semdedup",
    # read by the selectors that need a quality; the strongest of those that need no model
    "scorer=log_length",
    "trainer=none",
    "evaluator=none",
    "tracker=none",
)
# No key, no hub, no GPU: minutes for a million rows on a laptop. TF-IDF makes vectors of a pool as a whole, hashing
# those of any text.
WITHOUT_TARGET = ("embedder=tfidf_svd", "selector@selector.then=kmeans_uniform")
WITH_TARGET = ("embedder=hashing", "selector@selector.then=nearest", "targets=local")


@dataclass(frozen=True)
class Asked:
    """What is asked for. overrides: as `dsel run` takes them, in place of what is usual."""

    budget: float
    seed: int = 0
    overrides: Sequence[str] = ()
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Chosen:
    """What was chosen: the problem with all that was computed for it, the rounds, and the choices of the groups."""

    problem: Problem
    rounds: Sequence[Selection]
    choices: Mapping[str, str]
    seed: int
    seconds: float

    @property
    def indices(self) -> list[int]:
        """Into the problem's pool, in the order chosen."""
        from dsel.record.tables import once

        return once(self.rounds).tolist()


def named(**chosen: str | None) -> list[str]:
    """The overrides that choose from groups (selector="kmq"); those of None are left to what is usual."""
    return [f"{group}={choice}" for group, choice in chosen.items() if choice is not None]


def choose(
    asked: Asked,
    *,
    files: Sequence[str] = (),
    rows: Sequence[Mapping[str, Any]] | None = None,
    target_files: Sequence[str] = (),
    target_rows: Sequence[Mapping[str, Any]] | None = None,
    embeddings: ArrayLike | None = None,
    quality: ArrayLike | None = None,
) -> Chosen:
    """Choose from `files`, or from `rows` that are at hand.

    Args:
        asked: How many, and how.
        files: Files or folders that `data=local` reads.
        rows: Rows such as it finds in files, instead of those.
        target_files, target_rows: The same of examples of what is wanted, for a choice for a target.
        embeddings: A vector for each of `rows`, [n, d], instead of the embedder's.
        quality: A number for each of `rows`, [n], higher is better, instead of the scorer's.

    Raises:
        ConfigError: when it cannot be done as asked.
    """
    from dsel import cache

    start = time.monotonic()
    for_target = bool(target_files) or target_rows is not None
    config, choices = _composed(asked, for_target=for_target)
    if files:
        config.data.path = list(files) if len(files) > 1 else files[0]
    words = "the target is given: targets= has nothing to choose, targets.task and such have"
    need(not for_target or choices["targets"] == "local", words)
    if target_files:
        config.targets.path = list(target_files) if len(target_files) > 1 else target_files[0]
    given, components = settings(config), {group: component(config, group) for group in GROUPS}
    if rows is not None:
        words = "the rows are given: data= has nothing to choose, data.columns and such have"
        components["data"] = _with_rows(Given, Local, components["data"], rows, words)
    if target_rows is not None:
        need(len(target_rows) > 0, "the target has no rows: give some examples of what is wanted")
        components["targets"] = _with_rows(GivenTargets, LocalTargets, components["targets"], target_rows, words)
    vectors = None if embeddings is None else _checked(embeddings, rows, "embeddings", 2)
    scores = None if quality is None else _checked(quality, rows, "quality", 1)
    if vectors is not None:
        components["embedder"] = GivenVectors(hashlib.sha256(vectors.tobytes()).hexdigest()[:24])
    selector = components["selector"]
    need(
        "model" not in selector.needs,
        f"selector={choices['selector']} looks at a model in training, which `dsel run selector={choices['selector']}` "
        "does",
    )
    need(
        isinstance(components["targets"], NoTargets) or "targets" in makers(selector.needs),
        f"selector={choices['selector']} looks at no target: nearest, bm25, dsir and tsds do",
    )
    need(
        "targets" not in makers(selector.needs) or not isinstance(components["targets"], NoTargets),
        f"selector={choices['selector']} chooses for a target: say which (--target FILE, or target=…)",
    )
    need(
        vectors is None or "target_embeddings" not in closure(selector.needs),
        f"embeddings: selector={choices['selector']} compares them with those of the target, which are not at hand: "
        "leave them out, or take selector=bm25 or dsir",
    )
    kept = cache.at(given.cache, given.scratch)
    experiment = Experiment(**components, budget=given.budget, seed=given.seed, cache=kept)
    experiment.check()
    problem = experiment.problem()
    for name, values in (("embeddings", vectors), ("quality", scores)):
        if values is not None:
            assert problem.pool.truth is not None
            problem.study.computed[name] = values[np.asarray(problem.pool.truth[ROW])]
    rounds = experiment.choose(problem)
    return Chosen(problem, rounds, choices, asked.seed, time.monotonic() - start)


def select(
    dataset: Rows,
    budget: float,
    *,
    selector: str | None = None,
    embedder: str | None = None,
    scorer: str | None = None,
    target: Any = None,
    embeddings: ArrayLike | None = None,
    quality: ArrayLike | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Rows:
    """Choose a subset of instruction data; what `dsel select` chooses of the same rows in a file.

    Args:
        dataset: A Hugging Face `Dataset`, a pandas `DataFrame`, or a list of mappings, in a format that `data=local`
            reads.
        budget: Rows to choose: a fraction when it is at most 1, else a count.
        selector: The method, `kmq` for instance. By default near-duplicates are left out, and of what is left every
            cluster gives its share (`semdedup`, then `kmeans_uniform`).
        embedder: What makes vectors of texts; `tfidf_svd` by default, which needs no model.
        scorer: Where the quality comes from, for the selectors that need one; by default the response's length
            (`log_length`).
        target: Examples of what a model that is trained on the subset shall be good at, as `dataset` has its own: some
            dozens are enough. By default near-duplicates are left out then too, and the others chosen that are most
            like a target by hashed words (`nearest`, `embedder=hashing`). Its columns are recognised, or named by
            `targets.columns` among the overrides.
        embeddings: A vector for each row, [n, d], where they are known; no embedder is asked then.
        quality: A number for each row, [n], higher is better, where it is known; no scorer is asked then.
        seed: Of all that is drawn.
        columns: Our name of a column → the data set's, where they are not recognised.
        overrides: All else that a run's command line may set, as in `["selector.draw=uniform", "clusterer.k=100"]`.

    Returns:
        The chosen rows, in the order chosen, as the kind of thing that `dataset` is.

    Raises:
        ConfigError: when it cannot be done as asked.
        TypeError: when `dataset` is no such thing.
    """
    given = [*named(selector=selector, embedder=embedder, scorer=scorer), *overrides]
    wanted = None if target is None else rows_of(target)
    asked = Asked(budget, seed, given, columns)
    chosen = choose(asked, rows=rows_of(dataset), target_rows=wanted, embeddings=embeddings, quality=quality)
    numbers = chosen.problem.pool.truth
    assert numbers is not None
    return taken(dataset, numbers.take(chosen.indices)[ROW][:])


def rows_of(dataset: Any) -> list[dict[str, Any]]:
    """The rows of a data set, as mappings of plain values. Raises `TypeError` for what is none."""
    if _is_frame(dataset):
        present = dataset.astype(object).where(dataset.notna(), None)
        return [_plain(row) for row in present.to_dict("records")]
    if _is_dataset(dataset):
        return list(dataset.with_format(None))
    sequence = isinstance(dataset, Sequence) and not isinstance(dataset, (str, bytes))
    rows: list[Any] = list(dataset) if sequence else [dataset]
    if not sequence or not all(isinstance(row, Mapping) for row in rows):
        kind = type(dataset).__name__
        raise TypeError(f"a Dataset (one split), a DataFrame or a list of mappings is wanted, not this {kind}")
    return [dict(row) for row in rows]


def taken(dataset: Any, rows: Sequence[int]) -> Any:
    """The rows of a data set of these numbers, as such a data set."""
    if _is_frame(dataset):
        return dataset.iloc[list(rows)]
    return dataset.select(rows) if _is_dataset(dataset) else [dataset[i] for i in rows]


def _is_frame(dataset: Any) -> bool:
    return hasattr(dataset, "iloc") and hasattr(dataset, "to_dict")


def _is_dataset(dataset: Any) -> bool:
    return hasattr(dataset, "with_format") and hasattr(dataset, "select") and hasattr(dataset, "__len__")


def _plain(value: Any) -> Any:
    """`value` with lists for the arrays that pandas makes of them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple, np.ndarray)) else value


def _composed(asked: Asked, *, for_target: bool) -> tuple[DictConfig, dict[str, str]]:
    """The configuration, and the choice of each group."""
    own = [readable(override) for override in asked.overrides]
    refuse_overrides(own)
    need_names(own)
    keys = {override.partition("=")[0].lstrip("+~") for override in own}
    usual = [*USUAL, *(WITH_TARGET if for_target or "targets" in keys else WITHOUT_TARGET)]
    usual = [override for override in usual if not _replaced(override, keys)]
    with explained():
        config, chosen = config_groups.composed([*usual, *own])
    choices = {group: str(choice) for group, choice in chosen.items()}
    refuse(config)
    for key in ("budget", "seed"):
        need(key not in keys, f"{key} is an argument of its own here")
        config[key] = getattr(asked, key)
    if asked.columns is not None:
        config.data.columns = dict(asked.columns)
    return config, choices


def _replaced(usual: str, keys: set[str]) -> bool:
    """Whether what is usual gives way: to another choice for the group, or to another selector around this one."""
    key = usual.partition("=")[0]
    return key in keys or (key.startswith("selector@") and "selector" in keys)


def _with_rows(
    given: type[Any], local: type[Any], component: Any, rows: Sequence[Mapping[str, Any]], words: str
) -> Any:
    """`rows` in place of the files of a component of the class `local`, with its options; `words` where it is none."""
    need(isinstance(component, local), words)
    options = {f.name: getattr(component, f.name) for f in fields(local) if f.name != "name"}
    return given(**options, rows=rows)


def _checked(values: ArrayLike, rows: Sequence[Any] | None, what: str, axes: int) -> npt.NDArray[np.float32]:
    """`values` as float32, when there is one for each row and all are finite. Raises `ConfigError`."""
    assert rows is not None
    try:
        found = np.ascontiguousarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: not an array of numbers ({error})") from error
    shape = " × ".join(map(str, found.shape))
    need(found.ndim == axes, f"{what}: {shape}, but {'a vector' if axes == 2 else 'a number'} for each row is wanted")
    need(len(found) == len(rows), f"{what}: {len(found)} for {len(rows)} rows")
    bad = np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(axis=1))
    need(not len(bad), f"{what}: row {bad[0] if len(bad) else 0} is not finite (one of {len(bad)})")
    return found
