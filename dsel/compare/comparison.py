"""The comparison of two subsets, as plain values.

Overlap is counted over distinct examples; composition and distributions over all rows, as a trainer would see them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dsel.compare.subset import Doubles, Indices, Subset
from dsel.record.reader import RunFolder
from dsel.words import count_words

SHOWN = 80  # characters of a prompt or response


def compare(
    a: Subset, b: Subset, pool: Subset | None = None, *, examples: int = 5, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """All that `python -m dsel.compare` shows, ready for JSON; what is not known is None, and `notes` say why.

    pool: what coverage is measured against, where its examples are at hand; else it is what the run folders say of
    the pool they share. Two examples are the same when they have the same id and come from runs on the same pool
    (its fingerprint), else when they have the same messages. examples: how many to list of those only in one.
    notes: what is already known to be said.
    """
    notes = [*notes, *_unfinished(a, b)]
    if pool is not None:
        a, b = a.completed(pool), b.completed(pool)
        notes += _strangers(a, pool, "A") + _strangers(b, pool, "B")
    home = _home(a, b)
    by = "id" if _same_pool(a, b) or a.messages is None or b.messages is None else "content"
    if by == "id" and not _same_pool(a, b):
        notes.append("compared by id, as one of them comes without its text: nothing says their pools are the same")
    keys_a, keys_b = (s.ids if by == "id" else s.contents for s in (a, b))
    first_a, first_b = _first(keys_a), _first(keys_b)
    only_a = np.array([i for key, i in first_a.items() if key not in first_b], dtype=np.int64)
    only_b = np.array([i for key, i in first_b.items() if key not in first_a], dtype=np.int64)

    shared = overlap(first_a, first_b)
    named = None if home is None or not home.facts["pool"].get("examples") else home.facts["pool"]
    shared["by_chance"] = len(first_a) * len(first_b) / named["examples"] if named and _same_pool(a, b) else None
    quality = measures(a, b, pool)
    if not quality and any(s.run is not None and s.run.quality is not None for s in (a, b)):
        notes.append("quality is not compared: no scorer judged both")
    score, of_a, of_b, _ = quality[0] if quality else ("score", a.chosen_by, b.chosen_by, None)
    if pool is not None:
        named = {"name": pool.name, "examples": len(pool)}
    result = {
        "a": _facts(a, len(first_a)),
        "b": _facts(b, len(first_b)),
        "pool": named and {fact: named.get(fact) for fact in ("name", "examples")},
        "same_by": by,
        "overlap": shared,
        "sources": _sources(a, b, pool, home, notes),
        "clusters": _clusters(a, b, notes),
        "ngrams": _ngrams(a, b, pool, notes),
        "distributions": [contrast(*values, only_a, only_b) for values in quality + lengths(a, b, pool)],
        "rounds": rounds(a, b, keys_a, keys_b),
        "score": score,
        "only_a": _listed(a, only_a, of_a, examples),
        "only_b": _listed(b, only_b, of_b, examples),
        "notes": notes,
    }
    notes += [f"left out {line}" for run in (a.run, b.run) if run is not None for line in run.odd]
    return result


def overlap(a: Iterable[Hashable], b: Iterable[Hashable]) -> dict[str, Any]:
    """How many distinct examples two subsets that are not empty share, as count, share of each and Jaccard index."""
    a, b = set(a), set(b)
    both = len(a & b)
    return {"both": both, "share_of_a": both / len(a), "share_of_b": both / len(b), "jaccard": both / len(a | b)}


def composition(a: Sequence[Any], b: Sequence[Any], pool: Mapping[Any, int] | None = None) -> dict[str, Any]:
    """How two subsets are made up of groups; a, b: the group of each example; pool: the size of each group there.

    `rows` has a row for each group, those that differ most first: counts, shares, and the difference of the shares in
    percentage points, A minus B. `total_variation` is half the sum of the absolute differences of shares, between 0
    (the same) and 1 (nothing in common). `entropy` is in bits. `covered` counts the groups that are there, of the
    pool's when it is known.
    """
    from scipy.stats import entropy

    counts = {"a": Counter(a), "b": Counter(b)}
    if pool is not None and any(size > 0 for size in pool.values()):
        counts["pool"] = Counter({name: size for name, size in pool.items() if size > 0})
    names = sorted(set().union(*counts.values()))
    share = {w: np.array([c[name] for name in names]) / c.total() for w, c in counts.items()}
    points = np.round(100 * (share["a"] - share["b"]), 9)
    rows = []
    for i in np.argsort(-abs(points), kind="stable"):
        row = {"name": names[i], "points": float(points[i])}
        for which, count in counts.items():
            row |= {which: count[names[i]], f"share_{which}": float(share[which][i])}
        rows.append(row)
    pairs = [("a", "b"), ("a", "pool"), ("b", "pool")]
    return {
        "rows": rows,
        "total_variation": {
            f"{x}_{y}": float(abs(share[x] - share[y]).sum() / 2) if y in share else None for x, y in pairs
        },
        "entropy": {which: float(entropy(s, base=2)) for which, s in share.items()},
        "covered": {which: len(c.keys() & counts.get("pool", c).keys()) for which, c in counts.items()},
    }


def contrast(
    name: str, a: ArrayLike, b: ArrayLike, pool: ArrayLike | None, only_a: Indices, only_b: Indices
) -> dict[str, Any]:
    """The distributions of a value over the rows of A [n], of B [m] and of the pool; NaN: not known.

    `difference` is mean A minus mean B. `p` is that of the two-sided Mann-Whitney test between the examples only in A
    and those only in B (their rows are `only_a` and `only_b`), because what both share would make the samples depend
    on each other; `above` is the chance that one of A's own has the higher value than one of B's own, ties counting
    half. Both are None when one of them has none of its own.
    """
    from scipy.stats import mannwhitneyu

    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    own, other = (v[rows][np.isfinite(v[rows])] for v, rows in ((x, only_a), (y, only_b)))
    of_a, of_b = distribution(x), distribution(y)
    out = {"name": name, "a": of_a, "b": of_b, "pool": None if pool is None else distribution(pool)}
    out["difference"] = None if of_a is None or of_b is None else of_a["mean"] - of_b["mean"]
    if not len(own) or not len(other):
        return {**out, "p": None, "above": None}
    test = mannwhitneyu(own, other, alternative="two-sided")
    return {**out, "p": float(test.pvalue), "above": float(test.statistic / (len(own) * len(other)))}


def distribution(values: ArrayLike) -> dict[str, Any] | None:
    """Count, mean and quartiles of the values that are finite; None when there are none."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    lower, median, upper = (float(q) for q in np.quantile(known, [0.25, 0.5, 0.75]))
    mean = float(known.mean())
    return {"n": len(known), "mean": mean, "lower_quartile": lower, "median": median, "upper_quartile": upper}


