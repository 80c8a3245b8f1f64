"""Greedy choice by score times the weight of n-grams not seen yet: the core of GraphFilter and IterIT."""

from __future__ import annotations

import heapq
from array import array
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Indices, check_budget, check_indices, finite_scores
from dsel.progress import progress, tracked
from dsel.words import words


def tfidf(texts: Sequence[str], ngram_max: int = 3, *, smooth: bool = True) -> tuple[Any, Indices]:
    """scikit-learn's TF-IDF with its defaults, over word n-grams of 1..`ngram_max`, each distinct text once.

    Words are scikit-learn's too, but for languages without spaces between them (`dsel.words`). Without `smooth` it is
    TF · log(N/d) and no more: counts in the text times the logarithm of how many texts there are to each text that has
    the n-gram, and rows of any length.

    Returns (CSR float64[distinct texts, terms], int64[n], the row of each text): `terms[rows]` is what
    `TfidfVectorizer(ngram_range=(1, ngram_max)).fit_transform(texts)` returns but for the order of the columns, to
    the last bit: within a row, terms come in scikit-learn's order. A text without words is a row of zeros.
    n-grams are never strings, and memory is about 110 bytes for each word of the distinct texts while it is made.
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.sparsefuncs_fast import inplace_csr_row_normalize_l2

    seen: dict[str, int] = {}
    rows = np.fromiter((seen.setdefault(text, len(seen)) for text in texts), np.int64, len(texts))
    with progress("n-grams of the texts", total=None, unit=""):
        columns, starts = _ngrams(seen, ngram_max)
        shape = (len(seen), int(columns.max(initial=-1)) + 1)
        terms = csr_matrix((np.ones(len(columns)), columns, starts), shape=shape)
        terms.sum_duplicates()
    copies = np.repeat(np.bincount(rows, minlength=len(seen)).astype(float), np.diff(terms.indptr))
    frequency = np.bincount(terms.indices, copies, minlength=shape[1])
    idf = np.log((len(texts) + 1) / (frequency + 1)) + 1 if smooth else np.log(len(texts) / frequency)
    terms.data *= idf[terms.indices]
    if smooth:
        inplace_csr_row_normalize_l2(terms)
    return terms, rows


def _ngrams(texts: Collection[str], ngram_max: int) -> tuple[NDArray[np.integer], Indices]:
    """A number for every n-gram of every text, by text, then n, then position; and where the texts start and end.

    Equal n-grams have equal numbers: 0, 1, 2 … in the order of their first use.
    """
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    numbers, counts = array("i"), []
    for text in tracked(texts, "words of the texts", total=len(texts), unit="texts"):
        found = words(text.lower())
        numbers.extend(map(vocabulary.__getitem__, found))
        counts.append(len(found))
    word, lengths = np.array(numbers, dtype=np.int32), np.array(counts, dtype=np.int64)
    per_n = [np.maximum(lengths - n, 0) for n in range(ngram_max)]  # of each text: words, pairs, triples …
    starts = np.append(0, np.cumsum(np.sum(per_n, axis=0)))
    small = np.int32 if starts[-1] < 2**31 else np.int64
    grams = np.empty(starts[-1], dtype=small)
    place, gram, used = starts[:-1], word, 0
    for n, counts_n in enumerate(per_n):
        if n:
            # An n-gram is an (n-1)-gram and the word after it: two numbers that make one.
            shorter = gram[_ranges(_starts(per_n[n - 1]), counts_n)].astype(np.int64)
            after = word[_ranges(_starts(lengths) + n, counts_n)]
            gram = np.unique(shorter * len(vocabulary) + after, return_inverse=True)[1]
        grams[_ranges(place, counts_n)] = gram + used
        place, used = place + counts_n, used + int(gram.max(initial=-1)) + 1
    first = np.full(used, len(grams))
    np.minimum.at(first, grams, np.arange(len(grams)))
    number = np.empty(used, dtype=small)
    number[np.argsort(first)] = np.arange(used)
    return number[grams], starts


def _starts(counts: Indices) -> Indices:
    return np.cumsum(counts) - counts


def _ranges(starts: Indices, counts: Indices) -> Indices:
    """The integers from each start on, as many as its count says, one run after the other."""
    return np.arange(counts.sum()) + np.repeat(starts - _starts(counts), counts)


def lazy_greedy(terms: Any, scores: ArrayLike, budget: int, *, decay: float, rows: ArrayLike | None = None) -> Indices:
    """argmax over i of score_i * sum_j w_j terms_ij, `budget` times; then w_j *= decay for the terms of the choice.

    terms: CSR [m, terms], not negative; scores [n], not negative; rows [n]: the row of `terms` that each candidate
    has (its own where not given), so that equal candidates share one; w starts at one. decay=0 counts each term once
    (GraphFilter: Wu et al. 2024), 0.1 is IterIT's for general data (Jia et al. 2024). Values only fall,
    so an old one bounds the new one and few are computed again (CELF: Leskovec et al. 2007); of the candidates with
    one row only the best left is in the queue. Ties go to the higher score, then to the lowest index. Returns
    int64[budget] in the order chosen. Raises ValueError for negative or non-finite scores, a decay outside [0, 1], a
    budget outside 1..n and rows that `terms` does not have.
    """
    row_of = np.arange(terms.shape[0]) if rows is None else check_indices(rows, terms.shape[0], "rows")
    n = len(row_of)
    budget = check_budget(budget, n)
    score = finite_scores(scores, n, "scores")
    if (score < 0).any():
        raise ValueError("scores must not be negative")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be between 0 and 1, not {decay}")
    # With indices of NumPy's own type, gathering the weights of a row takes a third of the time.
    starts, columns, data = terms.indptr.tolist(), terms.indices.astype(np.intp), terms.data
    weight = np.ones(terms.shape[1])
    sums = np.asarray(terms.sum(axis=1)).ravel().tolist()  # of each row, or what it was: never less than it is
    members = np.bincount(row_of, minlength=terms.shape[0])
    best, used = _starts(members).tolist(), np.flatnonzero(members).tolist()
    ends, points = np.cumsum(members).tolist(), score.tolist()
    ranked = np.lexsort((-score, row_of)).tolist()  # by row; ranked[best[r]] is the best left of those with row r
    heads = ((ranked[best[r]], r) for r in used)
    queue = [(-points[i] * sums[r], -points[i], i, r, 0) for i, r in heads]
    heapq.heapify(queue)
    chosen: list[int] = []
    for taken in tracked(range(budget), "choosing by n-grams", total=budget, unit="examples"):
        while True:
            _, negative_score, i, r, stamp = queue[0]
            row = slice(starts[r], starts[r + 1])
            if stamp == taken:
                break
            sums[r] = float(data[row].dot(weight[columns[row]]))
            heapq.heapreplace(queue, (negative_score * sums[r], negative_score, i, r, taken))
        chosen.append(i)
        weight[columns[row]] *= decay
        sums[r] *= decay * (1 + 1e-9)  # a little more than it is, however the new sum is rounded
        best[r] += 1
        if best[r] < ends[r]:
            j = ranked[best[r]]
            heapq.heapreplace(queue, (-points[j] * sums[r], -points[j], j, r, 0))
        else:
            heapq.heappop(queue)
    return np.array(chosen, dtype=np.int64)
