"""Sums of kernels over neighbours against all distances."""

import numpy as np
import pytest

from dsel.selector import density


@pytest.mark.parametrize("neighbours", [2, 40, 600])
@pytest.mark.parametrize(("d", "spread"), [(96, 0.05), (96, 0.5), (7, 0.05)])
def test_density_is_exact_whichever_columns_come_first(d, spread, neighbours):
    """In groups that few or many directions tell apart: all pairs of the one are within σ, few of the other."""
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(30, d))[rng.integers(0, 30, 600)] * spread + rng.normal(size=(600, d)) * 0.02
    far = np.linalg.norm(pool[:300, None] - pool, axis=2)  # so many that they have cells
    expected = np.sort(np.maximum(0, 1 - far**2 / 0.75**2), axis=1)[:, -neighbours:].sum(axis=1)
    turned = pool.astype(np.float32)
    density.turn(turned)
    for rows in (pool, turned):
        found = density.kde(rows, np.arange(300), sigma=0.75, neighbours=neighbours)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (turned.var(axis=0)[:-1] >= turned.var(axis=0)[1:] * 0.99).all()


def test_the_inverted_file_is_nearly_exact():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(3000, 16)) * 0.15
    exact = density.kde(pool, np.arange(50), sigma=0.75, neighbours=300)
    lists = density.kde_by_lists(pool, np.arange(50), sigma=0.75, neighbours=300)
    assert (lists <= exact * (1 + 1e-5)).all() and (lists > 0).all()
    everything = density.kde(pool, np.arange(50), sigma=0.75, neighbours=len(pool))
    far = np.linalg.norm(pool[:50, None] - pool, axis=2)
    np.testing.assert_allclose(everything, np.maximum(0, 1 - far**2 / 0.75**2).sum(axis=1), rtol=1e-4)
