"""Whether what is trained on has what is evaluated on: runs of words that both have.

A run of 13 words is what Brown et al. (2020, arXiv 2005.14165, appendix C) look for. Words are compared without case,
punctuation and the digits of numbers, so that a question with another number in it is still that question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsel.errors import need
from dsel.words import words_and_signs

DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
KINDS = ("none", "words", "normalised", "exact")
"""How much of an evaluated text an example has: nothing, a run of its words, all of it but for what is not compared, or
all of it to the letter."""


def normalised(text: str) -> list[str]:
    """The words of a text as they are compared."""
    return [word for word in words_and_signs(DIGITS.sub("0", text.casefold())) if word[0].isalnum() or word[0] == "_"]


@dataclass(frozen=True)
class Found:
    """What of some evaluated texts each of n examples has.

    kinds: int8[n], which of `KINDS`. items: int64[n], the evaluated text that it has most of; -1 for none. shares:
    float32[n], how much of the runs of words of that text.
    """

    kinds: npt.NDArray[np.int8]
    items: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float32]

    @property
    def hit(self) -> npt.NDArray[np.bool_]:
        """Which examples have anything, bool[n]."""
        return self.kinds > 0

    def worst(self, count: int = 5) -> list[int]:
        """The examples that have most, by number."""
        order = np.lexsort((np.arange(len(self.kinds)), -self.shares, -self.kinds))
        return [int(i) for i in order[:count] if self.kinds[i]]


class Evaluated:
    """Texts that are evaluated on, to look for in others.

    Args:
        texts: the texts.
        n: words of a run. A text that has fewer is looked for as a whole; one without words is not.
    """

    def __init__(self, texts: Sequence[str], n: int = 13):
        need(n >= 1, f"a run of {n} words: wants 1 or more")
        self.texts, self.n = list(texts), n
        self._vocabulary: dict[str, int] = {}
        self._runs: dict[tuple[int, ...], list[int]] = {}  # a run of words → the texts that have it
        self._counts: list[int] = []  # of different runs in each text
        self._words: list[tuple[int, ...]] = []
        lengths = set[int]()
        for item, text in enumerate(self.texts):
            ids = tuple(self._vocabulary.setdefault(word, len(self._vocabulary)) for word in normalised(text))
            size = min(n, len(ids))
            runs = {ids[i : i + size] for i in range(len(ids) - size + 1)} if size else set()
            for run in runs:
                self._runs.setdefault(run, []).append(item)
            lengths.update({size} if runs else ())
            self._counts.append(len(runs))
            self._words.append(ids)
        self._lengths = sorted(lengths)

    def look(self, examples: Iterable[Sequence[str]]) -> Found:
        """What each example, given as its turns, has of these texts. Time is linear in the words of the examples."""
        found = [self._best(turns) for turns in examples]
        kinds, items, shares = zip(*found, strict=True) if found else ((), (), ())
        return Found(np.array(kinds, np.int8), np.array(items, np.int64), np.array(shares, np.float32))

    def _best(self, turns: Sequence[str]) -> tuple[int, int, float]:
        common: dict[int, set[tuple[int, ...]]] = {}
        known = [tuple(self._vocabulary.get(word, -1) for word in normalised(turn)) for turn in turns]
        for ids in known:
            for start, end in _stretches(ids):
                for size in self._lengths:
                    for i in range(start, end - size + 1):
                        run = ids[i : i + size]
                        for item in self._runs.get(run, ()):
                            common.setdefault(item, set()).add(run)
        if not common:
            return 0, -1, 0.0
        share, item = max((len(runs) / self._counts[item], -item) for item, runs in common.items())
        item = -item
        kind = 1
        if share == 1 and any(_holds(ids, self._words[item]) for ids in known):
            kind = 3 if any(self.texts[item].strip() in turn for turn in turns) else 2
        return kind, item, share


def _stretches(ids: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Where words that some evaluated text has follow each other: (begin, end)."""
    start = None
    for i, word in enumerate(ids):
        if word < 0:
            if start is not None:
                yield start, i
            start = None
        elif start is None:
            start = i
    if start is not None:
        yield start, len(ids)


def _holds(ids: tuple[int, ...], part: tuple[int, ...]) -> bool:
    """Whether the words of `part` stand one after the other in `ids`."""
    return any(ids[i : i + len(part)] == part for i in range(len(ids) - len(part) + 1))
