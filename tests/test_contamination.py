"""Evaluated texts in what is trained on."""

import pytest

from dsel.contamination import KINDS, Evaluated, normalised

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether in April and May?"
)
OTHER = "A train leaves the station at noon and travels north for three hours before it turns to the east and stops."


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"Please solve: {QUESTION} Thanks.", "exact"),
        (QUESTION.upper(), "normalised"),
        (QUESTION.replace("48", "1,250"), "normalised"),
        (QUESTION.replace(",", " ,").replace("?", ""), "normalised"),
        (QUESTION.replace("Natalia sell", "Bob sell"), "words"),
        ("Natalia sold clips in May", "none"),
        ("", "none"),
    ],
)
def test_a_question_is_found_however_it_is_written(text, kind):
    found = Evaluated([OTHER, QUESTION]).look([["Hello", text]])
    assert KINDS[found.kinds[0]] == kind
    assert found.items[0] == (-1 if kind == "none" else 1)
    assert (found.shares[0] == 1) == (kind in ("exact", "normalised"))


def test_short_texts_are_looked_for_as_a_whole():
    evaluated = Evaluated(["What is 2+2?", ""])
    found = evaluated.look([["So, what is 3+9?"], ["What is"], [""]])
    assert [KINDS[kind] for kind in found.kinds] == ["normalised", "none", "none"]


def test_the_worst_come_first():
    found = Evaluated([QUESTION, OTHER]).look([["x"], [QUESTION[:100]], [OTHER], [QUESTION.lower()]])
    assert found.worst(2) == [2, 3] and found.hit.tolist() == [False, True, True, True]
    assert found.worst(9) == [2, 3, 1]


def test_turns_are_not_run_together():
    half = len(QUESTION) // 2
    assert not Evaluated(["one two three four"], n=4).look([["one two", "three four"]]).hit.any()
    assert Evaluated([QUESTION], n=5).look([[QUESTION[:half], QUESTION[half:]]]).kinds.tolist() == [1]


def test_words_of_languages_without_spaces():
    assert normalised("我有3个苹果。") == ["我", "有", "0", "个", "苹", "果"]
    asked = "小明有十二个苹果吃了三个还剩多少"
    assert Evaluated([asked]).look([[f"问题:{asked}?"]]).kinds[0] == 3


def test_nothing_to_look_at():
    assert len(Evaluated([]).look([["anything"]]).worst()) == 0
    assert len(Evaluated(["x"]).look([]).kinds) == 0
