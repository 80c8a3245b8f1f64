"""All that the page of a run shows, out of its folder: facts for people to read, of which nothing is built.

A folder may be anybody's. What is no run is a `ConfigError`; a table beside the selection that is not what a run writes
is left out, with a note on the page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsel.compare.subset import Subset, read
from dsel.errors import ConfigError, need
from dsel.guard import read_parquet
from dsel.lazy import fetched, mapped
from dsel.pool import Message, excerpt
from dsel.record.reader import RunFolder
from dsel.record.tables import MAP, MAP_EXAMPLES, SELECTION, WEIGHTS, read_table

if TYPE_CHECKING:
    from pyarrow import Table

MOST = 50_000  # examples on a page: what a browser searches and draws without a pause
POINTS = 1_000_000  # of a map that is read
LETTERS = 12_000_000  # of all texts together, so that a page stays a file to send
SHORTEST, LONGEST = 300, 4000  # characters of a text
CLUSTERS, ROUNDS = 5000, 100  # at most of each
ANSWERS = {"round": "int64", "index": "int64", "answer": "string", "feedback": "float64"}  # `rounds/answers.parquet`
IFD = {"round": "int64", "index": "int64", "rank": "int64"}  # of `rounds/ifd.parquet`

Place = tuple[float, float]
"""Where an example is on the map."""


@dataclass
class Examples:
    """Columns, one value for each example on the page; the chosen come first. What is not known is None.

    source: a number in `Shown.sources`. rank: of its score in the pool, from 1. x, y: where it is on the map. round,
    order: when it was chosen, both from 1; times: how often. weight: its cluster's then. difficulty: its rank by IFD in
    its round. answer, feedback: what the model in training said to its prompt, and what that was worth, the last time.
    near, gap: of the others, the nearest chosen example on the map, and how far it is.
    """

    id: list[str]
    text: list[str | None]
    source: list[int | None]
    cluster: list[int | None]
    score: list[float | None]
    rank: list[int | None]
    x: list[float | None]
    y: list[float | None]
    round: list[int]
    order: list[int]
    times: list[int]
    weight: list[float | None]
    difficulty: list[int | None]
    answer: list[str | None]
    feedback: list[float | None]
    near: list[int | None]
    gap: list[float | None]


@dataclass
class Cluster:
    """A cluster: its members, those chosen, and its weight in each round. medoid: its number among `Examples`."""

    cluster: int
    size: int | None
    chosen: int
    quality: float | None = None
    source: str = ""
    medoid: int | None = None
    weights: list[float | None] = field(default_factory=list)


@dataclass
class Shown:
    """What is on the page. chosen: how many of the examples are, the first ones. even: an even share of the weight."""

    title: str
    facts: list[tuple[str, str]]
    notes: list[str]
    sources: list[str]
    examples: Examples
    clusters: list[Cluster]
    chosen: int
    pool: int | None
    per_round: list[int]
    even: float | None


@dataclass(frozen=True)
class _Choice:
    """An example that was chosen: `selection.parquet` of the round that chose it first."""

    index: int
    id: str
    source: str | None
    cluster: int | None
    weight: float | None
    score: float | None
    round: int
    order: int
    times: int


@dataclass(frozen=True)
class _Other:
    """An example that was not chosen."""

    id: str
    source: str | None
    text: str | None
    cluster: int | None = None
    at: Place | None = None


def gather(run: RunFolder, pool: Subset | None = None) -> Shown:
    """What the page of a run shows.

    Args:
        run: a run's folder.
        pool: what the run chose from, for the texts of what it did not choose; without it there are those on its map.

    Raises:
        ConfigError: for a run that has chosen nothing, tables of its choices that are none, another run's pool.
    """
    assert run.folder is not None
    notes: list[str] = []
    if run.status != "finished":
        reason = f": {run.facts['error']}" if run.facts.get("error") else ""
        notes.append(f"The run is not finished ({run.status}{reason}): this is what it has chosen so far.")
    subset = read(run.folder)
    if pool is not None:
        _need_pool_of(subset, pool)
    every, per_round = _choices(run.folder / "selection.parquet")
    points = _points(run, notes)
    at = {} if points is None else dict(zip(points["index"].to_pylist(), _scaled(points), strict=True))
    others = _others(points, at, {choice.index for choice in every}, subset, pool, notes)
    choices, others = _fitting(every, others, at, notes)
    weights = _weights(run, notes)
    sources, examples = _examples(run, choices, others, at, subset, notes)
    clusters = _clusters(run, examples, Counter(c.cluster for c in every if c.cluster is not None), weights, notes)
    notes += [f"Left out: {odd}." for odd in run.odd]
    k = (run.facts.get("clustering") or {}).get("k") or len(clusters)
    return Shown(
        title=_title(run, len(every)),
        facts=_facts(run, len(every)),
        notes=notes,
        sources=sources,
        examples=examples,
        clusters=clusters,
        chosen=len(choices),
        pool=run.facts["pool"].get("examples"),
        per_round=per_round,
        even=1 / k if k and weights else None,
    )


def _choices(path: Path) -> tuple[list[_Choice], list[int]]:
    """The chosen examples in their order, each once, and how many choices each round made."""
    table = read_table(path, SELECTION, needed=("round", "index", "id"))
    rows = table.take(np.argsort(table["round"].to_numpy(), kind="stable")).to_pylist()
    times, per_round = Counter(row["index"] for row in rows), Counter[int]()
    found: dict[int, _Choice] = {}
    for row in rows:
        per_round[row["round"]] += 1
        if row["index"] not in found:
            found[row["index"]] = _Choice(**row, order=per_round[row["round"]], times=times[row["index"]])
    last = min(max(per_round, default=0), ROUNDS)
    return list(found.values()), [per_round[number] for number in range(1, last + 1)]


def _fitting(
    choices: list[_Choice], others: list[_Other], at: Mapping[int, Place], notes: list[str]
) -> tuple[list[_Choice], list[_Other]]:
    """As many as a page takes: half of them chosen ones, or more where there is less of the others."""
    room = max(MOST // 2, MOST - len(others))
    if len(choices) > room:
        notes.append(f"{room:,} of {len(choices):,} chosen examples are on this page.")
        kept = {c.index for c in sorted(choices, key=lambda choice: choice.index not in at)[:room]}
        choices = [choice for choice in choices if choice.index in kept]
    if len(others) > MOST - len(choices):
        others = others[: MOST - len(choices)]
        notes.append(f"{len(others):,} of the examples that were not chosen are on this page.")
    return choices, others


def _examples(
    run: RunFolder,
    choices: Sequence[_Choice],
    others: Sequence[_Other],
    at: Mapping[int, Place],
    subset: Subset,
    notes: list[str],
) -> tuple[list[str], Examples]:
    """The names of the sources, the most frequent first, and the columns of all examples."""
    length = int(np.clip(LETTERS / max(len(choices) + len(others), 1), SHORTEST, LONGEST))
    said = dict(zip(subset.ids, subset.messages or (), strict=False))
    if not said:
        notes.append("The texts of the chosen examples are not in the run's folder (selected.jsonl).")
    quality = run.quality or {}
    ranks = _ranks(quality)
    difficulty = _noted(run, "ifd", IFD, ("round", "index"), ("rank",), notes)
    heard = _noted(run, "answers", ANSWERS, ("index",), ("answer", "feedback"), notes)
    each: list[_Choice | _Other] = [*choices, *others]
    names = [name for name, _ in Counter(e.source for e in each if e.source is not None).most_common()]
    number_of = {name: number for number, name in enumerate(names)}
    places = [*(at.get(choice.index) for choice in choices), *(other.at for other in others)]
    scores = [*(choice.score for choice in choices), *(None for _ in others)]
    answers = [heard.get((choice.index,), (None, None)) for choice in choices]
    near, gap = _nearest(places, len(choices))
    return names, Examples(
        id=[e.id for e in each],
        text=[
            *(excerpt(said[choice.id], length) if choice.id in said else None for choice in choices),
            *(_cut(other.text, length) for other in others),
        ],
        source=[None if e.source is None else number_of[e.source] for e in each],
        cluster=[e.cluster for e in each],
        score=[_finite(quality.get(e.id) if s is None else s) for e, s in zip(each, scores, strict=True)],
        rank=[ranks.get(e.id) for e in each],
        x=[None if place is None else place[0] for place in places],
        y=[None if place is None else place[1] for place in places],
        round=[choice.round for choice in choices],
        order=[choice.order for choice in choices],
        times=[choice.times for choice in choices],
        weight=[_finite(choice.weight) for choice in choices],
        difficulty=[difficulty.get((choice.round, choice.index), (None,))[0] for choice in choices],
        answer=[_cut(answer, length) for answer, _ in answers],
        feedback=[_finite(feedback) for _, feedback in answers],
        near=near,
        gap=gap,
    )


def _title(run: RunFolder, chosen: int) -> str:
    pool = run.facts["pool"]
    of = f" of {pool['examples']:,}" if pool.get("examples") else ""
    return f"{run.choice('selector') or 'A selection'}: {chosen:,}{of} examples{_named(pool.get('name'), ' of ')}"


def _facts(run: RunFolder, chosen: int) -> list[tuple[str, str]]:
    """What the head of the page says of the run."""
    found: list[tuple[str, Any]] = [("Chosen", f"{chosen:,}"), ("Rounds", len(run.facts["rounds"]))]
    found += [(group.capitalize(), run.choice(group)) for group in ("embedder", "scorer", "feedback", "model")]
    found.append(("Clusters", (run.facts.get("clustering") or {}).get("k")))
    found += [("Seed", run.seed), ("Started", run.started.partition("+")[0].replace("T", " "))]
    for name in run.tasks[:6]:
        value = run.value(name)
        found.append((name, None if value is None else f"{value:.4g}"))
    return [(label, str(value)) for label, value in found if value not in (None, "", "none", 0) or label == "Seed"]


def _named(name: str | None, before: str) -> str:
    return f"{before}{name}" if name else ""


def _need_pool_of(subset: Subset, pool: Subset) -> None:
    """The pool that was named has to be the run's, or its texts would be told of the wrong examples."""
    there = set(subset.contents).intersection(pool.contents)
    found = sum(content in there for content in subset.contents)
    total = len(subset.contents)
    need(
        not total or 2 * found >= total,
        f"--pool {pool.name}: not what this run chose from: {found} of its {total} chosen examples are in it",
    )


