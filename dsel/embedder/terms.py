"""Words of many texts and their n-grams as 64-bit numbers, compiled. Import this inside functions: it loads numba.

A word is what `dsel.words.words_and_signs` finds in the text in lower case (a mark that stands on no letter is a word).
Equal n-grams have equal numbers, and others have other ones but for one pair in 2**63.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from dsel.arrays import Floats, Indices
from dsel.words import LETTERS, SIGNS

Hashes = npt.NDArray[np.uint64]

CHARACTERS = 2**20  # of texts that are looked at together
SPACE, WORD, SIGN, LETTER, MARK = range(5)  # what a character may be; a MARK belongs to the letter before it
ONE = np.uint64(1)
SEED, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # of FNV-1a
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # of splitmix64
ODD = np.uint64(0x9E3779B97F4A7C15)
S27, S30, S31, S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


class Terms(NamedTuple):
    """The distinct n-grams of some texts: those of text i are numbers[starts[i]:][:sizes[i]], each with its count."""

    numbers: Hashes
    counts: npt.NDArray[np.int32]
    starts: Indices
    sizes: Indices


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts, so many at a time that they have about as many characters."""
    batch: list[str] = []
    room = CHARACTERS
    for text in texts:
        batch.append(text)
        room -= len(text)
        if room < 0:
            yield batch
            batch, room = [], CHARACTERS
    if batch:
        yield batch


def terms(texts: list[str], ngram_max: int) -> Terms:
    """The distinct n-grams of each text, of one word to `ngram_max`, in the order of their first use."""
    codes, ends = coded(texts)
    numbers = np.empty(len(codes) * ngram_max, dtype=np.uint64)
    counts = np.empty(len(codes) * ngram_max, dtype=np.int32)
    sizes = np.zeros(len(texts), dtype=np.int64)
    _terms(codes, ends, kinds(), ngram_max, numbers, counts, sizes)
    return Terms(numbers, counts, ends[:-1] * ngram_max, sizes)


def coded(texts: list[str]) -> tuple[npt.NDArray[np.uint32], Indices]:
    """The characters of all texts in lower case, one after the other, and where each text begins and the last ends."""
    lower = [text.lower() for text in texts]
    codes = np.frombuffer("".join(lower).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return codes, np.cumsum([0, *map(len, lower)], dtype=np.int64)


@cache
def kinds() -> npt.NDArray[np.uint8]:
    """What each character is, by its code."""
    every = "".join(map(chr, range(0x110000)))
    table = np.full(len(every), SIGN, dtype=np.uint8)
    for kind, pattern in ((WORD, r"\w+"), (SPACE, r"\s+"), (MARK, f"[{SIGNS}]+"), (LETTER, f"[{LETTERS}]+")):
        for found in re.finditer(pattern, every):
            table[found.start() : found.end()] = kind
    return table


@njit(inline="always")  # type: ignore[untyped-decorator]
def mixed(h: Any) -> Any:
    """A number whose bits each depend on all bits of `h` (splitmix64)."""
    h = (h ^ (h >> S30)) * MIX_1
    h = (h ^ (h >> S27)) * MIX_2
    return h ^ (h >> S31)


@njit(inline="always")  # type: ignore[untyped-decorator]
def slot(table: Any, h: Any, start: Any) -> Any:
    """Where a number is in a table of 2**b entries, or the empty one where it would be, looked for from `start` on."""
    last = np.uint64(len(table) - 1)
    at = start & last
    while table[at] != 0 and table[at] != h:
        at = (at + ONE) & last
    return at


@njit(nogil=True)  # type: ignore[untyped-decorator]
def words(codes: Any, kinds: Any, out: Hashes) -> int:
    """The number of each word of a text, into `out`; returns how many there are."""
    count, inside, h = 0, SPACE, SEED
    for code in codes:
        kind = kinds[code]
        if inside != SPACE and not (kind == MARK and inside == LETTER) and not (kind == WORD and inside == WORD):
            out[count] = mixed(h)
            count, inside, h = count + 1, SPACE, SEED
        if kind == SPACE or (kind == MARK and inside != LETTER):
            if kind == MARK:  # a mark on nothing stands for itself
                out[count] = mixed((SEED ^ np.uint64(code)) * PRIME)
                count += 1
            continue
        h = (h ^ np.uint64(code)) * PRIME
        if inside == SPACE:
            inside = kind
    if inside != SPACE:
        out[count] = mixed(h)
        count += 1
    return count


@njit(nogil=True)  # type: ignore[untyped-decorator]
def distinct(numbers: Hashes, count: int, ngram_max: int, table: Hashes, slots: Any, out: Hashes, counts: Any) -> int:
    """The distinct n-grams of a text of so many words, and how often each is there; returns how many they are.

    table, slots: of 2**b entries, at least twice as many as there are n-grams. `table` is zero, before and after.
    """
    size, last = 0, np.uint64(len(table) - 1)
    for n in range(ngram_max):
        for i in range(count - n):
            h = numbers[i]
            for k in range(1, n + 1):
                h = mixed(h * ODD + numbers[i + k])
            h |= ONE  # zero is an empty entry
            at = slot(table, h, h >> S30)
            if table[at] == 0:
                table[at], slots[at] = h, size
                out[size], counts[size] = h, 0
                size += 1
            counts[slots[at]] += 1
    for k in range(size):
        at = (out[k] >> S30) & last
        while table[at] != 0:
            table[at] = 0
            at = (at + ONE) & last
    return size


@njit(nogil=True)  # type: ignore[untyped-decorator]
def room(grams: int) -> int:
    """The entries of a table for so many n-grams."""
    size = 64
    while size < 2 * grams:
        size *= 2
    return size


@njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _terms(codes: Any, ends: Indices, kinds: Any, ngram_max: int, numbers: Hashes, counts: Any, sizes: Indices) -> None:
    for i in prange(len(sizes)):
        found = np.empty(ends[i + 1] - ends[i], dtype=np.uint64)
        count = words(codes[ends[i] : ends[i + 1]], kinds, found)
        entries = room(count * ngram_max)
        table, slots = np.zeros(entries, dtype=np.uint64), np.empty(entries, dtype=np.int32)
        start, end = ends[i] * ngram_max, ends[i + 1] * ngram_max
        sizes[i] = distinct(found, count, ngram_max, table, slots, numbers[start:end], counts[start:end])


@njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def project(numbers: Hashes, counts: Any, starts: Indices, sizes: Indices, sublinear: bool, out: Floats) -> None:
    """Add the weight of each n-gram, its count or one and its logarithm, to a coordinate, with a sign.

    out: float32[n, d], zero; its rows get length one. A text without n-grams is taken for one of the number zero.
    """
    d = np.uint64(out.shape[1])
    for i in prange(len(out)):
        for j in range(max(1, sizes[i])):
            h, count = (numbers[starts[i] + j], counts[starts[i] + j]) if sizes[i] else (np.uint64(0), np.int32(1))
            weight = np.float32(1 + np.log(count)) if sublinear else np.float32(count)
            h = mixed(h + ODD)
            at = ((h >> S32) * d) >> S32
            out[i, at] += weight if h & ONE else -weight
        square = np.float32(0)
        for k in range(out.shape[1]):
            square += out[i, k] * out[i, k]
        if square > 0:
            scale = np.float32(1 / np.sqrt(square))
            for k in range(out.shape[1]):
                out[i, k] *= scale
        else:  # what cancels out to nothing
            out[i, 0] = 1
