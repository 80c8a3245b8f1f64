"""TF-IDF and SVD: unit rows for any texts, the same ones every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.embedder.tfidf_svd import TfidfSvd
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
