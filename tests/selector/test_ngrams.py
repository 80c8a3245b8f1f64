"""N-gram coverage, lazily: the order of the published IterIT code, and of a plain greedy on anything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from dsel.selector.graphfilter import greedy
from dsel.selector.ngrams import lazy_greedy, tfidf
from tests.conftest import SHARED


def plain(terms: csr_matrix, scores: np.ndarray, budget: int, decay: float) -> list[int]:
    """All values again at each step; values this close are ties, which the higher score, then the lower index wins."""
    dense, weight, chosen = terms.toarray(), np.ones(terms.shape[1]), []
    for _ in range(budget):
        values = scores * (dense @ weight)
        values[chosen] = -1
        best = max(range(len(values)), key=lambda i: (round(values[i], 9), scores[i], -i))
        chosen.append(best)
        weight[dense[best] > 0] *= decay
    return chosen


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_lazy_is_plain(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 8))
    cells = st.sampled_from([0, 0, 0, 1, 2, 3])
    terms = np.array(data.draw(st.lists(st.lists(cells, min_size=m, max_size=m), min_size=n, max_size=n)), dtype=float)
    scores = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n)))
    decay = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    found = lazy_greedy(csr_matrix(terms), scores, n, decay=decay)
    assert found.tolist() == plain(csr_matrix(terms), scores, n, decay)


def test_order_of_the_published_iterit_code() -> None:
    golden, pool = SHARED / "golden" / "iterit_selection.json", SHARED / "data" / "alpaca_gpt4_999.json"
    if not golden.exists():
        pytest.skip("needs the golden files")
    outputs = [row["output"] for row in json.loads(pool.read_text())]
    cases = [case for case in json.loads(golden.read_text()) if case["score_type"] == "BOTH"]
    assert len(cases) == 2
    for case in cases:
        ifd = np.array(case["ifd"])
        candidates = np.flatnonzero(ifd < 1)
        terms = tfidf([outputs[i] + case["suffix"] for i in candidates])
        found = candidates[lazy_greedy(terms, ifd[candidates], case["k"], decay=case["decay"])]
        assert found.tolist() == case["selected"]


def test_a_covered_ngram_counts_no_more() -> None:
    texts = ["red green blue", "red green blue", "one two", "red green"]
    assert greedy(texts, [1, 0.9, 0.5, 1], 2).tolist() == [0, 2]


def test_when_all_is_covered_quality_decides() -> None:
    texts = ["aa bb"] * 4
    assert greedy(texts, [0.1, 0.9, 0.3, 0.5], 4).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("scores", "budget", "decay", "message"),
    [
        ([1, -1], 1, 0.0, "negative"),
        ([1, 1], 3, 0.0, "budget"),
        ([1, 1], 1, 2.0, "decay"),
        ([1, np.nan], 1, 0, "scores"),
    ],
)
def test_bad_input_is_refused(scores: list[float], budget: int, decay: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lazy_greedy(csr_matrix(np.eye(2)), scores, budget, decay=decay)
