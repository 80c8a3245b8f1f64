"""Words: today's in spaced texts, letters in texts without spaces."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsel.words import count_words, unspaced, words, words_and_signs

SPACED = st.characters(max_codepoint=0xDFF) | st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)


@given(st.text(SPACED) | st.text("aB1_ -ß'é नमस्ते привет 안녕하세요 مرحبا שלום"))
@example("It's naïve, snow_man 1st 한국어 텍스트입니다.")
def test_spaced_texts_have_the_words_they_had(text: str) -> None:
    assert not unspaced(text)
    assert words(text) == re.findall(r"(?u)\b\w\w+\b", text)
    assert words_and_signs(text) == re.findall(r"(?u)\w+|[^\w\s]", text)
    assert count_words(text) == len(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("怎样做红烧肉", "怎 样 做 红 烧 肉"),
        ("用Python 3写一个GPT2函数。", "用 Python 写 一 个 GPT2 函 数"),
        ("ラーメンを食べる", "ラ ー メ ン を 食 べ る"),
        ("สวัสดีครับ", "ส วั ส ดี ค รั บ"),
        ("ສະບາຍດີ", "ສ ະ ບ າ ຍ ດີ"),
        ("សួស្តី", "សួ ស្ តី"),
        ("မင်္ဂလာပါ", "မ င်္ ဂ လာ ပါ"),
        ("𠮷野家 x ab", "𠮷 野 家 ab"),
    ],
    ids=["Chinese", "mixed", "Japanese", "Thai", "Lao", "Khmer", "Burmese", "beyond the first plane"],
)
def test_letters_are_words_where_there_are_no_spaces(text: str, expected: str) -> None:
    assert unspaced(text)
    assert words(text) == expected.split()


def test_signs_and_single_letters_stay_where_they_count() -> None:
    assert words_and_signs("x = 好的。") == ["x", "=", "好", "的", "。"]
    assert words_and_signs("ดี!") == ["ดี", "!"]


def test_words_are_counted_where_there_are_no_spaces() -> None:
    assert count_words("写一首诗, please !") == 5
    assert count_words("好的。") == 2
