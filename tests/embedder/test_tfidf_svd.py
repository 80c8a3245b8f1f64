"""TF-IDF and SVD: unit rows for any texts, the same ones every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.embedder import streamed_svd as streamed
from dsel.embedder import terms, tfidf_svd
from dsel.embedder.tfidf_svd import TfidfSvd
from dsel.words import words_and_signs
from tests.embedder.chats import chats

WORDS = "sun moon star tree leaf root wolf bear deer bread salt wine".split()
rng = np.random.default_rng(0)
TEXTS = [" ".join(rng.choice(WORDS[3 * (i % 4) : 3 * (i % 4) + 3], size=6)) for i in range(60)]


def assert_unit_rows(vectors: np.ndarray, n: int) -> None:
    assert vectors.dtype == np.float32 and len(vectors) == n
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_same_texts_give_the_same_bits(tmp_path: Path) -> None:
    one, two = (TfidfSvd(dimensions=8).embed(chats(TEXTS), tmp_path) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert one.shape == (60, 8)
    assert_unit_rows(one, 60)


def test_texts_on_one_topic_are_closer_than_others() -> None:
    vectors = TfidfSvd(dimensions=8).encode(TEXTS)
    topic = np.arange(60) % 4
    cosine = vectors @ vectors.T
    same = topic[:, None] == topic[None, :]
    assert cosine[same].mean() > 0.5
    assert np.abs(cosine[~same]).max() < 0.01


def test_equal_texts_get_equal_vectors() -> None:
    vectors = TfidfSvd(dimensions=8).encode([*TEXTS, *TEXTS])
    np.testing.assert_allclose(vectors[:60], vectors[60:], atol=1e-5)


def test_a_text_without_known_words_gets_the_mean_direction() -> None:
    vectors = TfidfSvd(dimensions=8).encode([*TEXTS, "xylophone", ""])
    assert_unit_rows(vectors, 62)
    np.testing.assert_array_equal(vectors[60], vectors[61])
    assert (vectors[:60] @ vectors[60]).mean() > 0


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_fewer_texts_than_dimensions_are_fine(n: int) -> None:
    assert_unit_rows(TfidfSvd(dimensions=128).encode(TEXTS[::4][:n]), n)


def test_texts_that_share_one_word_are_fine() -> None:
    assert_unit_rows(TfidfSvd().encode(["sun moon", "sun", "leaf"]), 3)


def test_texts_that_share_no_word_are_fine() -> None:
    assert_unit_rows(TfidfSvd().encode(["sun", "moon", "star"]), 3)


words = st.lists(st.sampled_from([*WORDS, "x", "1", "+", "é", "?"]), min_size=2, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(words.map(" ".join), min_size=1, max_size=12))
def test_any_texts_give_unit_rows(texts: list[str]) -> None:
    assert_unit_rows(TfidfSvd(min_df=1).encode(texts), len(texts))


def test_texts_without_spaces_are_told_apart() -> None:
    """Four wordings of one question in Chinese are close, and three other questions are not."""
    texts = ["请告诉我怎样做红烧肉", "请教我怎样做红烧肉", "请说明怎样做红烧肉", "请讲讲怎样做红烧肉"]
    vectors = TfidfSvd().encode([*texts, "北京有哪些著名的博物馆", "写一首关于秋天的诗", "解释一下什么是黑洞"])
    cosine = vectors @ vectors.T
    assert cosine[:4, :4].min() > 0.8 and np.abs(cosine[:4, 4:]).max() < 0.5


# more texts than are held in memory


def many() -> list[str]:
    draws = np.random.default_rng(1)
    sizes = draws.integers(1, 12, size=300)
    return [" ".join(draws.choice([*WORDS, "a", "b", ",", "中文"], size=size)) for size in sizes] + ["", "xylophone"]


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf_svd, "IN_MEMORY", 1)
    monkeypatch.setattr(terms, "CHARACTERS", 200)
    monkeypatch.setattr(streamed, "ROWS", 64)


@pytest.mark.parametrize("options", [{}, {"sublinear_tf": False, "ngram_max": 1, "min_df": 3}, {"max_features": 9}])
def test_block_by_block_the_matrix_is_that_of_scikit_learn(
    tmp_path: Path, in_blocks: None, options: dict[str, Any]
) -> None:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, own = many(), TfidfSvd(**options)
    table = streamed.count(texts, len(texts), own.ngram_max)
    known, frequency = table.most(own.min_df, own.max_features)
    rows = streamed.matrix(texts, len(texts), own.ngram_max, known, frequency, own.sublinear_tf, tmp_path)
    ours = csr_matrix((rows.values, rows.columns.astype(int), rows.starts), shape=(len(texts), len(known)))
    theirs = TfidfVectorizer(
        ngram_range=(1, own.ngram_max), min_df=own.min_df, max_features=own.max_features, token_pattern=None,
        sublinear_tf=own.sublinear_tf, tokenizer=words_and_signs, dtype=np.float32,
    ).fit_transform(texts)  # fmt: skip
    assert ours.shape == theirs.shape and ours.nnz == theirs.nnz
    np.testing.assert_allclose((ours @ ours.T).toarray(), (theirs @ theirs.T).toarray(), atol=1e-5)


def test_block_by_block_vectors_are_those_of_all_at_once(tmp_path: Path, in_blocks: None) -> None:
    """But for a turn of the axes: with all dimensions that there are, so that no noise of the SVD is in them."""
    options = {"dimensions": 16, "ngram_max": 1}
    texts = many()
    found = TfidfSvd(**options).embed(chats(texts), tmp_path)
    assert_unit_rows(found, len(texts))
    expected = TfidfSvd(**options).encode(texts)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


def test_a_killed_run_goes_on_from_the_matrix(tmp_path: Path, in_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, own = many(), TfidfSvd(dimensions=4)
    (tmp_path / "alone").mkdir()
    expected = own.embed(chats(texts), tmp_path / "alone")
    counted, svd = streamed.count, streamed.svd
    calls: list[int] = []

    def count(*given: Any) -> streamed.Table:
        calls.append(1)
        return counted(*given)

    monkeypatch.setattr(streamed, "count", count)
    monkeypatch.setattr(streamed, "svd", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        own.embed(chats(texts), tmp_path)
    monkeypatch.setattr(streamed, "svd", svd)
    np.testing.assert_array_equal(own.embed(chats(texts), tmp_path), expected)
    assert len(calls) == 1
    with (tmp_path / "shard-terms-values").open("r+b") as file:
        file.write(b"!")
    np.testing.assert_array_equal(own.embed(chats(texts), tmp_path), expected)
    assert len(calls) == 2


def test_a_full_table_loses_the_rarest_terms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "FIRST", 64)
    monkeypatch.setattr(streamed, "MOST", 4096)
    often = [f"often{i}" for i in range(40)]
    texts = [f"{' '.join(often)} once{i} once{i}" for i in range(6000)]
    monkeypatch.setattr(terms, "CHARACTERS", 2000)
    table = streamed.count(texts, len(texts), 1)
    assert table.lost > 0 and table.numbers.size <= 8192
    known, frequency = table.most(2, 40)
    assert set(known.tolist()) == set(terms.terms([" ".join(often)], 1).numbers[:40].tolist())
    assert frequency.min() >= 6000 - table.lost


def test_words_that_are_in_one_text_each_are_taken_where_there_are_no_others(tmp_path: Path, in_blocks: None) -> None:
    assert_unit_rows(TfidfSvd().embed(chats(["sun", "moon", "star"]), tmp_path), 3)
