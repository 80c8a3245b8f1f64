"""Subsets as they stand in run folders and files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsel.data.formats import recognise, rename, to_messages
from dsel.data.local import Local
from dsel.data.raw import Unreadable
from dsel.data.reader import read_rows
from dsel.data.reading import BadRow, Reading
from dsel.data.unread import TextScores, scores_of
from dsel.errors import ConfigError, need, need_path
from dsel.pool import Message, Pool

if TYPE_CHECKING:
    from pyarrow import Table

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

SELECTION = {"round", "index", "id", "source", "cluster", "weight", "score"}
"""The columns of `selection.parquet`."""

DATA = re.compile(r"dsel\.data\.\w+\.[A-Z]\w*")  # a record may come from anywhere: only our data components are built


@dataclass(frozen=True)
class Run:
    """What a run folder says beside its selection. `facts` are those of its record."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def fingerprint(self) -> str | None:
        return self.facts.get("pool", {}).get("fingerprint")

    def choice(self, group: str) -> str | None:
        return self.facts.get("choices", {}).get(group)

    def setting(self, name: str) -> Any:
        return self.facts.get("config", {}).get(name)

    @cached_property
    def quality(self) -> Mapping[str, float] | None:
        """The quality of every example of the pool, by id."""
        table = self._table("scores.parquet")
        return table and dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))

    @cached_property
    def clusters(self) -> Table | None:
        """A row for each cluster of the pool (see `dsel.clusterer.diagnostics.table`)."""
        return self._table("clusters.parquet")

    @property
    def sources(self) -> Counter[str] | None:
        """How many examples of the pool each source has, summed over the clusters."""
        if self.clusters is None:
            return None
        counts: Counter[str] = Counter()
        for row in self.clusters.to_pylist():
            for source, share in row["sources"]:
                counts[source] += round(share * row["size"])
        return counts

    def pool(self) -> Pool:
        """The pool, loaded again as the record says. Raises `ConfigError` when that is not possible any more."""
        from hydra.utils import instantiate

        settings = self.setting("data") or {}
        known = DATA.fullmatch(str(settings.get("_target_"))) is not None
        need(known, f"{self.folder}: its record does not say where its pool came from: name a file with --pool")
        data = instantiate(settings, _convert_="all", _recursive_=False)
        data.check()
        pool, _ = data.load().hold_out(data.holdout)
        same = pool.fingerprint == self.fingerprint
        need(same, f"{self.folder}: its pool is not what it was when it ran: name a file with --pool")
        return pool

    def _table(self, name: str) -> Table | None:
        return _parquet(self.folder / name) if (self.folder / name).exists() else None


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
    run: Run | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(name: str, pool: Pool, *, unnamed: str | None = None) -> Subset:
        """The whole of a pool. When all its examples have the source `unnamed`, they have none."""
        sources = pool.sources
        columns = {c: np.asarray(pool.rows[c], dtype=np.float64) for c in pool.score_columns}
        named = None if set(sources) == {unnamed} else sources
        return Subset(name, pool.ids, named, pool.messages, [np.arange(len(pool))], columns)

    @cached_property
    def contents(self) -> list[str]:
        """What each example says, in full: equal for equal messages."""
        return [json.dumps([(m["role"], m["content"]) for m in messages]) for messages in self.messages or ()]

    @property
    def texts(self) -> list[str]:
        return ["\n".join(m["content"] for m in messages) for messages in self.messages or ()]

    def completed(self, pool: Subset) -> Subset:
        """This with what it lacks from `pool`: the messages, by id, and the sources, by content."""
        messages, sources = self.messages, self.sources
        if messages is None and pool.messages is not None:
            places = {name: i for i, name in enumerate(pool.ids)}
            if all(name in places for name in self.ids):
                messages = [pool.messages[places[name]] for name in self.ids]
        found = replace(self, messages=messages)
        if sources is None and pool.sources is not None:
            source_of = dict(zip(pool.contents, pool.sources, strict=True))
            found = replace(found, sources=[source_of.get(c, "(not in the pool)") for c in found.contents])
        return found


def read(path: str | Path) -> Subset:
    """The subset in a run folder or a file; a file of a run folder stands for the run.

    Duplicates in a file are kept. Raises `ConfigError` for anything that holds no subset.
    """
    found = need_path(path, option="subset")
    folder = found if found.is_dir() else found.parent
    if (found.is_dir() or found.name in ("selection.parquet", "selected.jsonl")) and (folder / "record.json").exists():
        run = _run(folder)
        if not (folder / "selection.parquet").exists():
            status, error = run.facts.get("status"), run.facts.get("error")
            raise ConfigError(f"{path}: this run has chosen nothing ({status}{f': {error}' if error else ''})")
        return _selection(str(path), folder / "selection.parquet", run)
    need(found.is_file(), f"{path}: not a run folder, it has no record.json: name a run folder or a data file")
    if found.suffix == ".parquet" and set(_columns(found)) >= SELECTION:
        return _selection(str(path), found, None)
    return _file(str(path), found)


def read_pool(path: str | Path) -> Subset:
    """The pool in a data file or folder, or that of a run folder. Raises `ConfigError` when there is none."""
    found = need_path(path, option="--pool")
    if (found / "record.json").exists():
        return Subset.of(f"the pool of {path}", _run(found).pool())
    return _file(str(path), found)


def _file(name: str, path: Path) -> Subset:
    # without a source column, `data=local` makes a file's name the source, which says nothing in a comparison
    return Subset.of(name, Local(path=str(path)).load(), unnamed=path.name.split(".")[0])


def _run(folder: Path) -> Run:
    try:
        facts = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{folder / 'record.json'}: not JSON ({error})") from error
    need(isinstance(facts, dict), f"{folder / 'record.json'}: not the record of a run")
    return Run(folder, facts)


def _selection(name: str, file: Path, run: Run | None) -> Subset:
    """Each example once, even where several rounds chose it, as `selected.jsonl` has them."""
    table = _parquet(file)
    missing = sorted(SELECTION - set(table.column_names))
    need(not missing, f"{file}: not what a run writes, it has no column {', '.join(missing)}")
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
        table["source"].to_pylist(),
        messages,
        rounds,
        columns,
        clusters=clusters,
        chosen_by=None if np.isnan(scores).all() else scores,
        run=run,
    )


def _texts(path: Path, expected: int, run: Run | None) -> tuple[list[list[Message]] | None, dict[str, Doubles]]:
    """Messages and numeric columns of `selected.jsonl`, whose rows may be of several formats."""
    if not path.exists():
        return None, {}
    settings = (run and run.setting("data")) or {}
    columns, roles = settings.get("columns") or {}, settings.get("roles") or {}
    messages, scores, texts = [], [], TextScores()
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path} row {number}"
        try:
            if isinstance(row, Unreadable):
                raise BadRow(row.reason)
            ours, reading = rename(row, columns), Reading(roles)
            form = recognise(ours, where, settings.get("format"), tuple(columns))
            messages.append(to_messages(ours, form, reading))
        except BadRow as bad:
            raise ConfigError(f"{where}: {bad}") from bad
        scores.append(texts.of(ours, reading.read) | scores_of(ours, reading.read))
    need(len(messages) == expected, f"{path}: {len(messages)} examples, but selection.parquet names {expected}")
    names = sorted({name for row in scores for name in row if not texts.words[name]})
    return messages, {name: np.array([row.get(name, np.nan) for row in scores]) for name in names}


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    with _readable(path):
        return pq.read_table(path)


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    with _readable(path):
        return pq.read_schema(path).names


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:  # pyarrow reports damage as either
        raise ConfigError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
