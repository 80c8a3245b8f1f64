"""Greedy choice by score times the weight of n-grams not seen yet: the core of GraphFilter and IterIT."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dsel.selector.arrays import Indices, check_budget, finite_scores


def tfidf(texts: Sequence[str], ngram_max: int = 3) -> Any:
    """scikit-learn's TF-IDF with its defaults, over word n-grams of 1..`ngram_max`: CSR float64[n, terms]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, ngram_max)).fit_transform(texts)


def lazy_greedy(terms: Any, scores: ArrayLike, budget: int, *, decay: float) -> Indices:
    """argmax over i of score_i * sum_j w_j terms_ij, `budget` times; then w_j *= decay for the terms of the choice.

    terms: CSR [n, m], not negative; scores [n], not negative; w starts at one. decay=0 counts each term once
    (GraphFilter: Wu et al. 2024), 0.1 is IterIT's for general data (Jia et al. 2024, method.md §4). Values only fall,
    so an old one bounds the new one and few are computed again (CELF: Leskovec et al. 2007). Ties go to the higher
    score, then to the lowest index. Returns int64[budget] in the order chosen. Raises ValueError for negative or
    non-finite scores, a decay outside [0, 1] and a budget outside 1..n.
    """
    n = terms.shape[0]
    budget = check_budget(budget, n)
    score = finite_scores(scores, n, "scores")
    if (score < 0).any():
        raise ValueError("scores must not be negative")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be between 0 and 1, not {decay}")
    starts, columns, data = terms.indptr, terms.indices, terms.data
    weight = np.ones(terms.shape[1])
    values = score * np.asarray(terms.sum(axis=1)).ravel()
    queue = [(-v, -s, i, 0) for i, (v, s) in enumerate(zip(values.tolist(), score.tolist(), strict=True))]
    heapq.heapify(queue)
    chosen: list[int] = []
    while len(chosen) < budget:
        _, negative_score, i, stamp = queue[0]
        row = slice(starts[i], starts[i + 1])
        if stamp < len(chosen):
            value = -negative_score * float(data[row] @ weight[columns[row]])
            heapq.heapreplace(queue, (-value, negative_score, i, len(chosen)))
            continue
        heapq.heappop(queue)
        chosen.append(i)
        weight[columns[row]] *= decay
    return np.array(chosen, dtype=np.int64)
