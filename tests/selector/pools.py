"""Pools of embeddings that a selector might meet."""

import hypothesis.strategies as st
import numpy as np


@st.composite
def pools(draw, max_n: int = 60, max_d: int = 8):
    """float32[n, d], rows not zero: scattered or in tight groups, with or without copies, or all equal."""
    n, d = draw(st.integers(1, max_n)), draw(st.integers(1, max_d))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["scattered", "groups", "copies", "equal", "grid"]))
    x: np.ndarray = rng.standard_normal((n, d))
    if kind == "groups":
        x = x[rng.integers(0, 1 + n // 8, n)] + 0.05 * x
    elif kind == "copies":
        x = x[rng.integers(0, 1 + n // 3, n)]
    elif kind == "equal":
        x = np.repeat(x[:1], n, axis=0)
    elif kind == "grid":
        x = rng.integers(-2, 3, (n, d)) + 0.0
    x[np.abs(x).sum(axis=1) == 0] = 1
    return x.astype(np.float32)


def scattered(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Points in overlapping groups, no two alike: no ties."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, n // 40), d))
    return (centres[rng.integers(0, len(centres), n)] + 0.7 * rng.standard_normal((n, d))).astype(np.float32)
