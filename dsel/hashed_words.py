"""Words of many texts as numbers, and runs of them, all of a block at once in NumPy.

A text is read without its case, punctuation and the digits of its numbers: each number is a word's `0`. Two texts whose
words are equal have equal numbers; other words have others, but for one in 2**64.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from dsel.arrays import Indices
from dsel.words import unspaced, words_and_signs

Hashes = npt.NDArray[np.uint64]

DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
END = "\0"  # of a text among others
NOTHING, LETTER, DIGIT, POINT = range(4)
BASE, STEP = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd, so that they have inverses
STIR = np.uint64(0xFF51AFD7ED558CCD)


def normalised(text: str, *, numbers: bool = False) -> list[str]:
    """The words of a text as they are compared; numbers: with their digits."""
    text = text.casefold()
    found = words_and_signs(text if numbers else DIGITS.sub("0", text))
    return [word for word in found if word[0].isalnum() or word[0] == "_"]


def hashed(texts: Sequence[str], *, numbers: bool = False) -> tuple[Hashes, Indices]:
    """The words that `normalised` finds in each text, as numbers. numbers: with their digits.

    Takes some 20 ns a character of one core, and 60 bytes of memory while it is made.

    Returns:
        (uint64[w], all texts' words one after the other; int64[n + 1], where each text's begin, and the last's end)
    """
    if not texts:
        return np.empty(0, np.uint64), np.zeros(1, np.int64)
    whole = END.join(_spaced(text, numbers) for text in texts).casefold() + END
    if whole.isascii():
        codes: npt.NDArray[np.integer] = np.frombuffer(whole.encode("ascii"), np.uint8)
    else:
        codes = np.frombuffer(whole.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[codes]
    if numbers:
        kinds[kinds == DIGIT] = LETTER
    digit, between = kinds == DIGIT, kinds == POINT
    between[1:-1] &= digit[:-2] & digit[2:]
    between[[0, -1]] = False
    number = digit | between
    first = number.copy()  # of a number: what stands for all of it
    first[1:] &= ~number[:-1]
    letter = kinds == LETTER
    begins = letter | number
    begins[1:] &= ~begins[:-1].copy()
    used = np.flatnonzero(letter | first)
    starts = np.flatnonzero(begins[used])
    ends = np.flatnonzero(codes == 0)
    bounds = np.concatenate([[0], np.searchsorted(used[starts], ends)]).astype(np.int64)
    if not len(starts):
        return np.empty(0, np.uint64), bounds
    letters = np.where(first[used], ord("0"), codes[used]).astype(np.uint64) * _powers(BASE, len(used))
    words = np.add.reduceat(letters, starts) * _powers(_inverse(BASE), len(used))[starts]
    return _stirred(words), bounds


def runs(words: Hashes, size: int) -> Hashes:
    """A number for each `size` words that follow each other, by the place of the first: uint64[w - size + 1]."""
    if len(words) < size:
        return np.empty(0, np.uint64)
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(words * _powers(STEP, len(words)), out=sums[1:])
    found = (sums[size:] - sums[:-size]) * _powers(_inverse(STEP), len(words))[: len(sums) - size]
    return _stirred(found + np.uint64(size))


def _spaced(text: str, numbers: bool) -> str:
    """A text with spaces between its words where its script has none, and without the sign that ends it here."""
    if END in text:
        text = text.replace(END, " ")
    return " ".join(normalised(text, numbers=numbers)) if unspaced(text) else text


def _stirred(values: Hashes) -> Hashes:
    """Each bit of a number decides about each of what comes out."""
    values = (values ^ (values >> np.uint64(32))) * STIR
    return np.asarray(values ^ (values >> np.uint64(29)), dtype=np.uint64)


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """What each character is: uint8[1,114,112]."""
    every = [chr(code) for code in range(0x110000)]
    kinds = np.fromiter((LETTER if c.isalnum() or c == "_" else NOTHING for c in every), np.uint8, len(every))
    kinds[np.fromiter(map(str.isdecimal, every), np.bool_, len(every))] = DIGIT
    kinds[[ord("."), ord(",")]] = POINT
    return kinds


_POWERS: dict[int, Hashes] = {}


def _powers(base: int, count: int) -> Hashes:
    """base**0, base**1, … modulo 2**64, at least so many: kept, as each block needs them."""
    known = _POWERS.get(base)
    if known is None or len(known) < count:
        factors = np.full(max(count, 2**16) * 5 // 4, base, np.uint64)
        factors[0] = 1
        known = _POWERS[base] = np.multiply.accumulate(factors)
    return known[:count]


def _inverse(base: int) -> int:
    return pow(base, -1, 2**64)
