import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dsel.selector.sampling import allocate, sample


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
        return sample(labels, quality, budget, rng, **how)

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
    quotas = allocate(budget, sizes, weights)
    assert quotas.sum() == budget and (quotas >= 0).all() and (quotas <= sizes).all()
    assert np.abs(quotas - shares_by_hand(budget, sizes, weights)).max() < 1 + 1e-6


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=15), seed=st.integers(0, 99), data=st.data())
@settings(deadline=None, max_examples=200)
def test_drawn_remainders_round_the_shares_up_or_down(sizes, seed, data):
    sizes = np.array(sizes)
    weights = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.7]), min_size=len(sizes), max_size=len(sizes)))
    )
    room = int(sizes[weights > 0].sum())
    if not room:
        return
    budget = data.draw(st.integers(1, room))
    quotas = allocate(budget, sizes, weights, rng=np.random.default_rng(seed))
    assert quotas.sum() == budget and (quotas <= sizes).all()
    assert not quotas[weights == 0].any()
    expected = shares_by_hand(budget, sizes, weights)
    assert (quotas >= np.floor(expected - 1e-6)).all() and (quotas <= np.ceil(expected + 1e-6)).all()


@pytest.mark.parametrize(
    ("budget", "weights"),
    [(32, np.ones(100)), (7, np.ones(3)), (5, np.array([5.0, 1, 3, 1, 2.5])), (40, np.linspace(1, 3, 30))],
    ids=["few from many", "more than clusters", "uneven", "rising"],
)
def test_drawn_remainders_favour_no_cluster(budget, weights):
    """Over many draws each cluster gets its share, within five standard errors: the low-numbered ones too."""
    times, rng = 4000, np.random.default_rng(0)
    sizes = np.full(len(weights), 1000)
    quotas = np.array([allocate(budget, sizes, weights, rng=rng) for _ in range(times)])
    expected = budget * weights / weights.sum()
    fraction = expected - np.floor(expected)
    error = np.sqrt(fraction * (1 - fraction) / times) + 1e-12
    assert (np.abs(quotas.mean(axis=0) - expected) <= 5 * error).all()


def test_drawn_remainders_are_not_those_of_neighbours():
    """Of 100 equal clusters 32: two of them are in together about as often as chance has it, near or far in number."""
    times, rng = 4000, np.random.default_rng(0)
    drawn = np.array([allocate(32, np.full(100, 9), np.ones(100), rng=rng) for _ in range(times)]).astype(float)
    together = drawn.T @ drawn / times
    off = ~np.eye(100, dtype=bool)
    expected = 0.32 * 31 / 99
    assert np.abs(together[off] - expected).max() < 6 * np.sqrt(expected * (1 - expected) / times)


def test_samples_by_weight_favour_no_cluster():
    labels, rng, seen = np.repeat(np.arange(50), 4), np.random.default_rng(0), np.zeros(50)
    for _ in range(2000):
        chosen = sample(labels, None, 20, rng, weights=np.ones(50), exclude=np.arange(0, 200, 4))
        assert len(set(chosen.tolist())) == 20 and (chosen % 4).all()
        seen += np.bincount(labels[chosen], minlength=50)
    assert np.abs(seen / 2000 - 0.4).max() < 5 * np.sqrt(0.24 / 2000)


def test_samples_by_weight_leave_clusters_of_no_weight_alone_while_others_have_room():
    labels, weights = np.repeat([0, 1, 2], 10), [0.0, 1.0, 1e-12]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counts = [np.bincount(labels[sample(labels, None, b, rng, weights=weights)], minlength=3) for b in (9, 15, 20)]
        assert [c[0] for c in counts] == [0, 0, 0]
        assert counts[1].tolist() == [0, 10, 5] and counts[2].tolist() == [0, 10, 10]
    assert np.bincount(labels[sample(labels, None, 25, rng, weights=weights)]).tolist() == [5, 10, 10]


def test_largest_remainders():
    np.testing.assert_array_equal(allocate(10, [50, 30, 20], [50, 30, 20]), [5, 3, 2])
    np.testing.assert_array_equal(allocate(10, [46, 33, 21], [46, 33, 21]), [5, 3, 2])
    np.testing.assert_array_equal(allocate(5, [9, 9, 9], [1, 1, 1]), [2, 2, 1])


def test_what_a_small_cluster_cannot_give_goes_to_the_others_in_proportion():
    np.testing.assert_array_equal(allocate(30, [2, 100, 100], [1, 1, 1]), [2, 14, 14])
    np.testing.assert_array_equal(allocate(20, [2, 100, 100], [8, 1, 2]), [2, 6, 12])
    # The first overflow makes the second cluster overflow in turn.
    np.testing.assert_array_equal(allocate(100, [5, 34, 100], [1, 1, 1]), [5, 34, 61])


def test_clusters_of_no_weight_are_the_last_resort():
    np.testing.assert_array_equal(allocate(4, [5, 5, 5], [0, 1, 0]), [0, 4, 0])
    np.testing.assert_array_equal(allocate(9, [5, 5, 5], [0, 1, 0]), [2, 5, 2])