Measure = tuple[str, Doubles, Doubles, "Doubles | None"]
"""A name, and the value of each example of A, of B and of the pool."""


def measures(a: Subset, b: Subset, pool: Subset | None) -> list[Measure]:
    """The qualities that are known of both, under the same scorer.

    A run's scores are of its whole pool, so that one run's scorer also judges the other's choice from that pool. Then
    the numeric columns that both came with; and when there is neither, the scores that both were chosen by.
    """
    found: dict[str, Measure] = {}
    judged: list[Any] = []
    for run in (a.run, b.run):
        if run is None or run.quality is None or run.setting("scorer") in judged:
            continue
        x, y = _under(run, a), _under(run, b)
        if x is not None and y is not None:
            judged.append(run.setting("scorer"))
            name = _scorer(run) if _scorer(run) not in found else f"{_scorer(run)} (of B)"
            whole = np.array(list(run.quality.values()), dtype=np.float64) if _same_pool(a, b) else None
            found[name] = (name, x, y, whole)
    for column in sorted(a.columns.keys() & b.columns.keys() - found.keys()):
        whole = None if pool is None else pool.columns.get(column)
        found[column] = (column, a.columns[column], b.columns[column], whole)
    if not found and a.chosen_by is not None and b.chosen_by is not None:
        methods = [s.run and (s.run.choice("selector"), s.run.setting("scorer")) for s in (a, b)]
        if methods[0] == methods[1]:
            found["score"] = ("score", a.chosen_by, b.chosen_by, None)
    return list(found.values())


def lengths(a: Subset, b: Subset, pool: Subset | None) -> list[Measure]:
    """Words (what white space separates) before and in the last response, and the number of responses."""
    if a.messages is None or b.messages is None:
        return []
    of_a, of_b = _lengths(a), _lengths(b)
    whole = {} if pool is None else _lengths(pool)
    return [(name, of_a[name], of_b[name], whole.get(name)) for name in of_a]


