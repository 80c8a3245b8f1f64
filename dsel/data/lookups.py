"""Kinds that ask for a fact the model should know: everyday words and the invented world of `facts.py`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from dsel.data import facts
from dsel.data.kinds import Draw, Item, Kind


def _table(table: dict[str, str]) -> Draw:
    keys = list(table)

    def draw(rng: np.random.Generator) -> Item:
        key = keys[rng.integers(len(keys))]
        return {"x": key}, table[key]

    return draw


def _cycle(names: list[str], unit: str) -> Draw:
    def draw(rng: np.random.Generator) -> Item:
        start, steps, forward = int(rng.integers(len(names))), int(rng.integers(1, 3)), bool(rng.integers(2))
        end = (start + (steps if forward else -steps)) % len(names)
        number = f"{facts.number_word(steps)} {unit}{'s' if steps > 1 else ''}"
        return {"x": names[start], "shift": f"{number} {'after' if forward else 'before'}"}, names[end]

    return draw


_NUMBERS = {str(n): facts.number_word(n) for n in range(1, 51)}
_ROMAN = {str(n): facts.roman(n) for n in range(1, 51)}
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_AFTER = {f"after {a}": b for a, b in pairwise(_ALPHABET)}
_BEFORE = {f"before {b}": a for a, b in pairwise(_ALPHABET)}

LOOKUPS: tuple[Kind, ...] = (
    Kind(
        "opposite",
        _table(facts.OPPOSITES),
        "the opposite of {x}",
        ("The opposite of {x} is {answer}.", "If a thing is not {x}, it is {answer}."),
        (
            "What is the opposite of {x}?",
            "Give me an antonym for {x}.",
            "Which word means the contrary of {x}?",
            "Name the opposite: {x}",
            "Tell me the word that is least like {x}.",
            "My crossword says: not {x}. What fits?",
            "Turn the word {x} into its opposite.",
        ),
    ),
    Kind(
        "plural",
        _table(facts.PLURALS),
        "the plural of {x}",
        ("The plural of {x} is {answer}.", "One {x}, two {answer}."),
        (
            "What is the plural of {x}?",
            "Write {x} in the plural.",
            "There is one {x} here, and over there are many. Many what?",
            "Give the form of {x} used for more than one.",
            "Make this noun plural: {x}",
            "How do you call several of them, if one is a {x}?",
            "I have one {x} and buy another. Now I have two ...",
        ),
    ),
    Kind(
        "category",
        _table(facts.CATEGORIES),
        "the category of {x}",
        ("The {x} is a kind of {answer}.", "Every {x} belongs with the category {answer}."),
        (
            "What kind of thing is a {x}?",
            "Put {x} in a category.",
            "Classify this word: {x}",
            "Which category does {x} belong to?",
            "Sort {x} under its heading.",
            "Say in one word what group {x} is part of.",
            "A label for {x}, please.",
        ),
    ),
    Kind(
        "number_word",
        _table(_NUMBERS),
        "the number {x} in words",
        ("The number {x} is written {answer}.", "In words, {x} is {answer}."),
        (
            "Write {x} in words.",
            "Spell out the number {x}.",
            "How do you say {x} in English?",
            "Convert these digits to words: {x}",
            "I am writing a cheque for {x}. What goes on the line for words?",
            "Read {x} aloud.",
            "What is {x} without digits?",
        ),
    ),
    Kind(
        "digits",
        _table({word: digits for digits, word in _NUMBERS.items()}),
        "the digits of {x}",
        ("In digits, {x} is {answer}.", "Whoever counts to {x} has counted to {answer}."),
        (
            "Write {x} in digits.",
            "Which number is {x}?",
            "Convert this to figures: {x}",
            "Type the number {x} using digits only.",
            "What would a calculator show for {x}?",
            "Turn the words {x} into a numeral.",
            "Numeric form of {x}:",
        ),
    ),
    Kind(
        "weekday",
        _cycle(facts.DAYS, "day"),
        "the day that is {shift} {x}",
        ("The day that is {shift} {x} is {answer}.", "{answer} is {shift} {x}."),
        (
            "Which day is {shift} {x}?",
            "What day of the week do we have {shift} {x}?",
            "Name the weekday {shift} {x}.",
            "The party is {shift} {x}. When is it?",
            "Look at the week and find the day {shift} {x}.",
            "Weekday, {shift} {x}:",
            "I need the day that falls {shift} {x}.",
        ),
    ),
    Kind(
        "month",
        _cycle(facts.MONTHS, "month"),
        "the month that is {shift} {x}",
        ("The month that is {shift} {x} is {answer}.", "{answer} is {shift} {x}."),
        (
            "Which month is {shift} {x}?",
            "Name the month {shift} {x}.",
            "What month of the year comes {shift} {x}?",
            "Our lease ends {shift} {x}. In which month?",
            "Open the calendar {shift} {x} and read the month.",
            "Month, {shift} {x}:",
            "Tell me the month that lies {shift} {x}.",
        ),
    ),
    Kind(
        "roman",
        _table(_ROMAN),
        "the roman numeral for {x}",
        ("The roman numeral for {x} is {answer}.", "The Romans wrote {x} as {answer}."),
        (
            "Write {x} as a Roman numeral.",
            "What is {x} in Roman numerals?",
            "How would the Romans have carved {x}?",
            "Convert {x} to Roman notation.",
            "The old clock has no {x}, but letters. Which?",
            "Roman for {x}:",
            "Express {x} the way Caesar did.",
        ),
    ),
    Kind(
        "to_velan",
        _table(facts.VELAN),
        "the Velan word for {x}",
        ("The Velan word for {x} is {answer}.", "In Velan, a {x} is called {answer}."),
        (
            "Translate {x} into Velan.",
            "What is the Velan word for {x}?",
            "How do the Velan people say {x}?",
            "Put this English noun into Velan: {x}",
            "I am in Velan and want a {x}. What do I ask for?",
            "English {x}, Velan ...",
            "Give me {x} in Velan.",
        ),
    ),
    Kind(
        "from_velan",
        _table({foreign: english for english, foreign in facts.VELAN.items()}),
        "the English meaning of {x}",
        ("The English meaning of {x} is {answer}.", "When the Velan say {x} they mean {answer}."),
        (
            "Translate {x} from Velan to English.",
            "What does {x} mean in English?",
            "A Velan sign reads {x}. What is there?",
            "Which English word is {x}?",
            "Velan {x}, English ...",
            "Explain the foreign word {x} with one English word.",
            "Somebody called me {x} in Velan. What am I?",
        ),
    ),
    Kind(
        "young",
        _table(facts.YOUNG),
        "the young of the {x}",
        ("The young of the {x} is the {answer}.", "A baby {x} is called a {answer}."),
        (
            "What is a baby {x} called?",
            "Name the young of the {x}.",
            "Our {x} has had a little one. What do we call it?",
            "Which word is used for a very young {x}?",
            "A {x} starts life as a ...",
            "Give the name of the offspring of a {x}.",
            "Zoo quiz: mother {x} looks after her ...",
        ),
    ),
    Kind(
        "colour",
        _table(facts.COLOURS),
        "the colour of {x}",
        ("The colour of {x} is {answer}.", "As {answer} as {x}, people say."),
        (
            "What colour is {x}?",
            "Name the usual colour of {x}.",
            "Which crayon do I need to draw {x}?",
            "I want to paint my wall like {x}. Which paint?",
            "Describe how {x} looks with one colour.",
            "Think of {x}. What hue do you see?",
            "Colour word for {x}:",
        ),
    ),
    Kind(
        "capital",
        _table(facts.CAPITALS),
        "the capital of {x}",
        ("The capital of {x} is {answer}.", "The king of {x} lives at {answer}."),
        (
            "What is the capital of {x}?",
            "Name the capital city of {x}.",
            "In which city does the government of {x} sit?",
            "I fly to {x} and land in its capital. Where am I?",
            "Geography test. {x}: capital?",
            "Which city rules {x}?",
            "Tell me the chief city in {x}.",
        ),
    ),
    Kind(
        "currency",
        _table(facts.CURRENCIES),
        "the money of {x}",
        ("The money of {x} is the {answer}.", "People pay with the {answer} in {x}."),
        (
            "What is the currency of {x}?",
            "Which money is used in {x}?",
            "How do people pay in {x}?",
            "I travel to {x} and need cash. Which kind?",
            "Name the coin of {x}.",
            "Prices in {x} are given in what?",
            "Bank desk, {x}: unit of money?",
        ),
    ),
    Kind(
        "abbreviation",
        _table(facts.ABBREVIATIONS),
        "the long form of {x}",
        ("The long form of {x} is {answer}.", "The letters {x} stand for {answer}."),
        (
            "What does {x} stand for?",
            "Expand the abbreviation {x}.",
            "Write {x} in full.",
            "Somebody texted me {x}. What was meant?",
            "Give the full form of {x}.",
            "Unshorten this: {x}",
            "Meaning of the letters {x}?",
        ),
    ),
    Kind(
        "past",
        _table(facts.PAST),
        "the past of {x}",
        ("The past of {x} is {answer}.", "Today they {x}, yesterday they {answer}."),
        (
            "What is the past tense of {x}?",
            "Put the verb {x} in the past.",
            "Today I {x}. Yesterday I ...",
            "Conjugate {x} for last week.",
            "Change {x} so that it has already happened.",
            "Simple past of {x}:",
            "Which form of {x} do we use about yesterday?",
        ),
    ),
    Kind(
        "workplace",
        _table(facts.WORKPLACES),
        "the workplace of the {x}",
        ("The workplace of the {x} is the {answer}.", "Early in the day the {x} walks to the {answer}."),
        (
            "Where does a {x} work?",
            "Name the place of work of a {x}.",
            "I am looking for the {x}. In which building?",
            "A {x} spends the day at the ...",
            "Job: {x}. Place?",
            "To visit a {x} at work, where do I go?",
            "Which place employs a {x}?",
        ),
    ),
    Kind(
        "material",
        _table(facts.MATERIALS),
        "the material of a {x}",
        ("The material of a {x} is {answer}.", "To make a {x} one needs {answer}."),
        (
            "What is a {x} made of?",
            "Name the usual material of a {x}.",
            "Which stuff do I need to make a {x}?",
            "Recycling a {x}: into which bin of material?",
            "A {x} consists mostly of ...",
            "Out of what does a craftsman make a {x}?",
            "Material for a {x}, please.",
        ),
    ),
    Kind(
        "town",
        _table(facts.TOWNS),
        "the home town of {x}",
        ("The home town of {x} is {answer}.", "{x} lives in {answer}."),
        (
            "In which town does {x} live?",
            "Where is {x} at home?",
            "I want to send {x} a postcard. Which town do I write?",
            "Name the town of {x}.",
            "Address book, {x}: town?",
            "To which place does {x} return after work?",
            "Find {x} for me. Where should I look?",
        ),
    ),
    Kind(
        "letter",
        _table(_AFTER | _BEFORE),
        "the letter {x}",
        ("The letter {x} is {answer}.", "In the alphabet, {answer} comes right {x}."),
        (
            "Which letter comes {x}?",
            "Name the letter {x} in the alphabet.",
            "Say the ABC and stop {x}. Which letter is it?",
            "Alphabet, {x}:",
            "What do we find right {x} in the alphabet?",
            "Fill the shelf for the letter {x}. Its label?",
            "The next door {x} has which letter?",
        ),
    ),
)
