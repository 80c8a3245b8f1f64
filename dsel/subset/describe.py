"""What was chosen, beside what it was chosen from: the one table that `dsel select` ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dsel.arrays import Floats, unit_rows
from dsel.compare.comparison import distribution, lengths, ngrams
from dsel.compare.subset import Subset
from dsel.retrieval import cosines
from dsel.show import Table
from dsel.subset.choose import Chosen

SOURCES = 6  # that are shown
SAMPLE = 1000  # examples whose nearest one is looked for
COPY = 0.95  # the cosine from which on two are near-duplicates: semdedup's
BLOCK = 2**16  # rows compared with the sample at once

Row = tuple[str, ...]


def table(chosen: Chosen, name: str) -> Table:
    """How many, of which sources, how long, how much of the pool's words and clusters, how many near-duplicates.

    Beside it the same of as many that chance has chosen, and of the pool. What the selector had no need of is not
    computed for the table: clusters, vectors and quality are there where it had.
    """
    pool, indices = chosen.problem.pool, chosen.indices
    drawn = np.random.default_rng(0).permutation(len(pool))[: len(indices)].tolist()
    subsets = [Subset.of(which, pool.take(rows)) for which, rows in (("chosen", indices), ("random", drawn))]
    subsets.append(Subset.of(name, pool))
    parts = [
        [("examples", *(f"{len(each):,}" for each in subsets))],
        _sources(subsets),
        _lengths(subsets),
        [_words(*subsets), *_computed(chosen, [indices, drawn, list(range(len(pool)))])],
    ]
    rows: list[Row | None] = []
    for each in parts:
        rows += [None, *each] if rows and each else each
    return Table(rows, f"{method(chosen)}, of {name}", ("", "chosen", "as many at random", "pool"), "lrrr")


def method(chosen: Chosen) -> str:
    """The selector, and the one inside of it."""
    inner = [choice for group, choice in chosen.choices.items() if group.startswith("selector@")]
    return ", then ".join([chosen.choices["selector"], *inner])


def circumstances(chosen: Chosen) -> str:
    """With what it was chosen, and in what time."""
    study, said = chosen.problem.study, [f"seed {chosen.seed}"]
    if "embeddings" in study.computed:
        said.append(f"vectors of {chosen.choices['embedder']}")
    if study.target is not None:
        said.append(f"{len(study.target):,} target{'' if len(study.target) == 1 else 's'}")
    if "clustering" in study.computed:
        said.append(f"{len(study.clustering.centroids):,} clusters")
    if study.computed.get("quality") is not None:
        said.append(f"quality by {chosen.choices['scorer']}")
    skipped = sum(chosen.problem.pool.skipped.values())
    return ", ".join([*said, *([f"{skipped:,} rows skipped"] if skipped else []), f"{chosen.seconds:.1f} s"])


def _sources(subsets: Sequence[Subset]) -> list[Row]:
    counts = [Counter(each.sources) for each in subsets]
    whole = counts[-1]
    if len(whole) < 2:
        return []
    shown = [name for name, _ in whole.most_common(SOURCES)]
    left = len(whole) - len(shown)
    return [
        ("sources", *(f"{len(count):,}" for count in counts)),
        *((f"  {name}", *(f"{count[name] / count.total():.1%}" for count in counts)) for name in shown),
        *([(f"  and {left:,} more", "", "", "")] if left else []),
    ]


def _lengths(subsets: Sequence[Subset]) -> list[Row]:
    chosen, drawn, whole = subsets
    rows = []
    for name, *values in lengths(chosen, drawn, whole):
        found = [distribution(each) for each in values]  # type: ignore[arg-type]  # the pool is there
        cells = ("–" if each is None else f"{each['median']:,.0f} ({each['mean']:,.1f})" for each in found)
        rows.append((f"{name}, median (mean)", *cells))
    return rows


def _words(chosen: Subset, drawn: Subset, whole: Subset) -> Row:
    found = ngrams(chosen.texts, drawn.texts, whole.texts)
    return ("distinct words and pairs of words", *(f"{found[which]:,}" for which in ("a", "b", "pool")))


def _computed(chosen: Chosen, subsets: Sequence[list[int]]) -> list[Row]:
    study, rows = chosen.problem.study, list[Row]()
    if "clustering" in study.computed:
        labels = study.clustering.labels
        rows.append(("clusters", *(f"{len(np.unique(labels[each])):,}" for each in subsets)))
    if (quality := study.computed.get("quality")) is not None:
        rows.append((f"quality ({chosen.choices['scorer']}), mean", *(f"{quality[e].mean():,.4g}" for e in subsets)))
    if "embeddings" in study.computed:
        vectors = np.asarray(study.embeddings)
        shares = [copies(vectors[np.unique(each)]) for each in subsets]
        rows.append((f"near-duplicates (cosine above {COPY:g})", *(f"{share:.1%}" for share in shares)))
        if study.target_embeddings is not None:
            near = np.concatenate([block.max(axis=1) for block in cosines(vectors, study.target_embeddings)])
            rows.append(("cosine to the nearest target, mean", *(f"{near[each].mean():.3f}" for each in subsets)))
    return rows


def copies(vectors: Floats) -> float:
    """The share of the rows of vectors [n, d] that have a near-duplicate among the others, in a sample of them."""
    drawn = np.sort(np.random.default_rng(0).permutation(len(vectors))[:SAMPLE])
    sample, nearest = unit_rows(vectors[drawn]), np.full(len(drawn), -1.0)
    for start in range(0, len(vectors), BLOCK):
        similar = sample @ unit_rows(vectors[start : start + BLOCK]).T
        own = np.flatnonzero((start <= drawn) & (drawn < start + BLOCK))
        similar[own, drawn[own] - start] = -1
        nearest = np.maximum(nearest, similar.max(axis=1))
    return float((nearest > COPY).mean())
