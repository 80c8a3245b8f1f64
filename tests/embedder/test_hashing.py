"""Hashed n-grams: unit rows for any texts, of the text alone, close where words are shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.embedder.hashing import Hashing
from tests.embedder.chats import chats


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=8))
def test_any_texts_give_unit_rows_that_depend_on_nothing_else(texts: list[str]) -> None:
    whole = Hashing(dimensions=16).encode(texts)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    for text, row in zip(texts, whole, strict=True):
        np.testing.assert_array_equal(Hashing(dimensions=16).encode([text])[0], row)


def test_dot_products_are_those_of_the_ngrams() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.choice(300, size=40, replace=False)) for _ in range(60)]
    sets = [set(text.split()) for text in texts]
    shared = np.array([[len(a & b) / 40 for b in sets] for a in sets])
    error = {}
    for d in (256, 4096):
        vectors = Hashing(dimensions=d, ngram_max=1).encode(texts)
        error[d] = np.sqrt(np.mean((vectors @ vectors.T - shared) ** 2))
        assert error[d] < 1.5 / np.sqrt(d)
    assert error[4096] < error[256] / 2


def test_options_mean_what_they_say() -> None:
    one, two = "a b c d", "d c b a"
    single, pairs = (Hashing(ngram_max=n).encode([one, two]) for n in (1, 2))
    np.testing.assert_allclose(single[0], single[1], atol=1e-6)
    assert pairs[0] @ pairs[1] < 0.9
    often = "cat " * 99 + "dog"
    damped, plain = (Hashing(ngram_max=1, sublinear_tf=s).encode([often, "dog"]) for s in (True, False))
    assert damped[0] @ damped[1] > 10 * (plain[0] @ plain[1]) > 0


def test_it_is_read_in_large_shards_as_the_texts_come(tmp_path: Path) -> None:
    texts = ["short", "a much longer text", "mid length"]
    embedder = Hashing(dimensions=8, store="float16")
    assert embedder.shard_size > 10_000
    vectors = embedder.embed(chats(texts), tmp_path)
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(vectors, embedder.encode(texts), atol=1e-3)
