"""IterIT's greedy choice against a plain one over scikit-learn's TF-IDF, in one process.

    python -m tests.bench.bench_iterit --pool pool.parquet     # the responses of a pool
    python -m tests.bench.bench_iterit                         # made-up responses, seven in eight of them repeats

The references compute every score again for each pick: as one product of the matrix and the weights of its columns,
and to the letter of the method, with the columns of the matrix multiplied and its rows summed. "Whole" includes
TF-IDF on both sides; there the seconds of a reference are those of its two parts, each measured by itself. Ours take
a fraction of a second, so the median of five runs is given.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from dsel.data.local import Local
from dsel.ngrams import lazy_greedy, tfidf
from dsel.selector import iterit
from tests.bench.bench_selectors import Row, Run, measure, row, same

DECAY = 0.1


def plain_greedy(terms: Any, ifd: np.ndarray, budget: int) -> np.ndarray:
    weight, chosen, taken = np.ones(terms.shape[1]), [], np.zeros(len(ifd), dtype=bool)
    for _ in range(budget):
        values = ifd * (terms @ weight)
        values[taken] = -1
        i = int(values.argmax())
        chosen.append(i)
        taken[i] = True
        weight[terms.indices[terms.indptr[i] : terms.indptr[i + 1]]] *= DECAY
    return np.array(chosen)


def literal_greedy(terms: Any, ifd: np.ndarray, budget: int) -> np.ndarray:
    terms, chosen, taken = terms.copy(), [], np.zeros(len(ifd), dtype=bool)
    for _ in range(budget):
        values = ifd * np.asarray(terms.sum(axis=1)).ravel()
        values[taken] = -1
        i = int(values.argmax())
        chosen.append(i)
        taken[i] = True
        scale = np.ones(terms.shape[1])
        scale[terms.indices[terms.indptr[i] : terms.indptr[i + 1]]] = DECAY
        terms.data *= scale[terms.indices]
    return np.array(chosen)


def median(function: Callable[[], Any], runs: int = 5) -> Run:
    return sorted((measure(function) for _ in range(runs)), key=lambda run: run.seconds)[runs // 2]


def in_turn(first: Run, second: Run) -> Run:
    return Run(
        first.seconds + second.seconds,
        first.cpu_seconds + second.cpu_seconds,
        max(first.peak_mb, second.peak_mb),
        second.result,
    )


def made_up(n: int) -> list[str]:
    """Texts of about 20 words with Zipf's frequencies, an eighth of them distinct."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{w}" for w in rng.zipf(1.3, size) % 100_000) for size in 1 + rng.poisson(20, n // 8 + 1)]
    return [texts[i] for i in rng.integers(0, len(texts), n)]


def bench(pool: Path | None, n: int, budget: int) -> Iterator[Row]:
    """Rows for the first `n` responses of a pool file, with made-up IFDs between 0.2 and 1.1."""
    responses = list(Local(path=str(pool)).load().responses[:n]) if pool else made_up(n)
    ifd = np.random.default_rng(0).uniform(0.2, 1.1, len(responses))
    candidates = np.flatnonzero(ifd < 1)
    texts, scores, budget = [responses[i] for i in candidates], ifd[candidates], min(budget, len(candidates))
    iterit.greedy(responses[:99], ifd[:99], 1)  # everything is imported before the clock starts
    whole = median(lambda: iterit.greedy(responses, ifd, budget, decay=DECAY))
    ours = median(lambda: tfidf(texts))
    theirs = measure(lambda: TfidfVectorizer(ngram_range=(1, 3)).fit_transform(texts))
    (terms, rows), matrix = ours.result, theirs.result
    sums = np.abs(np.asarray(terms.sum(axis=1)).ravel()[rows] - np.asarray(matrix.sum(axis=1)).ravel()).max()
    yield row(f"TF-IDF, {len(texts)} texts, {len(set(texts))} distinct", ours, "scikit-learn", theirs,
              f"{terms.shape[1]} and {matrix.shape[1]} terms, row sums within {sums:.0e}")  # fmt: skip
    lazy = median(lambda: lazy_greedy(terms, scores, budget, decay=DECAY, rows=rows))
    for name, function in (("every score, X @ w", plain_greedy), ("every score, X scaled", literal_greedy)):
        plain = measure(lambda function=function: function(matrix, scores, budget))
        yield row(f"IterIT's greedy, budget {budget}", lazy, name, plain, same(lazy.result, plain.result))
        yield row(f"IterIT whole, budget {budget}", whole, f"scikit-learn, {name}", in_turn(theirs, plain),
                  same(whole.result, candidates[plain.result]))  # fmt: skip


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--pool", type=Path, help="a file that data=local reads (made-up responses)")
    parser.add_argument("--n", type=int, default=55_185, help="responses to use, at most")
    parser.add_argument("--budget", type=int, default=2_759)
    o = parser.parse_args()
    head = f"{'work':42}{'s':>8}{'MB':>7}   {'reference':36}{'s':>9}{'MB':>7}{'ratio':>8}   agreement"
    print(head + "\n" + "-" * len(head))
    for r in bench(o.pool, o.n, o.budget):
        print(
            f"{r.work:42}{r.seconds:8.3f}{r.peak_mb:7.0f}   {r.reference:36}{r.reference_seconds:9.2f}"
            f"{r.reference_mb:7.0f}{r.reference_seconds / r.seconds:8.1f}   {r.agreement}",
            flush=True,
        )


if __name__ == "__main__":
    main()
