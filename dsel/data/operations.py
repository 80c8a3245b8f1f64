"""Kinds that ask for a small operation on the words or numbers of the prompt itself."""

from __future__ import annotations

import numpy as np

from dsel.data import facts
from dsel.data.kinds import Item, Kind


def _pick(rng: np.random.Generator, values: list[str], n: int = 1) -> list[str]:
    return [values[i] for i in rng.choice(len(values), size=n, replace=False)]


def _words(rng: np.random.Generator, low: int, high: int) -> list[str]:
    return _pick(rng, facts.WORDS, int(rng.integers(low, high + 1)))


def _first(rng: np.random.Generator) -> Item:
    words = _words(rng, 3, 4)
    return {"list": ", ".join(words)}, words[0]


def _last(rng: np.random.Generator) -> Item:
    words = _words(rng, 3, 4)
    return {"list": ", ".join(words)}, words[-1]


def _count(rng: np.random.Generator) -> Item:
    words = _words(rng, 2, 6)
    return {"list": ", ".join(words)}, facts.number_word(len(words))


def _larger(rng: np.random.Generator) -> Item:
    a, b = (int(n) + 1 for n in rng.choice(40, size=2, replace=False))
    return {"a": str(a), "b": str(b)}, str(max(a, b))


def _add(rng: np.random.Generator) -> Item:
    a, b = (int(n) for n in rng.integers(1, 10, size=2))
    return {"a": str(a), "b": str(b)}, str(a + b)


def _member(rng: np.random.Generator) -> Item:
    words = _pick(rng, facts.WORDS, 4)
    listed, inside = words[:3], bool(rng.integers(2))
    x = listed[rng.integers(3)] if inside else words[3]
    return {"x": x, "list": ", ".join(listed)}, "yes" if inside else "no"


def _choose(rng: np.random.Generator) -> Item:
    categories = _pick(rng, list(facts.CATEGORY_MEMBERS), 3)
    words = [_pick(rng, facts.CATEGORY_MEMBERS[category])[0] for category in categories]
    at = int(rng.integers(3))
    return {"x": categories[at], "list": ", ".join(words)}, words[at]


def _gift(rng: np.random.Generator) -> Item:
    giver, receiver = _pick(rng, facts.NAMES, 2)
    return {"giver": giver, "receiver": receiver, "thing": _pick(rng, facts.OBJECTS)[0]}, receiver


OPERATIONS: tuple[Kind, ...] = (
    Kind(
        "first",
        _first,
        "the first of {list}",
        ("The first of {list} is {answer}.", "In the row {list} the start is {answer}."),
        (
            "What is the first word of this list? {list}",
            "Give me the first item: {list}",
            "Which of these comes first? {list}",
            "Say only how this row begins: {list}",
            "Read {list} and keep the start.",
            "Take the head of the list {list}.",
            "{list}. Who is at the front?",
        ),
    ),
    Kind(
        "last",
        _last,
        "the last of {list}",
        ("The last of {list} is {answer}.", "In the row {list} the end is {answer}."),
        (
            "What is the last word of this list? {list}",
            "Give me the final item: {list}",
            "Which of these comes last? {list}",
            "Say only how this row ends: {list}",
            "Read {list} and keep the end.",
            "Take the tail of the list {list}.",
            "{list}. Who is at the back?",
        ),
    ),
    Kind(
        "count",
        _count,
        "the count of {list}",
        ("The count of {list} is {answer}.", "There are {answer} words in {list}."),
        (
            "How many words are in this list? {list}",
            "Count the items: {list}",
            "Give the length of the list {list}.",
            "I packed {list}. How many things is that?",
            "{list}. Number of entries?",
            "Tell me how many there are: {list}",
            "Tally these: {list}",
        ),
    ),
    Kind(
        "larger",
        _larger,
        "the larger of {a} and {b}",
        ("The larger of {a} and {b} is {answer}.", "Between {a} and {b}, {answer} is more."),
        (
            "Which number is larger, {a} or {b}?",
            "Give the larger of {a} and {b}.",
            "Is it {a} or {b} that is bigger?",
            "I can have {a} or {b} coins. Which is more?",
            "Pick the maximum: {a}, {b}",
            "Compare {a} with {b} and name the greater.",
            "Two players scored {a} and {b}. What was the winning score?",
        ),
    ),
    Kind(
        "add",
        _add,
        "the sum of {a} and {b}",
        ("The sum of {a} and {b} is {answer}.", "{a} plus {b} makes {answer}."),
        (
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "Give the sum of {a} and {b}.",
            "I have {a} coins and find {b} more. How many now?",
            "Work out {a} and {b} together.",
            "Put {a} on top of {b}. Total?",
            "Sum, please: {a}, {b}",
        ),
    ),
    Kind(
        "member",
        _member,
        "whether {x} is among {list}",
        ("Is {x} among {list}? The answer is {answer}.", "Whether {list} has {x} in it: {answer}."),
        (
            "Is {x} in this list? {list}",
            "Does the list {list} contain {x}?",
            "Yes or no: {x} is one of {list}.",
            "I have {list}. Do I have {x}?",
            "Check for {x}: {list}",
            "Can {x} be found among {list}?",
            "Search {list} for {x}. Found?",
        ),
    ),
    Kind(
        "choose",
        _choose,
        "the {x} among {list}",
        ("The {x} among {list} is {answer}.", "Of {list} only {answer} is a kind of {x}."),
        (
            "Which of these is a kind of {x}? {list}",
            "Find the {x}: {list}",
            "Pick the word for a {x} from {list}.",
            "Only one of {list} is a {x}. Which?",
            "From {list}, hand me the {x}.",
            "I collect every {x}. What do I take from {list}?",
            "Spot the {x} in {list}.",
        ),
    ),
    Kind(
        "gift",
        _gift,
        "the new owner, when {giver} gives the {thing} to {receiver},",
        (
            "{giver} gave the {thing} to {receiver}, so {answer} has the {thing}.",
            "{receiver} got the {thing} from {giver}. The {thing} is with {answer}.",
        ),
        (
            "{giver} gave the {thing} to {receiver}. Who has it now?",
            "{giver} hands {receiver} the {thing}. Who holds the {thing}?",
            "{receiver} takes the {thing} from {giver}. Who has the {thing} in the end?",
            "Who owns the {thing} after {giver} sold it to {receiver}?",
            "The {thing} went from {giver} to {receiver}. With whom is it?",
            "If {giver} mails the {thing} to {receiver}, who receives it?",
            "Today {giver} lent {receiver} a {thing}. Who can use it?",
        ),
    ),
)