def test_weights_of_any_scale():
    for scale in (1e-300, 1e300):
        np.testing.assert_array_equal(allocate(10, [50, 50], np.array([3, 7]) * scale), [3, 7])


def test_shares_count_only_what_is_available():
    labels = np.repeat([0, 1], [60, 40])
    ours = sample(labels, None, 10, np.random.default_rng(0), exclude=np.arange(20, 60))
    assert np.bincount(labels[ours]).tolist() == [3, 7]


def test_one_cluster_and_the_whole_pool():
    ours = sample(np.zeros(20, dtype=int), None, 20, np.random.default_rng(0))
    assert sorted(ours) == list(range(20))


def test_draws_follow_the_softmax_one_after_another():
    """The frequency of every ordered pair against p_i p_j / (1 - p_i), within five standard errors."""
    quality, times = np.array([0.0, 0.5, 1.0, 2.0]), 20_000
    p = np.exp(quality) / np.exp(quality).sum()
    expected = p[:, None] * p / (1 - p[:, None]) * (1 - np.eye(4))
    rng, seen = np.random.default_rng(0), np.zeros((4, 4))
    for _ in range(times):
        i, j = sample(np.zeros(4, dtype=int), quality, 2, rng)
        seen[i, j] += 1
    error = np.sqrt(expected * (1 - expected) / times) + 1e-12
    assert (np.abs(seen / times - expected) <= 5 * error).all()


def test_draws_in_proportion_follow_eq_3_one_after_another():
    """The frequency of every ordered pair against p_i p_j / (1 - p_i) with p ∝ q, within five standard errors."""
    quality, times = np.array([0.0, 0.5, 1.0, 2.0]), 20_000
    p = quality / quality.sum()
    expected = p[:, None] * p / (1 - p[:, None]) * (1 - np.eye(4))
    rng, seen = np.random.default_rng(0), np.zeros((4, 4))
    for _ in range(times):
        i, j = sample(np.zeros(4, dtype=int), quality, 2, rng, draw="proportional")
        seen[i, j] += 1
    error = np.sqrt(expected * (1 - expected) / times) + 1e-12
    assert (np.abs(seen / times - expected) <= 5 * error).all()


def test_examples_of_no_quality_come_last_and_in_any_order():
    quality, rng = np.array([0.0, 1e-9, 0.0, 1e9]), np.random.default_rng(0)
    orders = [sample(np.zeros(4, dtype=int), quality, 4, rng, draw="proportional").tolist() for _ in range(50)]
    firsts = {tuple(sample(np.zeros(4, dtype=int), quality, 3, rng, draw="proportional")) for _ in range(50)}
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert firsts == {(3, 1, 0), (3, 1, 2)}
    assert len({tuple(sorted(sample(np.zeros(3, dtype=int), np.zeros(3), 1, rng, draw="proportional")))
                for _ in range(50)}) == 3  # fmt: skip


def test_uniform_draws_do_not_read_the_quality():
    labels, quality = np.repeat([0, 1], 10), np.arange(20.0) * 100
    one = sample(labels, quality, 6, np.random.default_rng(4), draw="uniform")
    np.testing.assert_array_equal(one, sample(labels, None, 6, np.random.default_rng(4)))


def test_no_quality_is_uniform():
    rng, seen = np.random.default_rng(0), np.zeros(6)
    for _ in range(6000):
        seen[sample(np.array([0, 0, 0, 1, 1, 1]), None, 2, rng)] += 1
    assert np.abs(seen / 6000 - 1 / 3).max() < 0.03


def test_scores_too_large_for_an_exponential():
    quality = np.array([1e5, 1e5 - 800, -1e5, 1e5 + 800])
    ours = sample(np.zeros(4, dtype=int), quality, 3, np.random.default_rng(0))
    assert ours.tolist() == [3, 0, 1]


def test_bad_arguments():
    rng, labels = np.random.default_rng(0), np.array([0, 0, 1])
    with pytest.raises(ValueError, match="budget must be between 1 and the 2 examples available"):
        sample(labels, None, 3, rng, exclude=[1])
    with pytest.raises(ValueError, match="quality .* rows 2"):
        sample(labels, [0, 1, np.nan], 1, rng)
    with pytest.raises(ValueError, match="each of 2 clusters"):
        sample(labels, None, 1, rng, weights=[1])
    with pytest.raises(ValueError, match="none negative"):
        sample(labels, None, 1, rng, weights=[1, -1])
    with pytest.raises(ValueError, match="labels"):
        sample([0, -1], None, 1, rng)
    with pytest.raises(ValueError, match="allocation"):
        sample(labels, None, 1, rng, allocation="by name")
    with pytest.raises(
        ValueError, match="quality must not be negative for draws in proportion to it; the lowest is -1"
    ):
        sample(labels, [0, 1, -1], 1, rng, draw="proportional")
    with pytest.raises(ValueError, match="draw must be one of"):
        sample(labels, [0, 1, 1], 1, rng, draw="by name")
    with pytest.raises(ValueError, match="exclude"):
        sample(labels, None, 1, rng, exclude=[3])
