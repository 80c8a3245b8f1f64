"""N-grams as numbers: those that the words of a text have, told apart, counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsel.embedder import terms as module
from dsel.embedder.terms import batches, terms
from dsel.words import words_and_signs

ALPHABET = "aAbÉßİΣς_19 .,-\n\t\u2028中ไทยก็かガ\u0301😀"


def plain(text: str, ngram_max: int) -> Counter:
    """The n-grams of a text, spelt out."""
    found = words_and_signs(text.lower())
    return Counter(tuple(found[i : i + n]) for n in range(1, ngram_max + 1) for i in range(len(found) - n + 1))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.text(ALPHABET, max_size=12), min_size=1, max_size=6), st.integers(1, 3))
@example(["", "a"], 2)
@example(["the cat and the dog and the cat"], 3)
def test_terms_are_the_ngrams_of_words_and_signs(texts: list[str], ngram_max: int) -> None:
    numbers, counts, starts, sizes = terms(texts, ngram_max)
    known: dict[int, tuple[str, ...]] = {}
    for i, text in enumerate(texts):
        part = slice(starts[i], starts[i] + sizes[i])
        grams = list(plain(text, ngram_max))  # in the order of their first use
        assert counts[part].tolist() == list(plain(text, ngram_max).values())
        for number, gram in zip(numbers[part].tolist(), grams, strict=True):
            assert known.setdefault(number, gram) == gram
    assert len(set(known.values())) == len(known)


@pytest.mark.parametrize("characters", [0, 5, 2**20])
def test_batches_are_all_texts_in_their_order(characters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHARACTERS", characters)
    texts = ["abc", "", "de", "fghijk", "l"]
    found = list(batches(texts))
    assert [text for batch in found for text in batch] == texts and all(found)
    assert list(batches([])) == []
