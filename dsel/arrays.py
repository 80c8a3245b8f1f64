"""The checks that every selection function makes on its arrays before it starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


def refuse(bad: Bools, problem: str) -> None:
    """Raise ValueError naming the first rows that are `bad` [n], if any are."""
    rows = np.flatnonzero(bad)
    if rows.size:
        named = ", ".join(map(str, rows[:5])) + (", …" if rows.size > 5 else "")
        raise ValueError(f"{rows.size} of {bad.size} {problem}: rows {named}")


def finite_rows(embeddings: ArrayLike) -> Floats:
    """The embeddings as a contiguous float32[n, d], not copied when they already are.

    Raises ValueError for anything but a non-empty matrix, and names the rows that hold NaN or infinity.
    """
    x = np.ascontiguousarray(embeddings, dtype=np.float32)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"embeddings must be a non-empty [n, d] matrix, not of shape {x.shape}")
    # A NaN or an infinity anywhere in a row survives in its sum, so one quick pass clears most pools.
    with np.errstate(invalid="ignore", over="ignore"):
        suspect = np.flatnonzero(~np.isfinite(np.einsum("nd->n", x)))
    bad = np.zeros(len(x), dtype=bool)
    bad[suspect] = ~np.isfinite(x[suspect]).all(axis=1)
    refuse(bad, "embeddings hold NaN or infinity")
    return x


def lengths(x: Floats) -> Floats:
    """Euclidean lengths float32[n] of finite rows [n, d]. Raises ValueError naming rows of length zero."""
    result = lengths_or_zero(x)
    refuse(result == 0, "embeddings are zero vectors, which have no cosine")
    return result


def lengths_or_zero(x: Floats) -> Floats:
    """Euclidean lengths float32[n] of finite rows [n, d], also where a square is beyond float32."""
    squares = np.einsum("nd,nd->n", x, x)
    unsafe = np.flatnonzero((squares < 1e-30) | ~np.isfinite(squares))
    result = np.sqrt(squares)
    result[unsafe] = np.linalg.norm(x[unsafe].astype(np.float64), axis=1)
    return result


def unit_rows(embeddings: ArrayLike) -> Floats:
    """A copy of the embeddings with rows of length one, float32[n, d], so that dot products are cosines.

    Raises ValueError as `finite_rows` and `lengths` do.
    """
    x = finite_rows(embeddings)
    return x / lengths(x)[:, None]


def finite_scores(scores: ArrayLike, n: int, name: str = "quality") -> Doubles:
    """One float64 score per example. Raises ValueError for another length and names rows not finite."""
    q = np.asarray(scores, dtype=np.float64)
    if q.shape != (n,):
        raise ValueError(f"{name} must hold one score for each of {n} examples, not shape {q.shape}")
    refuse(~np.isfinite(q), f"values of {name} are NaN or infinite")
    return q


def check_budget(budget: int, available: int) -> int:
    """The budget as an int. Raises ValueError unless 0 < budget <= available."""
    if not 0 < budget <= available:
        raise ValueError(f"budget must be between 1 and the {available} examples available, not {budget}")
    return int(budget)


def check_indices(values: ArrayLike, n: int, name: str) -> Indices:
    """Indices as int64. Raises ValueError for any outside 0..n-1: a negative one is a mistake, not an end."""
    indices = np.asarray(values, dtype=np.int64).ravel()
    if ((indices < 0) | (indices >= n)).any():
        raise ValueError(f"{name} must be indices from 0 to {n - 1}")
    return indices
