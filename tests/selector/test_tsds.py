"""TSDS's probabilities: what the released code returns, and that they are the transport of least cost."""

import numpy as np
import pytest

from dsel.selector import tsds
from dsel.selector.density import kde
from tests.conftest import GOLDEN

SETTINGS = [(0.5, 5.0, 0.75), (0.5, 5.0, 0.0), (0.9, 5.0, 0.0), (0.9, 1.0, 0.75)]


@pytest.mark.parametrize(("alpha", "c", "sigma"), SETTINGS)
def test_probabilities_are_the_released_ones(alpha, c, sigma):
    embeddings = np.load(GOLDEN / "alpaca_gpt4_999.npz")["embeddings"].astype(np.float64)
    golden, name = np.load(GOLDEN / "targets" / "tsds.npz"), f"alpaca_a{alpha}_C{c}_s{sigma}__"
    targets, pool = embeddings[:40], embeddings[40:]
    ours, distance = tsds.probabilities(pool, targets, alpha=alpha, c=c, sigma=sigma)
    assert abs(ours - golden[name + "probs"]).sum() < 1e-3
    far = np.linalg.norm(targets[:, None] - pool, axis=2)
    assert (distance >= far.min(axis=0) - 1e-6).all() and np.isfinite(distance[ours > 0]).all()
    nearest = np.argsort(far, axis=1, kind="stable")[:, :95]
    weight = np.ones(len(pool))
    if sigma:
        known = np.unique(nearest)
        weight[known] = kde(pool[known], np.arange(len(known)), sigma=sigma, neighbours=95)
    _, filled = tsds.transport(np.take_along_axis(far, nearest, 1), weight[nearest], alpha=alpha, c=c)
    np.testing.assert_array_equal(filled - 1, golden[name + "lastK"])


def test_draws_are_distinct_and_end_with_the_nearest():
    probability, distance = np.array([0.5, 0.0, 0.5, 0.0]), np.array([1.0, 0.3, 1.0, 0.2])
    drawn = tsds.draw(probability, distance, 4, np.random.default_rng(0))
    assert set(drawn[:2]) == {0, 2} and drawn[2:].tolist() == [3, 1]
    rng = np.random.default_rng(1)
    first = [int(tsds.draw(np.array([0.8, 0.2]), np.zeros(2), 1, rng)[0]) for _ in range(2000)]
    assert abs(np.mean(first) - 0.2) < 0.03


def test_no_other_level_costs_less():
    """KNN-Uniform: each target spreads over its K nearest, and K minimises the objective (Liu et al. 2024, §4.2)."""
    rng = np.random.default_rng(0)
    far, alpha, c = np.sort(rng.random((6, 30)), axis=1), 0.9, 1.0
    _, filled = tsds.transport(far, np.ones_like(far), alpha=alpha, c=c)
    grown = [np.sum(far[:, k, None] - far[:, :k]) for k in range(1, 29)]  # what the next neighbour would cost more
    first = 1 + next(i for i, cost in enumerate(grown) if alpha / c * cost >= (1 - alpha) * 6)
    assert set(filled.tolist()) <= {first - 1, first}


def test_too_few_neighbours_are_said():
    far = np.tile(np.linspace(0.1, 0.2, 5), (3, 1))
    assert tsds.transport(far, np.ones_like(far), alpha=0.01, c=5.0) is None


def test_a_level_at_which_some_targets_have_filled_all():
    """Without densities many neighbours are full at one level: the targets before it in the order have none left."""
    mass, filled = tsds.transport([[0.0, 1.0]] * 3, np.ones((3, 2)), alpha=0.5, c=0.5)
    assert filled.tolist() == [1, 0, 0]
    np.testing.assert_allclose(mass, [[1 / 3]] * 3)


@pytest.mark.parametrize("n", [1, 2, 60])
@pytest.mark.parametrize("sigma", [0.0, 1e-4, 0.75])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_small_pools_and_narrow_kernels(n, sigma):
    """A density is 1 or more, as an example is near to itself; where rounding says otherwise, too."""
    rng = np.random.default_rng(0)
    pool, targets = (rng.normal(size=(size, 384)).astype(np.float32) for size in (n, 3))
    probability, distance = tsds.probabilities(pool, targets, sigma=sigma)
    assert np.isclose(probability.sum(), 1)
    assert len(tsds.draw(probability, distance, n, rng)) == n