def _points(run: RunFolder, notes: list[str]) -> Table | None:
    """The map of the run, with the columns that say which example a point is; those that older runs lack are null."""
    import pyarrow as pa

    assert run.folder is not None
    path = run.folder / "map.parquet"
    if not path.exists():
        notes.append("There is no map: the run embedded nothing (map.parquet).")
        return None

    def usable() -> Table:
        there = set(read_parquet(path, rows=False).column_names)
        need("index" in there, f"{path}: does not say which examples its points are")
        kinds = MAP | {name: kind for name, kind in MAP_EXAMPLES.items() if name in there}
        table = read_table(path, kinds, needed=kinds.keys() - {"cluster", "source"})
        need(len(table) <= POINTS, f"{path}: {len(table):,} points are more than a run writes")
        for name in MAP_EXAMPLES.keys() - there:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
        need(bool(np.isfinite([table["x"].to_numpy(), table["y"].to_numpy()]).all()), f"{path}: points without a place")
        return table

    return _or_left_out(usable, notes)


def _others(
    points: Table | None,
    at: Mapping[int, Place],
    chosen: Collection[int],
    subset: Subset,
    pool: Subset | None,
    notes: list[str],
) -> list[_Other]:
    """What was not chosen: on the map, and of a pool that was named all the rest."""
    rows = [] if points is None else [row for row in points.to_pylist() if row["index"] not in chosen]
    names = [row["id"] or f"row {row['index']}" for row in rows]
    said = {} if pool is None else _texts(pool, set(names))
    found = [
        _Other(name, row["source"], said.get(name, row["text"]), row["cluster"], at[row["index"]])
        for name, row in zip(names, rows, strict=True)
    ]
    if any(other.text is None for other in found):
        notes.append("The texts of what was not chosen are not in the run's folder: --pool FILE shows them.")
    if pool is None and not found:
        notes.append("What was not chosen is not in the run's folder: --pool FILE, the run's pool, shows it.")
    if pool is not None:
        known, contents = set(names), set(subset.contents)
        rest = (
            i
            for i, (name, content) in enumerate(zip(pool.ids, pool.contents, strict=True))
            if name not in known and content not in contents
        )
        places = list(islice(rest, MOST + 1))  # one more than a page takes: that there are more is said
        sources = [None] * len(places) if pool.sources is None else fetched(pool.sources, places)
        texts = fetched(mapped(_excerpt, pool.messages or ()), places)
        found += map(_Other, fetched(pool.ids, places), sources, texts)
    return found


