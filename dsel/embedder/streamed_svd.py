"""TF-IDF and its truncated SVD for pools whose terms do not fit into memory. Import this inside functions: numba.

The texts are gone through twice, to count their terms and to write the rows of the matrix into files; the SVD goes
through these files. In memory are the counts of terms (`MOST` of them: 0.6 GB), of the matrix one block of rows, and
some arrays of [features, dimensions]; time grows with the number of terms in all texts, times the dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from dsel.arrays import Doubles, Floats, Indices
from dsel.embedder.terms import S30, Hashes, batches, slot, terms
from dsel.files import piece, save_piece
from dsel.progress import progress, tracked

Counts = npt.NDArray[np.uint32]

PARTS = 8  # of the table of terms, each filled by a thread of its own; three bits of a number say which
FIRST, MOST = 2**20, 2**25  # entries of the table, at first and at most
FULL = 0.7  # of the entries
S3, S60, WHICH = np.uint64(3), np.uint64(60), np.uint64(PARTS - 1)
ROWS = 16_384  # of the matrix, gone through at once
WIDTH = 72  # dimensions that a thread computes: loops that are long enough for vector units, and two for 128 + 10
OVERSAMPLES, ITERATIONS = 10, 5  # of the randomised SVD, as scikit-learn has them
REORDER = {"reassoc", "contract", "nsz", "nnan"}


class Table:
    """How often each term occurs, and in how many texts.

    It grows to `MOST` entries. Then the rarest terms are dropped, those that were in one text, when it is full again in
    two, and so on (as in lossy counting, Manku & Motwani 2002). `drops` are the times; no count lacks more than `lost`.
    """

    def __init__(self) -> None:
        self.numbers = np.zeros((PARTS, FIRST // PARTS), dtype=np.uint64)
        self.times, self.texts = (np.zeros(self.numbers.shape, dtype=np.uint32) for _ in range(2))
        self.used = np.zeros(PARTS, dtype=np.int64)
        self.drops = 0

    def add(self, texts: list[str], ngram_max: int) -> None:
        numbers, counts, starts, sizes = terms(texts, ngram_max)
        self._make_room(int(sizes.sum()))
        _add(numbers, counts, starts, sizes, self.numbers, self.times, self.texts, self.used)

    @property
    def lost(self) -> int:
        """How many texts a term may be in that are not counted."""
        return self.drops * (self.drops + 1) // 2

    def _make_room(self, more: int) -> None:
        """For so many more terms, however they are spread over the parts."""
        while self.used.max() + more > FULL * self.numbers.shape[1]:
            size = self.numbers.shape[1]
            if size * PARTS < MOST:
                self._fill(size * 2, 0)
            elif self.used.max() > FULL * size / 2:
                self.drops += 1
                self._fill(size, self.drops)
            else:  # one batch has more terms than the table is to hold
                self._fill(size * 2, 0)

    def _fill(self, size: int, dropped: int) -> None:
        """The same terms in a table of another size, without those in so few texts."""
        old = self.numbers, self.times, self.texts
        self.numbers = np.zeros((PARTS, size), dtype=np.uint64)
        self.times, self.texts = (np.zeros(self.numbers.shape, dtype=np.uint32) for _ in range(2))
        _move(*old, dropped, self.numbers, self.times, self.texts, self.used)

    def most(self, min_df: int, limit: int) -> tuple[Hashes, Indices]:
        """The terms in `min_df` texts or more that occur most often, `limit` at most, and the texts that each is in."""
        kept = self.texts >= max(1, min_df)
        times = self.times[kept]
        if len(times) > limit:
            kept &= self.times >= np.partition(times, len(times) - limit)[len(times) - limit]
        numbers, times, texts = self.numbers[kept], self.times[kept], self.texts[kept]
        first = np.lexsort((numbers, -times.astype(np.int64)))[:limit]
        return numbers[first], texts[first].astype(np.int64)


@njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(
    numbers: Hashes,
    counts: Any,
    starts: Indices,
    sizes: Indices,
    known: Hashes,
    times: Counts,
    texts: Counts,
    used: Any,
) -> None:
    for part in prange(PARTS):
        for i in range(len(sizes)):
            for j in range(starts[i], starts[i] + sizes[i]):
                h = numbers[j]
                if (h >> S60) & WHICH != np.uint64(part):
                    continue
                at = slot(known[part], h, h >> S3)
                if known[part, at] == 0:
                    known[part, at] = h
                    used[part] += 1
                times[part, at] += np.uint32(counts[j])
                texts[part, at] += np.uint32(1)


@njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _move(
    old: Hashes,
    old_times: Counts,
    old_texts: Counts,
    dropped: int,
    known: Hashes,
    times: Counts,
    texts: Counts,
    used: Any,
) -> None:
    for part in prange(PARTS):
        used[part] = 0
        for j in range(old.shape[1]):
            if old[part, j] == 0 or old_texts[part, j] <= dropped:
                continue
            at = slot(known[part], old[part, j], old[part, j] >> S3)
            known[part, at], times[part, at], texts[part, at] = old[part, j], old_times[part, j], old_texts[part, j]
            used[part] += 1


@dataclass(frozen=True)
class Matrix:
    """Rows of terms with their weights, of length one, in two files: row i is from `starts[i]` to `starts[i + 1]`."""

    columns: npt.NDArray[Any]
    values: Floats
    starts: Indices
    features: int

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any], Floats, Indices]]:
        """The rows, some at a time: the number of the first, their columns, their values, and where each begins."""
        n = len(self.starts) - 1
        for start in range(0, n, ROWS):
            starts = self.starts[start : min(start + ROWS, n) + 1]
            part = slice(int(starts[0]), int(starts[-1]))
            yield start, np.asarray(self.columns[part]), np.asarray(self.values[part]), starts - starts[0]


def count(texts: Iterable[str], n: int, ngram_max: int) -> Table:
    """The terms of n texts."""
    table = Table()
    for batch in batches(tracked(texts, "terms of the texts", total=n, unit="texts")):
        table.add(batch, ngram_max)
    return table


def matrix(
    texts: Iterable[str], n: int, ngram_max: int, known: Hashes, frequency: Indices, sublinear: bool, folder: Path
) -> Matrix:
    """TF-IDF of n texts over the terms `known`, each in so many texts, in files of `folder`."""
    idf = (np.log((1 + n) / (1 + frequency)) + 1).astype(np.float32)
    table, slots = _indexed(known)
    small = np.uint16 if len(known) <= 2**16 else np.int32
    ends = [np.zeros(1, dtype=np.int64)]
    made = {name: folder / f"shard-made-{name}" for name in ("columns", "values")}
    with made["columns"].open("wb") as columns, made["values"].open("wb") as values:
        for batch in batches(tracked(texts, "TF-IDF of the texts", total=n, unit="texts")):
            found = terms(batch, ngram_max)
            column, value = np.empty(len(found.numbers), dtype=small), np.empty(len(found.numbers), dtype=np.float32)
            sizes = _weigh(*found, table, slots, idf, sublinear, column, value)
            inside = np.repeat(found.starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
            columns.write(column[inside].data)
            values.write(value[inside].data)
            ends.append(ends[-1][-1] + np.cumsum(sizes))
    for name, file in made.items():
        save_piece(_piece(folder, name), partial(os.rename, file))
    starts = np.concatenate([*ends, [len(known)]])
    save_piece(_piece(folder, "starts.npy"), lambda file: np.save(file, starts))
    return _read(folder)


def made_before(folder: Path) -> Matrix | None:
    """What `matrix` has made in `folder`, in a run that was killed later; None where it has not made all of it."""
    whole = all(piece(_piece(folder, name)) is not None for name in ("columns", "values", "starts.npy"))
    return _read(folder) if whole else None


def _read(folder: Path) -> Matrix:
    *_, features = starts = np.load(_piece(folder, "starts.npy"))
    small = np.uint16 if features <= 2**16 else np.int32
    maps = [_mapped(_piece(folder, name), kind) for name, kind in (("columns", small), ("values", np.float32))]
    return Matrix(maps[0], maps[1], starts[:-1], int(features))


def _mapped(file: Path, kind: type) -> npt.NDArray[Any]:
    return np.memmap(file, kind, "r") if file.stat().st_size else np.empty(0, dtype=kind)


def _piece(folder: Path, name: str) -> Path:
    return folder / f"shard-terms-{name}"


def _indexed(known: Hashes) -> tuple[Hashes, Indices]:
    """A table that says of each of the terms which one it is."""
    size = 64
    while size < 4 * len(known):
        size *= 2
    table, slots = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.int64)
    _index(known, table, slots)
    return table, slots


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _index(known: Hashes, table: Hashes, slots: Indices) -> None:
    for k in range(len(known)):
        at = slot(table, known[k], known[k] >> S30)
        table[at], slots[at] = known[k], k


@njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _weigh(
    numbers: Hashes, counts: Any, starts: Indices, sizes: Indices, table: Hashes, slots: Indices, idf: Floats,
    sublinear: bool, columns: Any, values: Floats,
) -> Indices:  # fmt: skip
    """The known terms of each text and their weights, from where its terms start; returns how many each has."""
    found = np.zeros(len(sizes), dtype=np.int64)
    for i in prange(len(sizes)):
        to, square = starts[i], 0.0
        for j in range(starts[i], starts[i] + sizes[i]):
            at = slot(table, numbers[j], numbers[j] >> S30)
            if table[at] == 0:
                continue
            weight = idf[slots[at]] * (np.float32(1 + np.log(counts[j])) if sublinear else np.float32(counts[j]))
            columns[to], values[to] = slots[at], weight
            square += weight * weight
            to += 1
        found[i] = to - starts[i]
        for j in range(starts[i], to):
            values[j] = np.float32(values[j] / np.sqrt(square))
    return found


def svd(rows: Matrix, rank: int, seed: int) -> Floats:
    """The first `rank` right singular vectors, float32[features, rank]: a randomised SVD (Halko et al. 2011).

    It goes through A'A, whose products need the rows of A once each; A itself is never asked for anything of length n.
    What comes out is what iterations of A and A' in turn give, in the subspace that they have reached.
    """
    draws = np.random.default_rng(seed)
    w = draws.normal(size=(rows.features, min(rank + OVERSAMPLES, rows.features)))
    n = len(rows.starts) - 1
    with progress(f"SVD of TF-IDF to {rank} dimensions", total=(ITERATIONS + 1) * n, unit="rows") as advance:
        for _ in range(ITERATIONS):
            w = np.linalg.qr(_through(rows, w, advance))[0]
        z = _through(rows, w, advance)
    # With Q an orthonormal basis of A w, Q'A = e^(-1/2) E' z', of the eigenvalues e and vectors E of w'A'A w = w'z.
    values, vectors = np.linalg.eigh((w.T @ z + z.T @ w) / 2)
    kept = values > values[-1] * 1e-10
    within = (vectors[:, kept] / np.sqrt(values[kept])).T @ z.T
    right = np.linalg.svd(within, full_matrices=False)[2][:rank]
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    return np.ascontiguousarray((right * signs[:, None]).T, dtype=np.float32)


def project(rows: Matrix, right: Floats) -> Iterator[tuple[int, Floats]]:
    """The rows' products with the columns of `right`, of length one: the number of the first of some, and these.

    A row without terms gets the mean of all.
    """
    means = np.zeros(rows.features)
    for _, columns, values, _ in rows.blocks():
        means += np.bincount(columns, values, minlength=rows.features)
    mean = (means @ right / (len(rows.starts) - 1)).astype(np.float32)
    n = len(rows.starts) - 1
    with progress("vectors of the texts", total=n, unit="texts") as advance:
        for start, columns, values, starts in rows.blocks():
            out = np.empty((len(starts) - 1, right.shape[1]), dtype=np.float32)
            _times(columns, values, starts, right, out)
            norms = np.linalg.norm(out, axis=1, keepdims=True)
            out = np.where(norms > 1e-6, out, mean)
            yield start, out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
            advance(len(out))


def _through(rows: Matrix, w: Doubles, advance: Callable[[int], None]) -> Doubles:
    """A'A w, float64[features, k], in blocks of rows whose products are of single precision."""
    width = -(-w.shape[1] // WIDTH)
    split = np.zeros((width, rows.features, WIDTH), dtype=np.float32)
    for b in range(width):
        part = w[:, b * WIDTH : (b + 1) * WIDTH]
        split[b, :, : part.shape[1]] = part
    total, some = np.zeros(split.shape), np.empty_like(split)
    for _, columns, values, starts in rows.blocks():
        some[:] = 0
        _both(columns, values, starts, split, some)
        total += some
        advance(len(starts) - 1)
    return np.concatenate(list(total), axis=1)[:, : w.shape[1]]


@njit(parallel=True, nogil=True, fastmath=REORDER)  # type: ignore[untyped-decorator]
def _both(columns: Any, values: Floats, starts: Indices, w: Any, out: Any) -> None:
    """Add A'(A w) to `out`; each thread has some of the dimensions, so that sums are made in one order."""
    for b in prange(len(w)):
        product = np.empty(WIDTH, dtype=np.float32)
        flat, sums = w[b].reshape(-1), out[b].reshape(-1)  # one index: four times as fast
        for i in range(len(starts) - 1):
            product[:] = 0
            for j in range(starts[i], starts[i + 1]):
                at, value = np.int64(columns[j]) * WIDTH, values[j]
                for k in range(WIDTH):
                    product[k] += value * flat[at + k]
            for j in range(starts[i], starts[i + 1]):
                at, value = np.int64(columns[j]) * WIDTH, values[j]
                for k in range(WIDTH):
                    sums[at + k] += value * product[k]


@njit(parallel=True, nogil=True, fastmath=REORDER)  # type: ignore[untyped-decorator]
def _times(columns: Any, values: Floats, starts: Indices, right: Floats, out: Floats) -> None:
    for i in prange(len(out)):
        out[i] = 0
        for j in range(starts[i], starts[i + 1]):
            for k in range(out.shape[1]):
                out[i, k] += values[j] * right[columns[j], k]
