"""Near-duplicates: against the definition, and in front of another selector."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.selector import semdedup
from dsel.selector.semdedup import redundancy


def plain(x: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    centres = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    out = np.full(len(x), -1.0)
    for c in range(len(centroids)):
        members = sorted(np.flatnonzero(labels == c), key=lambda i: (float(unit[i] @ centres[c]), i))
        for rank, i in enumerate(members):
            if rank:
                out[i] = max(float(unit[i] @ unit[j]) for j in members[:rank])
    return out


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 10**6), st.integers(1, 50))
def test_redundancy_is_the_definition_whatever_the_block(n: int, k: int, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    labels = rng.integers(k, size=n)
    centroids = rng.normal(size=(k, 6)).astype(np.float32)
    before, semdedup.BLOCK = semdedup.BLOCK, block
    try:
        found = redundancy(x, labels, centroids)
    finally:
        semdedup.BLOCK = before
    np.testing.assert_allclose(found, plain(x, labels, centroids), atol=1e-5)


def test_of_exact_copies_one_is_left() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(10, 8)), 3, axis=0).astype(np.float32)
    similar = redundancy(x, np.zeros(30, dtype=int), x.mean(0, keepdims=True))
    kept = np.flatnonzero(similar <= 0.999)
    assert sorted(kept // 3) == list(range(10))
