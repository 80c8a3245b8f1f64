import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dsel.selector import kmq


@st.composite
def draws(draw):
    """Clusters of any sizes, some empty, some examples excluded, a budget that can be met."""
    n, k = draw(st.integers(2, 80)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = (rng.random(n) ** draw(st.sampled_from([1, 4])) * k).astype(int)
    exclude = rng.choice(n, draw(st.integers(0, n - 1)), replace=False) if draw(st.booleans()) else None
    weights = None
    if draw(st.booleans()):
        weights = rng.random(k) * rng.integers(0, 2, k)
        weights[rng.integers(k)] = 1
    budget = draw(st.integers(1, n - (0 if exclude is None else len(exclude))))
    return labels, rng.standard_normal(n) * draw(st.sampled_from([0, 1, 1e6])), budget, weights, exclude


@given(case=draws(), allocation=st.sampled_from(["proportional", "equal"]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=200)
def test_budget_is_exact_and_draws_distinct_and_repeatable(case, allocation, seed):
    labels, quality, budget, weights, exclude = case

    def draw():
        rng = np.random.default_rng(seed)
        how = {"weights": weights, "exclude": exclude, "allocation": allocation}
        return kmq.sample(labels, quality, budget, rng, **how)

    ours = draw()
    assert ours.dtype == np.int64 and len(set(ours.tolist())) == budget == len(ours)
    assert ours.min() >= 0 and ours.max() < len(labels)
    assert exclude is None or not np.isin(ours, exclude).any()
    np.testing.assert_array_equal(ours, draw())


def shares_by_hand(budget, sizes, weights):
    """Water level: the real-valued shares min(size, level * weight) that add up to the budget."""
    low, high = 0.0, (sizes / np.where(weights > 0, weights, np.inf)).max() + 1
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(sizes, level * weights).sum() < budget else (low, level)
    return np.minimum(sizes, high * weights)


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=15),
    data=st.data(),
)
@settings(deadline=None, max_examples=200)
def test_allocation_is_within_one_of_the_shares(sizes, data):
    sizes = np.array(sizes)
    if not sizes.any():
        return
    weights = np.array(data.draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes))))
    budget = data.draw(st.integers(1, int(sizes.sum())))
    quotas = kmq.allocate(budget, sizes, weights)
    assert quotas.sum() == budget and (quotas >= 0).all() and (quotas <= sizes).all()
    assert np.abs(quotas - shares_by_hand(budget, sizes, weights)).max() < 1 + 1e-6


def test_largest_remainders():
    np.testing.assert_array_equal(kmq.allocate(10, [50, 30, 20], [50, 30, 20]), [5, 3, 2])
    np.testing.assert_array_equal(kmq.allocate(10, [46, 33, 21], [46, 33, 21]), [5, 3, 2])
    np.testing.assert_array_equal(kmq.allocate(5, [9, 9, 9], [1, 1, 1]), [2, 2, 1])


def test_what_a_small_cluster_cannot_give_goes_to_the_others_in_proportion():
    np.testing.assert_array_equal(kmq.allocate(30, [2, 100, 100], [1, 1, 1]), [2, 14, 14])
    np.testing.assert_array_equal(kmq.allocate(20, [2, 100, 100], [8, 1, 2]), [2, 6, 12])
    # The first overflow makes the second cluster overflow in turn.
    np.testing.assert_array_equal(kmq.allocate(100, [5, 34, 100], [1, 1, 1]), [5, 34, 61])


def test_clusters_of_no_weight_are_the_last_resort():
    np.testing.assert_array_equal(kmq.allocate(4, [5, 5, 5], [0, 1, 0]), [0, 4, 0])
    np.testing.assert_array_equal(kmq.allocate(9, [5, 5, 5], [0, 1, 0]), [2, 5, 2])


def test_weights_of_any_scale():
    for scale in (1e-300, 1e300):
        np.testing.assert_array_equal(kmq.allocate(10, [50, 50], np.array([3, 7]) * scale), [3, 7])


def test_shares_count_only_what_is_available():
    labels = np.repeat([0, 1], [60, 40])
    ours = kmq.sample(labels, None, 10, np.random.default_rng(0), exclude=np.arange(20, 60))
    assert np.bincount(labels[ours]).tolist() == [3, 7]


def test_one_cluster_and_the_whole_pool():
    ours = kmq.sample(np.zeros(20, dtype=int), None, 20, np.random.default_rng(0))
    assert sorted(ours) == list(range(20))


def test_draws_follow_the_softmax_one_after_another():
    """The frequency of every ordered pair against p_i p_j / (1 - p_i), within five standard errors."""
    quality, times = np.array([0.0, 0.5, 1.0, 2.0]), 20_000
    p = np.exp(quality) / np.exp(quality).sum()
    expected = p[:, None] * p / (1 - p[:, None]) * (1 - np.eye(4))
    rng, seen = np.random.default_rng(0), np.zeros((4, 4))
    for _ in range(times):
        i, j = kmq.sample(np.zeros(4, dtype=int), quality, 2, rng)
        seen[i, j] += 1
    error = np.sqrt(expected * (1 - expected) / times) + 1e-12
    assert (np.abs(seen / times - expected) <= 5 * error).all()


def test_no_quality_is_uniform():
    rng, seen = np.random.default_rng(0), np.zeros(6)
    for _ in range(6000):
        seen[kmq.sample(np.array([0, 0, 0, 1, 1, 1]), None, 2, rng)] += 1
    assert np.abs(seen / 6000 - 1 / 3).max() < 0.03


def test_scores_too_large_for_an_exponential():
    quality = np.array([1e5, 1e5 - 800, -1e5, 1e5 + 800])
    ours = kmq.sample(np.zeros(4, dtype=int), quality, 3, np.random.default_rng(0))
    assert ours.tolist() == [3, 0, 1]


def test_bad_arguments():
    rng, labels = np.random.default_rng(0), np.array([0, 0, 1])
    with pytest.raises(ValueError, match="budget must be between 1 and the 2 examples available"):
        kmq.sample(labels, None, 3, rng, exclude=[1])
    with pytest.raises(ValueError, match="quality .* rows 2"):
        kmq.sample(labels, [0, 1, np.nan], 1, rng)
    with pytest.raises(ValueError, match="each of 2 clusters"):
        kmq.sample(labels, None, 1, rng, weights=[1])
    with pytest.raises(ValueError, match="none negative"):
        kmq.sample(labels, None, 1, rng, weights=[1, -1])
    with pytest.raises(ValueError, match="labels"):
        kmq.sample([0, -1], None, 1, rng)
    with pytest.raises(ValueError, match="allocation"):
        kmq.sample(labels, None, 1, rng, allocation="by name")
    with pytest.raises(ValueError, match="exclude"):
        kmq.sample(labels, None, 1, rng, exclude=[3])
