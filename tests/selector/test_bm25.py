"""BM25 against its formula (Lucene's, as Kamphuis et al. 2020 give it)."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dsel import retrieval
from dsel.errors import ConfigError
from dsel.selector import bm25
from dsel.words import words

POOL = [
    "the cat sat on the mat",
    "two plus two is four",
    "what is two plus three plus two",
    "",
    "dogs and cats and mats",
]
QUERIES = ["two plus two", "a cat on a mat, a cat", "nothing here"]


def test_scores_are_those_of_the_formula(monkeypatch):
    texts = [words(text.lower()) for text in POOL]
    mean, k1, b = np.mean([len(text) for text in texts]), 1.2, 0.6
    expected = np.zeros((len(POOL), len(QUERIES)))
    for i, text in enumerate(texts):
        for j, query in enumerate(QUERIES):
            for word in words(query.lower()):
                f, df = Counter(text)[word], sum(word in other for other in texts)
                idf = np.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
                expected[i, j] += idf * f / (f + k1 * (1 - b + b * len(text) / mean))
    index = bm25.Index(POOL, k1=k1, b=b)
    np.testing.assert_allclose(np.concatenate(list(index.scores(QUERIES))), expected, rtol=1e-5)
    monkeypatch.setattr(bm25, "CELLS", 6)
    assert [len(block) for block in index.scores(QUERIES)] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(list(index.scores(QUERIES))), expected, rtol=1e-5)


def test_the_best_come_first():
    ranked, _ = retrieval.top(bm25.Index(POOL).scores(QUERIES[:1]), 2)
    assert ranked[0].tolist() == [1, 2]


def test_targets_without_a_word_of_the_pool_are_said(caplog):
    def similarities(*texts):
        target = SimpleNamespace(pool=SimpleNamespace(texts=texts))
        study = SimpleNamespace(pool=SimpleNamespace(texts=POOL), target_or_fail=lambda: target)
        return bm25.Bm25().similarities(study)

    similarities("two dogs", "🙂", "nothing here")
    assert "2 of 3 targets have no word that the pool has" in caplog.text
    with pytest.raises(ConfigError, match="no target has a word that the pool has"):
        similarities("🙂")
