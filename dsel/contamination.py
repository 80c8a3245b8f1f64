"""Whether what is trained on has what is evaluated on: runs of words that both have.

A run of 13 words is what Brown et al. (2020, arXiv 2005.14165, appendix C) look for. Words are compared without case,
punctuation and the digits of numbers, so that a question with another number in it is still that question.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsel.arrays import Indices
from dsel.errors import need
from dsel.hashed_words import Hashes, hashed, runs
from dsel.hashed_words import normalised as normalised

KINDS = ("none", "words", "normalised", "exact")
"""How much of an evaluated text an example has: nothing, a run of its words, all of it but for what is not compared, or
all of it to the letter."""

WORDS = 13  # of a run
SHORTEST = 8  # words of a text that is looked for inside others
COMMON = 10  # texts with the same run: more of them share a phrase, or the wording of a template
BLOCK = 2**18  # characters that are compared at once


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
        hits = np.flatnonzero(self.kinds)
        order = np.lexsort((hits, -self.shares[hits], -self.kinds[hits]))
        return hits[order[:count]].tolist()

    def take(self, indices: Indices) -> Found:
        """That of the examples at `indices`."""
        return Found(self.kinds[indices], self.items[indices], self.shares[indices])


class Evaluated:
    """Texts that are evaluated on, to look for in others.

    A text of fewer than `n` words is looked for as a whole, with the digits of its numbers, as all that tells `2 + 3`
    from `4 + 5`; one of fewer than eight has to be all that a turn says. A text without words is not looked for. A run
    that more than ten of the texts have does not count for those that have others.

    Memory is 30 bytes for each word of the texts.

    Args:
        texts: the texts.
        n: words of a run.
    """

    def __init__(self, texts: Sequence[str], n: int = WORDS):
        need(n >= 1, f"a run of {n} words: wants 1 or more")
        self.texts, self.n = list(texts), n
        parts, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        self._sizes = np.zeros(len(self.texts), np.int64)  # words, at most n
        start, short = 0, dict[int, list[Hashes]]()
        for block in _blocks([text] for text in self.texts):
            words, bounds = hashed([text for (text,) in block])
            sizes = self._sizes[start : start + len(block)] = np.minimum(np.diff(bounds), n)
            at = _inside(bounds, n)
            parts.append(runs(words, n)[at])
            owners.append(np.searchsorted(bounds, at, side="right") - 1 + start)
            for size in np.unique(sizes[(sizes > 0) & (sizes < n)]).tolist():
                short.setdefault(size, []).append(runs(words, size)[bounds[:-1][sizes == size]])
            start += len(block)
        self._short = {size: np.unique(np.concatenate(found)) for size, found in sorted(short.items())}
        brief = np.flatnonzero((self._sizes > 0) & (self._sizes < n))  # whose numbers count
        words, bounds = hashed([self.texts[i] for i in brief.tolist()], numbers=True)
        counts = np.diff(bounds)
        self._lengths = np.unique(counts).tolist()
        for size in self._lengths:
            parts.append(runs(words, size)[bounds[:-1][counts == size]])
            owners.append(brief[counts == size])
        self._index(np.concatenate(parts), np.concatenate(owners))

    def _index(self, found: Hashes, owners: Indices) -> None:
        """Each run once, with the texts that have it: those from `_first` on, of `_owners`."""
        order = np.lexsort((owners, found))
        found, owners = found[order], owners[order]
        once = np.ones(len(found), np.bool_)
        once[1:] = (found[1:] != found[:-1]) | (owners[1:] != owners[:-1])
        found, owners = found[once], owners[once]
        _, begins, number, sharing = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
        common = sharing[number] > COMMON
        own = np.bincount(owners[~common], minlength=len(self.texts))
        early = np.arange(len(found)) - begins[number] < COMMON
        kept = ~common | (early & (own[owners] == 0))
        self._runs, self._first = np.unique(found[kept], return_index=True)
        self._owners = owners[kept]
        self._first = np.append(self._first, len(self._owners))
        self._counts = np.bincount(self._owners, minlength=len(self.texts))
        bits = min(25, max(16, len(self._runs).bit_length() + 7))
        self._shift = np.uint64(64 - bits)
        self._marked = np.zeros(2**bits, np.bool_)  # where most of what is looked for ends
        for known in (self._runs, *self._short.values()):
            self._marked[known >> self._shift] = True

    def look(self, examples: Iterable[Sequence[str]]) -> Found:
        """What each example, given as its turns, has of these texts.

        An example that has less than half of a text has nothing of it where more than ten examples have the same runs:
        these are a phrase or a template that both were made with, as Brown et al. have it.

        Time is linear in the characters of the examples, some 25 ns for each; memory does not grow with them but for 13
        bytes an example, and 12 for each run that it has.
        """
        kinds, items, shares = [np.empty(0, np.int8)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        of, which = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        having, start = np.zeros(len(self._runs), np.int64), 0  # of each run, the examples
        for block in _blocks(examples):
            found, pairs = self._look(block)
            kinds.append(found.kinds)
            items.append(found.items)
            shares.append(found.shares)
            having += np.bincount(pairs[1], minlength=len(having))
            of.append(pairs[0] + start)
            which.append(pairs[1].astype(np.int32))
            start += len(block)
        whole = Found(np.concatenate(kinds), np.concatenate(items), np.concatenate(shares))
        rare = np.zeros(start, np.bool_)
        rare[np.concatenate(of)[having[np.concatenate(which)] <= COMMON]] = True
        phrase = ~rare & (whole.kinds == 1) & (whole.shares < 0.5)
        whole.kinds[phrase], whole.items[phrase], whole.shares[phrase] = 0, -1, 0
        return whole

    def _look(self, examples: Sequence[Sequence[str]]) -> tuple[Found, Indices]:
        """What the examples have, and int64[2, p]: the example and the run of all of `_runs` that are in one."""
        n = len(examples)
        found = Found(np.zeros(n, np.int8), np.full(n, -1, np.int64), np.zeros(n, np.float32))
        nothing = np.empty((2, 0), np.int64)
        if not len(self._runs):
            return found, nothing
        of = np.repeat(np.arange(n), [len(turns) for turns in examples])  # the example of each turn
        turn, which = self._known([turn for turns in examples for turn in turns])
        if not len(which):
            return found, nothing
        pairs = np.unique(np.stack([of[turn], which]), axis=1)
        lengths = np.diff(self._first)[pairs[1]]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        item = self._owners[np.repeat(self._first[pairs[1]], lengths) + inside]
        both, common = np.unique(np.stack([np.repeat(pairs[0], lengths), item]), axis=1, return_counts=True)
        share = common / self._counts[both[1]]
        for at in np.lexsort((both[1], -share, both[0])).tolist():
            i, item_ = int(both[0, at]), int(both[1, at])
            if found.kinds[i] == 0 and (kind := self._kind(examples[i], item_, float(share[at]))):
                found.kinds[i], found.items[i], found.shares[i] = kind, item_, share[at]
        return found, pairs

    def _known(self, turns: Sequence[str]) -> tuple[Indices, Indices]:
        """The turns that runs of the evaluated texts are in, and which of `_runs` these are."""
        words, bounds = hashed(turns)
        found = [self._among(self._runs, words, bounds, self.n)]
        may = np.zeros(len(turns), np.bool_)  # have a short text, but for the numbers in it
        for size, known in self._short.items():
            may[self._among(known, words, bounds, size, whole=size < min(SHORTEST, self.n))[0]] = True
        if may.any():
            some = np.flatnonzero(may)
            words, bounds = hashed([turns[i] for i in some.tolist()], numbers=True)
            for size in self._lengths:
                turn, which = self._among(self._runs, words, bounds, size)
                found.append((some[turn], which))
        return np.concatenate([turn for turn, _ in found]), np.concatenate([which for _, which in found])

    def _among(
        self, known: Hashes, words: Hashes, bounds: Indices, size: int, *, whole: bool = False
    ) -> tuple[Indices, Indices]:
        """The turns that have `known` runs of so many words, and which; whole: and nothing else."""
        if whole:
            at = bounds[:-1][np.diff(bounds) == size]
            found = runs(words, size)[at]
        else:
            found = runs(words, size)
            at = np.flatnonzero(self._marked[found >> self._shift])
            found = found[at]
        which = np.minimum(np.searchsorted(known, found), len(known) - 1)
        right = known[which] == found
        at, which = at[right], which[right]
        turn = np.searchsorted(bounds, at, side="right") - 1
        inside = at + size <= bounds[turn + 1]
        return turn[inside], which[inside]

    def _kind(self, turns: Sequence[str], item: int, share: float) -> int:
        """Which of `KINDS` it is, of an example that has this share of an evaluated text's runs."""
        text, size = self.texts[item], int(self._sizes[item])
        short = size < self.n
        if share < 1:
            return 1
        words = normalised(text, numbers=short)
        whole = short and size < min(SHORTEST, self.n)
        said = [normalised(turn, numbers=short) for turn in turns]
        if not any(each == words if whole else _holds(each, words) for each in said):
            return 0 if short else 1
        return 3 if any(text.strip() in turn for turn in turns) else 2


def _inside(bounds: Indices, size: int) -> Indices:
    """Where runs of `size` words begin that end in the text they begin in."""
    counts = np.maximum(np.diff(bounds) - size + 1, 0)
    return np.arange(counts.sum()) + np.repeat(bounds[:-1] - (np.cumsum(counts) - counts), counts)


def _blocks(examples: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """The examples in order, together as many as have `BLOCK` characters."""
    block, size = list[Sequence[str]](), 0
    for turns in examples:
        block.append(turns)
        size += sum(map(len, turns))
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _holds(words: Sequence[str], part: Sequence[str]) -> bool:
    """Whether the words of `part` stand one after the other in `words`."""
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def shared(origins: Collection[str]) -> str:
    """What examples have that were found to have texts of these origins, in words."""
    return "what the targets have" if set(origins) == {"targets"} else "what is evaluated on"