def rounds(a: Subset, b: Subset, keys_a: Sequence[str], keys_b: Sequence[str]) -> list[dict[str, Any]]:
    """For each round of two selections of which one has several: its distinct examples, how many of them the other
    chose at any time, how many both chose in this round, and what both had chosen by then. None: no such round."""
    if max(len(a.rounds), len(b.rounds)) == 1:
        return []
    sets_a, sets_b = ([{keys[i] for i in r} for r in s.rounds] for s, keys in ((a, keys_a), (b, keys_b)))
    all_a, all_b = set(keys_a), set(keys_b)
    out = []
    for r in range(max(len(sets_a), len(sets_b))):
        x, y = (sets[r] if r < len(sets) else None for sets in (sets_a, sets_b))
        so_far = overlap(*(set().union(*sets[: r + 1]) for sets in (sets_a, sets_b)))
        out.append(
            {
                "round": r + 1,
                "a": x and len(x),
                "a_in_b": x and len(x & all_b),
                "b": y and len(y),
                "b_in_a": y and len(y & all_a),
                "both": x and y and len(x & y),
                "both_so_far": so_far["both"],
                "jaccard_so_far": so_far["jaccard"],
            }
        )
    return out


def ngrams(a: Sequence[str], b: Sequence[str], pool: Sequence[str] | None = None) -> dict[str, Any]:
    """Distinct words and pairs of words in the texts of A, of B, of both; the pool's alone where there is one.

    Words are scikit-learn's: two or more letters or digits, in lower case. `share_a` and `share_b` are of the pool's.
    """
    from dsel.ngrams import tfidf

    terms, row_of = tfidf([*a, *b, *(pool or ())], 2)
    present = np.zeros((3, terms.shape[1]), dtype=bool)
    for which, rows in zip(present, np.split(row_of, [len(a), len(a) + len(b)]), strict=True):
        which[terms[np.unique(rows)].indices] = True
    in_a, in_b, in_pool = present
    if pool is not None:
        in_a, in_b = in_a & in_pool, in_b & in_pool
    of_a, of_b, whole = (int(which.sum()) for which in (in_a, in_b, in_pool))
    return {
        "a": of_a,
        "b": of_b,
        "both": int((in_a & in_b).sum()),
        "pool": None if pool is None else whole,
        "share_a": of_a / whole if whole else None,
        "share_b": of_b / whole if whole else None,
    }


def _same_pool(a: Subset, b: Subset) -> bool:
    prints = [s.run and s.run.fingerprint for s in (a, b)]
    return prints[0] is not None and prints[0] == prints[1]


def _home(a: Subset, b: Subset) -> RunFolder | None:
    """The run that says most of the pool that both chose from; None when they chose from different ones."""
    runs = [s.run for s in (a, b) if s.run is not None]
    if not runs or (len(runs) == 2 and not _same_pool(a, b)):
        return None
    return max(runs, key=lambda run: run.clusters is not None)


def _unfinished(a: Subset, b: Subset) -> list[str]:
    status = {which: s.run.status for which, s in (("A", a), ("B", b)) if s.run is not None}
    return [f"{which} is of a run that is not finished ({s})" for which, s in status.items() if s != "finished"]


def _strangers(subset: Subset, pool: Subset, which: str) -> list[str]:
    ours, theirs = (subset.ids, pool.ids) if subset.messages is None else (subset.contents, pool.contents)
    missing = len(set(ours).difference(theirs))
    return [f"{missing:,} of {which}'s examples are not in the pool that was named"] if missing else []


def _facts(subset: Subset, distinct: int) -> dict[str, Any]:
    run = subset.run
    facts = run and {
        "method": run.choice("selector"),
        "scorer": None if run.quality is None else _scorer(run),
        "pool": run.facts["pool"].get("name"),
        "seed": run.setting("seed"),
        "status": run.status,
        "config_digest": run.facts.get("config_digest"),
        **{f"cost of {what}": run.cost.told.get(what) for what in ("choosing", "training")},
    }
    out = {"name": subset.name, "examples": len(subset), "distinct": distinct, "rounds": len(subset.rounds)}
    return {**out, "run": facts}


def _scorer(run: RunFolder) -> str:
    """What a run's quality is called: the scorer, or the column that it read."""
    name = run.choice("scorer") or "quality"
    return str(run.part("scorer").get("name") or name) if name == "column" else name