def _texts(pool: Subset, names: Collection[str]) -> dict[str, str]:
    """What the examples of these names say, in short."""
    places = [i for i, name in enumerate(pool.ids) if name in names]
    texts = fetched(mapped(_excerpt, pool.messages or ()), places)
    return dict(zip(fetched(pool.ids, places), texts, strict=True))


def _excerpt(messages: Sequence[Message]) -> str:
    return excerpt(messages, LONGEST)


def _scaled(points: Table) -> list[Place]:
    """Where the points are, in a square from -1 to 1; the unit of a map means nothing."""
    xy = np.stack([points["x"].to_numpy(), points["y"].to_numpy()])
    xy = np.round(xy / max(np.abs(xy).max(initial=0), 1e-12), 5)
    return list(zip(*xy.tolist(), strict=True))


def _nearest(places: Sequence[Place | None], chosen: int) -> tuple[list[int | None], list[float | None]]:
    """Of each example that was not chosen: the chosen one that is nearest on the map, and how far it is."""
    ours = [i for i in range(chosen) if places[i] is not None]
    theirs = [i for i in range(chosen, len(places)) if places[i] is not None]
    near: list[int | None] = [None] * (len(places) - chosen)
    gap: list[float | None] = [None] * (len(places) - chosen)
    if ours and theirs:
        from sklearn.neighbors import KDTree

        distances, found = KDTree([places[i] for i in ours]).query([places[i] for i in theirs])
        for i, distance, nearest in zip(theirs, distances[:, 0].tolist(), found[:, 0].tolist(), strict=True):
            near[i - chosen], gap[i - chosen] = ours[nearest], round(distance, 5)
    return near, gap


