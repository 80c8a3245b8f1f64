"""Evaluated texts in what is trained on."""

import numpy as np
import pytest

from dsel import contamination
from dsel.contamination import COMMON, KINDS, Evaluated, normalised
from dsel.hashed_words import hashed

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


def test_short_texts_are_looked_for_as_a_whole_and_with_their_numbers():
    evaluated = Evaluated(["What is 2 + 2?", "", "Name the nine planets that go around our sun"])
    asked = [
        "So, what is 2 + 2?",
        "WHAT IS 2 + 2",
        "What is 3 + 9?",
        "What is",
        "",
        "Do name the nine planets that go ",
    ]
    found = evaluated.look([[text] for text in [*asked, "Please name the nine planets that go around our sun!"]])
    kinds = ["none", "normalised", "none", "none", "none", "none", "normalised"]
    assert [KINDS[kind] for kind in found.kinds] == kinds


def test_a_phrase_of_many_examples_is_nothing_of_a_text_that_has_more():
    phrase = "in the following you are given a piece of text and have to say which"
    text = f"{phrase} of the four towns named in it was founded first and by whom and in which year of which century"
    examples = [[f"{phrase} animal number {i}"] for i in range(COMMON + 1)]
    assert Evaluated([text]).look(examples[:COMMON]).hit.all()
    found = Evaluated([text]).look([*examples, [text], [text.replace("century", "month")]])
    assert [KINDS[kind] for kind in found.kinds[-2:]] == ["exact", "words"] and not found.hit[:-2].any()
    many = [f"{phrase} {i}" for i in range(COMMON + 2)]  # the same run for all of them: few are enough to find it
    assert Evaluated(many).look([[phrase]]).hit.all()


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


WORDS = [
    "a",
    "The",
    "sun's",
    "x_1",
    "3",
    "1,250.5",
    "Straße",
    "naïve",
    "12ab",
    "“so”",
    "…",
    "𝟡",
    "我有3个",
    "ที่นี่",
    "\0",
    "İ",
]


def texts(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, 25)).tolist()) for _ in range(count)]


def test_words_are_told_apart_as_they_are_compared():
    """Equal where `normalised` says so, and only there."""
    many = texts(0, 400)
    numbers, bounds = hashed(many)
    spaced = [text for text in range(len(many)) if "ที่" not in many[text]]  # whose signs are words' parts
    assert len(spaced) > 100
    found = [(tuple(normalised(many[i])), tuple(numbers[bounds[i] : bounds[i + 1]].tolist())) for i in spaced]
    assert all(len(words) == len(hashes) for words, hashes in found)
    each = {pair for words, hashes in found for pair in zip(words, hashes, strict=True)}
    assert len(each) == len({word for word, _ in each}) == len({number for _, number in each})


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_same_as_a_plain_search(n, monkeypatch):
    """Which examples have a run of a text, and how much of it: by sets of runs, an example at a time."""
    monkeypatch.setattr(contamination, "BLOCK", 300)
    monkeypatch.setattr(contamination, "COMMON", 10**6)
    monkeypatch.setattr(contamination, "SHORTEST", 1)
    asked = [text for text in texts(1, 30) if len(normalised(text)) >= n]
    examples = [[first, second] for first, second in zip(texts(2, 120), texts(3, 120), strict=True)]

    def runs(text: str) -> set[tuple[str, ...]]:
        words = normalised(text)
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    sought = [runs(text) for text in asked]
    found = Evaluated(asked, n).look(examples)
    for i, turns in enumerate(examples):
        has = set[tuple[str, ...]]().union(*map(runs, turns))
        shares = [len(has & each) / len(each) for each in sought]
        assert found.hit[i] == (max(shares) > 0) and found.shares[i] == np.float32(max(shares))
        assert found.items[i] == (np.argmax(shares) if found.hit[i] else -1)