def _under(run: RunFolder, subset: Subset) -> Doubles | None:
    """The quality of each example under the scorer of `run`; None when it was never computed."""
    own = subset.run
    if own is None:
        return None
    if own.quality is not None and own.setting("scorer") == run.setting("scorer"):
        scores = own.quality
    elif run.quality is not None and run.fingerprint is not None and own.fingerprint == run.fingerprint:
        scores = run.quality
    else:
        return None
    return np.array([scores.get(name, np.nan) for name in subset.ids], dtype=np.float64)


def _sources(
    a: Subset, b: Subset, pool: Subset | None, home: RunFolder | None, notes: list[str]
) -> dict[str, Any] | None:
    if a.sources is None or b.sources is None:
        notes.append("no sources: a file without a source column names none, unless --pool does")
        return None
    known: Mapping[str, int] | None = None
    if pool is not None:
        known = None if pool.sources is None else Counter(pool.sources)
    elif home is not None:
        known = home.sources
    return composition(a.sources, b.sources, known)


def _clusters(a: Subset, b: Subset, notes: list[str]) -> dict[str, Any] | None:
    """The composition by cluster, with each cluster's largest source."""
    if a.clusters is None or b.clusters is None:
        return None
    if not _same_clustering(a, b):
        notes.append("clusters are not compared: nothing shows that both were chosen from the same ones")
        return None
    assert a.run is not None
    table = [] if a.run.clusters is None else a.run.clusters.to_pylist()
    sizes = {row["cluster"]: row["size"] for row in table}
    out = composition(a.clusters.tolist(), b.clusters.tolist(), sizes or None)
    largest = {row["cluster"]: row["sources"][0] for row in table if row["sources"]}
    for row in out["rows"]:
        row["source"], row["share_source"] = largest.get(row["name"], (None, None))
    return out


def _same_clustering(a: Subset, b: Subset) -> bool:
    """By what the runs kept of their clusters; older runs kept nothing, there the same settings have to do."""
    if a.run is None or b.run is None or a.clusters is None or b.clusters is None or not _same_pool(a, b):
        return False
    x, y = a.run.clusters, b.run.clusters
    if x is not None and y is not None:
        own = max(a.clusters.max(), b.clusters.max()) < len(x)  # some methods choose from clusters of their own
        kept = ["cluster", "size", "medoids"]
        return bool(own and x.select(kept).equals(y.select(kept)))
    settings = [[s.run.setting(n) for n in ("embedder", "clusterer", "selector", "budget")] for s in (a, b) if s.run]
    return x is None and y is None and settings[0] == settings[1]


def _ngrams(a: Subset, b: Subset, pool: Subset | None, notes: list[str]) -> dict[str, Any] | None:
    if a.messages is None or b.messages is None:
        notes.append("no text: selection.parquet alone has none, unless --pool does")
        return None
    if pool is None:
        notes.append(
            "coverage of the pool's words needs its text: name it with --pool (a run folder stands for its pool)"
        )
    return ngrams(a.texts, b.texts, None if pool is None else pool.texts)


def _lengths(subset: Subset) -> dict[str, Doubles]:
    found = np.empty((0 if subset.messages is None else len(subset), 3), dtype=np.float64)
    for row, turns in zip(found, subset.messages or (), strict=True):
        *asked, answered = (count_words(m["content"]) for m in turns)
        row[:] = sum(asked), answered, sum(m["role"] == "assistant" for m in turns)
    return dict(zip(("words in prompt", "words in response", "turns"), found.T, strict=True))


def _first(keys: Sequence[str]) -> dict[str, int]:
    """Where each distinct key is first."""
    out: dict[str, int] = {}
    for i, key in enumerate(keys):
        out.setdefault(key, i)
    return out


def _listed(subset: Subset, rows: Indices, scores: Doubles | None, count: int) -> list[dict[str, Any]]:
    """`count` of `rows`: the highest scores first, else as they come."""
    values = np.full(len(subset), np.nan) if scores is None else scores
    order = np.argsort(np.nan_to_num(-values[rows], nan=np.inf), kind="stable")
    out = []
    for i in rows[order][:count].tolist():
        turns = [] if subset.messages is None else subset.messages[i]
        asked = next((m["content"] for m in reversed(turns[:-1]) if m["role"] == "user"), "")
        out.append(
            {
                "id": subset.ids[i],
                "source": None if subset.sources is None else subset.sources[i],
                "score": None if np.isnan(values[i]) else float(values[i]),
                "prompt": _start(asked),
                "response": _start(turns[-1]["content"] if turns else ""),
            }
        )
    return out


def _start(text: str) -> str:
    """The first characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[:SHOWN] + "…"
