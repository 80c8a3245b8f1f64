"""The checks that every selection function makes on its arrays before it starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


def _refuse(bad: NDArray[np.bool_], problem: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        named = ", ".join(map(str, rows[:5])) + (", …" if rows.size > 5 else "")
        raise ValueError(f"{rows.size} of {bad.size} {problem}: rows {named}")


def _matrix(embeddings: ArrayLike) -> tuple[Floats, Doubles]:
    x = np.ascontiguousarray(embeddings, dtype=np.float32)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"embeddings must be a non-empty [n, d] matrix, not of shape {x.shape}")
    # A NaN or an infinity anywhere in a row survives in its norm, so one pass finds them all.
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    _refuse(~np.isfinite(squares), "embeddings hold NaN or infinity")
    return x, squares


def finite_rows(embeddings: ArrayLike) -> Floats:
    """The embeddings as a contiguous float32[n, d], not copied when they already are.

    Raises ValueError for anything but a non-empty matrix, and names the rows that hold NaN or infinity.
    """
    return _matrix(embeddings)[0]


def unit_rows(embeddings: ArrayLike) -> Floats:
    """The embeddings as float32[n, d] with rows of length one, so that dot products are cosines.

    Raises ValueError as `finite_rows` does, and also names zero rows: they have no direction.
    """
    x, squares = _matrix(embeddings)
    _refuse(squares == 0, "embeddings are zero vectors, which have no cosine")
    return x / np.sqrt(squares).astype(np.float32)[:, None]


def finite_scores(scores: ArrayLike, n: int, name: str = "quality") -> Doubles:
    """One float64 score per example. Raises ValueError for another length and names rows not finite."""
    q = np.asarray(scores, dtype=np.float64)
    if q.shape != (n,):
        raise ValueError(f"{name} must hold one score for each of {n} examples, not shape {q.shape}")
    _refuse(~np.isfinite(q), f"values of {name} are NaN or infinite")
    return q


def check_budget(budget: int, available: int) -> int:
    """The budget as an int. Raises ValueError unless 0 < budget <= available."""
    if not 0 < budget <= available:
        raise ValueError(f"budget must be between 1 and the {available} examples available, not {budget}")
    return int(budget)