def _ranks(quality: Mapping[str, float]) -> dict[str, int]:
    """Of each example of the pool: one more than the number of those that are better."""
    names = [name for name, value in quality.items() if not math.isnan(value)]
    values = np.array([quality[name] for name in names])
    ranks = len(values) - np.searchsorted(np.sort(values), values, side="right") + 1
    return dict(zip(names, ranks.tolist(), strict=True))


def _noted(
    run: RunFolder, name: str, kinds: Mapping[str, str], by: Sequence[str], what: Sequence[str], notes: list[str]
) -> dict[tuple[int, ...], tuple[Any, ...]]:
    """Columns of a table of rounds by others of them; of several rows for one key the last round's."""
    table = _of_rounds(run, name, kinds, notes)
    if table is None:
        return {}
    keys, values = (zip(*(table[column].to_pylist() for column in columns), strict=True) for columns in (by, what))
    return dict(zip(keys, values, strict=True))


def _of_rounds(
    run: RunFolder, name: str, kinds: Mapping[str, str], notes: list[str], gaps: Collection[str] = ("feedback",)
) -> Table | None:
    assert run.folder is not None
    path = run.folder / "rounds" / f"{name}.parquet"
    if not path.exists():
        return None
    return _or_left_out(lambda: read_table(path, kinds, needed=kinds.keys() - set(gaps)).sort_by("round"), notes)


def _or_left_out(make: Callable[[], Table], notes: list[str]) -> Table | None:
    try:
        return make()
    except ConfigError as error:
        notes.append(f"Left out: {error}.")
        return None


def _weights(run: RunFolder, notes: list[str]) -> dict[int, list[float | None]]:
    """Cluster → its weight in each round."""
    table = _of_rounds(run, "weights", WEIGHTS, notes)
    if table is None:
        return {}
    rounds = np.unique(table["round"].to_numpy())[:ROUNDS].tolist()
    place = {number: i for i, number in enumerate(rounds)}
    weights: dict[int, list[float | None]] = {}
    for row in table.to_pylist():
        if row["round"] in place:
            weights.setdefault(row["cluster"], [None] * len(rounds))[place[row["round"]]] = _finite(row["weight"])
    return weights


def _clusters(
    run: RunFolder,
    examples: Examples,
    chosen: Mapping[int, int],
    weights: Mapping[int, list[float | None]],
    notes: list[str],
) -> list[Cluster]:
    """The clusters of the pool; those of the choices alone, where the run has no table of them. The largest first."""
    row_of = {name: row for row, name in enumerate(examples.id)}
    if run.clusters is None:
        found = [Cluster(number, None, chosen[number], weights=weights.get(number, [])) for number in chosen]
    else:
        found = []
        for row in run.clusters.to_pylist():
            medoids = row["medoids"] if isinstance(row["medoids"], list) else []
            medoid = next((row_of[m] for m in medoids if isinstance(m, str) and m in row_of), None)
            source = row["sources"][0] if row["sources"] else None
            found.append(
                Cluster(
                    row["cluster"],
                    row["size"],
                    chosen.get(row["cluster"], 0),
                    source=f"{source[0]} ({source[1]:.0%})" if source else "",
                    medoid=medoid,
                    weights=weights.get(row["cluster"], []),
                )
            )
        _add_quality(run, found)
    found.sort(key=lambda cluster: (-(cluster.size or cluster.chosen), cluster.cluster))
    if len(found) > CLUSTERS:
        notes.append(f"The {CLUSTERS:,} largest of {len(found):,} clusters are on this page.")
    return found[:CLUSTERS]


def _add_quality(run: RunFolder, clusters: Sequence[Cluster]) -> None:
    """The mean quality of each cluster, where the table of them has it."""
    assert run.folder is not None
    try:
        table = read_table(run.folder / "clusters.parquet", {"mean_quality": "float64"}, needed=())
    except ConfigError:  # an older one
        return
    for cluster, quality in zip(clusters, table["mean_quality"].to_pylist(), strict=True):
        cluster.quality = _finite(quality)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _cut(text: str | None, length: int) -> str | None:
    return text if text is None or len(text) <= length else f"{text[: length - 1]}…"
