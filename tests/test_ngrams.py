"""N-gram coverage, lazily, is a plain greedy's; TF-IDF over distinct texts is scikit-learn's over all."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from dsel.errors import ConfigError
from dsel.ngrams import lazy_greedy, tfidf
from dsel.selector.graphfilter import GraphFilter, greedy
from dsel.words import unspaced
from tests.conftest import checked


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
    few = data.draw(st.integers(1, n))
    rows = np.array(data.draw(st.lists(st.integers(0, few - 1), min_size=n, max_size=n)))
    found = lazy_greedy(csr_matrix(terms[:few]), scores, n, decay=decay, rows=rows)
    assert found.tolist() == plain(csr_matrix(terms[rows]), scores, n, decay)


WORDS = st.sampled_from(["red", "Red", "green", "a", "ΣΑΣ", "naïve", "snow_man", "red green", "x-ray", "한국어", "1st"])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(WORDS, max_size=9).map(" ".join) | st.text(), min_size=1, max_size=9), st.integers(1, 4))
@example(["", "  ", "a b c", "?!"], 3)
@example(["İstanbul ǅ", "one\ud800two one", "one\ud800two one", "tab\tand\nline tab\x85and"], 2)
def test_tfidf_is_scikit_learns(texts: list[str], ngram_max: int) -> None:
    assume(not any(unspaced(text) for text in texts))
    terms, rows = tfidf(texts, ngram_max)
    assert terms.shape[0] == len(set(texts))
    try:
        theirs = TfidfVectorizer(ngram_range=(1, ngram_max)).fit_transform(texts).toarray()
    except ValueError as error:
        assert "empty vocabulary" in str(error)
        theirs = np.empty((len(texts), 0))
    ours = terms.toarray()[rows]
    assert ours.shape == theirs.shape
    assert sorted(ours.T.tolist()) == sorted(theirs.T.tolist())
    np.testing.assert_allclose(ours.sum(axis=1), theirs.sum(axis=1), rtol=1e-12)


def test_tfidf_has_room_for_many_words() -> None:
    """Pairs of numbers stay apart however many words there are."""
    texts = [f"w{i} w{i * i} w{i % 7} w{i}" for i in range(20_000)]
    terms, rows = tfidf(texts)
    theirs = TfidfVectorizer(ngram_range=(1, 3)).fit_transform(texts)
    assert terms[rows].shape == theirs.shape
    np.testing.assert_array_equal(terms[rows].data, theirs.data)


def test_texts_without_words_come_last() -> None:
    assert greedy(["?", "red", "", "a"], [3, 1, 2, 4], 4).tolist() == [1, 3, 0, 2]
    assert greedy(["?", ""], [1, 2], 2).tolist() == [1, 0]


def follows_graphfilter(texts: list[str], quality: list[float], order: list[int]) -> bool:
    """Whether each of `order` is the best of the rest: Quality(u) · Σ TF(v) · log(N / d_v) over n-grams that are left.

    Sums of the same numbers in another order may differ in their last digits: such values are equal, and then quality
    decides among those without any n-gram left.
    """
    grams = []
    for text in texts:
        words = text.split()
        spans = [words[i : i + n] for n in (1, 2, 3) for i in range(len(words) - n + 1)]
        grams.append(Counter(" ".join(span) for span in spans))
    documents = Counter(gram for sentence in grams for gram in sentence)
    covered: set[str] = set()
    rest = set(range(len(texts)))
    for pick in order:

        def value(u: int) -> float:
            left = ((count, gram) for gram, count in grams[u].items() if gram not in covered)
            return quality[u] * sum(count * math.log(len(texts) / documents[gram]) for count, gram in left)

        best = max(map(value, rest))
        if value(pick) < best - 1e-9:
            return False
        if best < 1e-9 and (quality[pick], -pick) < max((quality[u], -u) for u in rest):
            return False
        rest.remove(pick)
        covered.update(grams[pick])
    return True


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_graphfilter_is_its_definition(data: st.DataObject) -> None:
    words = st.lists(st.sampled_from("red green blue gray pink teal".split()), max_size=8).map(" ".join)
    texts = data.draw(st.lists(words, min_size=1, max_size=10))
    quality = data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.9]), min_size=len(texts), max_size=len(texts)))
    budget = data.draw(st.integers(1, len(texts)))
    order = greedy(texts, quality, budget).tolist()
    assert len(set(order)) == budget
    assert follows_graphfilter(texts, quality, order)


def test_graphfilters_weights_are_an_option() -> None:
    """Neither smoothed nor normalised, a long instruction of rare words is worth more than a short one."""
    texts = ["red green", "blue pink teal gray cyan", "red", "green"]
    assert greedy(texts, [1, 0.9, 1, 1], 1).tolist() == [1]
    assert greedy(["red red", "blue"], [1, 1.2], 1).tolist() == [0]  # counts count
    assert greedy(["red red", "blue"], [1, 1.5], 1, weights="sklearn").tolist() == [1]
    with pytest.raises(ConfigError, match=r"selector\.weights=bm25"):
        checked(GraphFilter(weights="bm25"), "selector")  # type: ignore[arg-type]


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


def test_unknown_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="rows must be indices from 0 to 1"):
        lazy_greedy(csr_matrix(np.eye(2)), [1, 1, 1], 1, decay=0.0, rows=[0, 1, 2])


def test_texts_without_spaces_have_words_too() -> None:
    """Four wordings of one question give way to three other questions, in any language (a case from the field)."""
    same = {
        "zh": ["请告诉我怎样做红烧肉", "请教我怎样做红烧肉", "请说明怎样做红烧肉", "请讲讲怎样做红烧肉"],
        "ja": [
            "豚の角煮の作り方を教えて",
            "豚の角煮の作り方を説明して",
            "豚の角煮の作り方を書いて",
            "豚の角煮の作り方は",
        ],
        "th": ["ช่วยบอกวิธีทำหมูตุ๋น", "ช่วยสอนวิธีทำหมูตุ๋น", "ช่วยอธิบายวิธีทำหมูตุ๋น", "ช่วยเล่าวิธีทำหมูตุ๋น"],
    }
    others = {
        "zh": ["北京有哪些著名的博物馆", "写一首关于秋天的诗", "解释一下什么是黑洞"],
        "ja": ["北京に有名な博物館はありますか", "秋についての詩", "ブラックホールとは何か"],
        "th": ["พิพิธภัณฑ์ในปักกิ่งมีอะไรบ้าง", "เขียนกลอนเกี่ยวกับฤดูใบไม้ร่วง", "หลุมดำคืออะไร"],
    }
    for language, texts in same.items():
        chosen = greedy([*texts, *others[language]], [3.0] * 4 + [2.9] * 3, 4)
        assert sum(chosen < 4) == 1, language
