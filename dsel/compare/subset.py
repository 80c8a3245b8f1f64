"""Subsets as they stand in run folders and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsel.config_groups import composed, options
from dsel.configured import component
from dsel.constraints import check_types, shown
from dsel.data.formats import recognise, rename, to_messages
from dsel.data.local import Local
from dsel.data.raw import Unreadable
from dsel.data.reader import read_rows
from dsel.data.reading import BadRow, Reading
from dsel.data.unread import TextScores, scores_of
from dsel.errors import ConfigError, need, need_path
from dsel.guard import read_parquet
from dsel.lazy import Lazy, fetched, mapped
from dsel.pool import Message, Pool
from dsel.record.facts import OddRecord
from dsel.record.reader import RunFolder
from dsel.record.settings import differences, is_setting
from dsel.record.tables import SELECTION, read_table

AT_ONCE = 200_000  # examples of a pool that is read without being named: some seconds
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Subset:
    """n examples in their order, from a run folder or a file.

    sources, messages: None where nobody named or kept them. rounds: for each round of choosing, the positions of its
    choices among the n. columns: numeric columns of the file, float64[n] each, NaN for none. clusters int64[n] and
    chosen_by float64[n]: cluster and score of each, as the selector had them.
    """

    name: str
    ids: Sequence[str]
    sources: Sequence[str] | None
    messages: Sequence[list[Message]] | None
    rounds: Sequence[Indices]
    columns: Mapping[str, Doubles]
    clusters: Indices | None = None
    chosen_by: Doubles | None = None
    run: RunFolder | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(name: str, pool: Pool, *, unnamed: str | None = None) -> Subset:
        """The whole of a pool. When all its examples have the source `unnamed`, they have none."""
        sources = pool.sources
        columns = {c: pool.rows.arrow(c).to_numpy().astype(np.float64) for c in pool.score_columns}
        named = None if set(sources) == {unnamed} else sources
        return Subset(name, pool.ids, named, pool.messages, [np.arange(len(pool))], columns)

    @cached_property
    def contents(self) -> Sequence[str]:
        """What each example says, in full: equal for equal messages."""
        found = mapped(_content, self.messages or ())
        return found if isinstance(self.messages, Lazy) else list(found)

    @property
    def texts(self) -> Sequence[str]:
        return mapped(_contents_joined, self.messages or ())

    def completed(self, pool: Subset) -> Subset:
        """This with the messages that it lacks from `pool`, by id, and the sources of its examples there.

        Whatever a run called its sources, the pool's names are those that coverage is counted by. Examples are matched
        by content, or by id where there is none.
        """
        messages = self.messages
        if messages is None and pool.messages is not None:
            wanted = set(self.ids)
            places = {name: i for i, name in enumerate(pool.ids) if name in wanted}
            if wanted == places.keys():
                messages = list(fetched(pool.messages, [places[name] for name in self.ids]))
        found = replace(self, messages=messages)
        if pool.sources is None:
            return found
        keys, theirs = (found.ids, pool.ids) if messages is None else (found.contents, pool.contents)
        sources_of: dict[str, list[str]] = {key: [] for key in keys}  # an example may be in several
        for key, source in zip(theirs, pool.sources, strict=True):
            if key in sources_of:
                sources_of[key].append(source)
        sources = []
        for i, key in enumerate(keys):
            there = sources_of[key] or ["(not in the pool)"]
            own = there[0] if self.sources is None else self.sources[i]
            sources.append(own if own in there else there[0])
        return replace(found, sources=sources)


def _content(messages: Sequence[Message]) -> str:
    return json.dumps([(m["role"], m["content"]) for m in messages])


def _contents_joined(messages: Sequence[Message]) -> str:
    return "\n".join(m["content"] for m in messages)


def read(path: str | Path) -> Subset:
    """The subset in a run folder or a file; a file of a run folder stands for the run.

    Duplicates in a file are kept. Raises `ConfigError` for anything that holds no subset.
    """
    found = need_path(path, option="subset")
    folder = found if found.is_dir() else found.parent
    if (found.is_dir() or found.name in ("selection.parquet", "selected.jsonl")) and (folder / "record.json").exists():
        run = _run(folder)
        if not (folder / "selection.parquet").exists():
            error = run.facts.get("error")
            raise ConfigError(f"{path}: this run has chosen nothing ({run.status}{f': {error}' if error else ''})")
        return _selection(str(path), folder / "selection.parquet", run)
    need(found.is_file(), f"{path}: not a run folder, it has no record.json: name a run folder or a data file")
    if found.suffix == ".parquet" and set(_columns(found)) >= SELECTION.keys():
        return _selection(str(path), found, None)
    return _file(str(path), found)


def read_pool(path: str | Path | Mapping[str, str]) -> Subset:
    """The pool in a data file or folder, in files by their labels, or that of a run folder.

    Raises:
        ConfigError: there is none.
    """
    if isinstance(path, Mapping):
        return Subset.of(", ".join(path), Local(path=dict(path)).load())
    found = need_path(path, option="--pool")
    if (found / "record.json").exists():
        return Subset.of(f"the pool of {path}", _pool_of(_run(found)))
    return _file(str(path), found)


def common_pool(a: Subset, b: Subset) -> tuple[Subset | None, str]:
    """The pool that two runs chose from, loaded again, or None and why it is left out; no word where there is none."""
    if a.run is None or b.run is None or a.run.fingerprint is None or a.run.fingerprint != b.run.fingerprint:
        return None, ""
    examples = int(a.run.facts["pool"].get("examples") or 0)
    if examples > AT_ONCE:
        return None, f"the pool has {examples:,} examples, and is read where it is named: --pool {a.name}"
    try:
        return Subset.of(f"the pool of {a.name}", _pool_of(a.run)), ""
    except ConfigError as why:
        return None, f"the pool that both chose from is left out: {why}"


def _file(name: str, path: Path) -> Subset:
    # without a source column, `data=local` makes a file's name the source, which says nothing in a comparison
    return Subset.of(name, Local(path=str(path)).load(), unnamed=path.name.split(".")[0])


def _run(folder: Path) -> RunFolder:
    try:
        return RunFolder.read(folder)
    except OddRecord as why:
        raise ConfigError(f"{folder / 'record.json'}: {why}") from why


def _pool_of(run: RunFolder) -> Pool:
    """The pool of a run, loaded again as its record says. Raises `ConfigError` when that is not possible any more.

    What is built is our own configuration of the choice that the record names, with the plain values that it has.
    """
    try:
        data = component(_recorded(run), "data")
        check_types(data, "data")
        data.check()
        pool, _ = data.load().hold_out(data.holdout)
    except (TypeError, ValueError, AttributeError, OmegaConfBaseException) as error:  # a record may have anything
        raise ConfigError(f"{run.folder}: its pool cannot be loaded as its record says ({error})") from error
    same = pool.fingerprint == run.fingerprint
    need(same, f"{run.folder}: its pool is not what it was when it ran: name a file with --pool")
    return pool


def _recorded(run: RunFolder) -> DictConfig:
    """Our configuration with the data set of a run's record. Raises `ConfigError` where the record names none of ours.

    A run of a class or an option that are ours no longer has no pool to load.
    """
    choice, settings = run.choice("data"), run.part("data")
    known = choice in options("data") and isinstance(settings, Mapping)
    need(known, f"{run.folder}: its record does not say where its pool came from: name a file with --pool")
    config, _ = composed([f"data={choice}"])
    for path, value, ours in differences(OmegaConf.to_container(config.data, resolve=True), settings):
        plain = is_setting(path, value, ours)
        need(plain, f"{run.folder}: its record has data.{path}={shown(value)}, no setting: name a file with --pool")
        OmegaConf.update(config, f"data.{path}", value, merge=False)
    return config


def _selection(name: str, file: Path, run: RunFolder | None) -> Subset:
    """Each example once, even where several rounds chose it, as `selected.jsonl` has them."""
    table = read_table(file, SELECTION, needed=("round", "index", "id"))
    need(len(table) > 0, f"{file}: holds no example")
    rows: list[int] = []
    rounds: list[Indices] = []
    place: dict[int, int] = {}
    index, round_of = table["index"].to_pylist(), table["round"].to_numpy()
    for number in np.unique(round_of):
        choices = np.flatnonzero(round_of == number).tolist()
        for row in [c for c in choices if index[c] not in place]:  # a round may want an example twice
            place.setdefault(index[row], len(rows))
            rows.append(row)
        rounds.append(np.array([place[index[c]] for c in choices]))
    messages, columns = _texts(file.with_name("selected.jsonl"), len(rows), run)
    table = table.take(rows)
    clusters = None if table["cluster"].null_count else table["cluster"].to_numpy()
    scores = table["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    return Subset(
        name,
        table["id"].to_pylist(),
        ["(none)" if source is None else source for source in table["source"].to_pylist()],
        messages,
        rounds,
        columns,
        clusters=clusters,
        chosen_by=None if np.isnan(scores).all() else scores,
        run=run,
    )


def _texts(path: Path, expected: int, run: RunFolder | None) -> tuple[list[list[Message]] | None, dict[str, Doubles]]:
    """Messages and numeric columns of `selected.jsonl`, whose rows may be of several formats."""
    if not path.exists():
        return None, {}
    need(path.is_file(), f"{path}: not a file")
    settings = {} if run is None else run.part("data")
    columns, roles = _strings(settings.get("columns")), _strings(settings.get("roles"))
    named = settings.get("format") if isinstance(settings.get("format"), str) else None
    messages, scores, texts = [], [], TextScores()
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path} row {number}"
        try:
            if isinstance(row, Unreadable):
                raise BadRow(row.reason)
            ours, reading = rename(row, columns), Reading(roles)
            form = recognise(ours, where, named, tuple(columns))
            messages.append(to_messages(ours, form, reading))
        except BadRow as bad:
            raise ConfigError(f"{where}: {bad}") from bad
        scores.append(texts.of(ours, reading.read) | scores_of(ours, reading.read))
    need(len(messages) == expected, f"{path}: {len(messages)} examples, but selection.parquet names {expected}")
    names = sorted({name for row in scores for name in row if not texts.words[name]})
    return messages, {name: np.array([row.get(name, np.nan) for row in scores]) for name in names}


def _strings(recorded: Any) -> dict[str, str]:
    """A recorded mapping of names to names, or nothing where it is no such thing."""
    whole = isinstance(recorded, Mapping) and all(isinstance(name, str) for name in recorded.values())
    return dict(recorded) if whole else {}


def _columns(path: Path) -> list[str]:
    return read_parquet(path, rows=False).column_names
