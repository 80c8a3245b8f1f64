"""The statistics of the tables, against cases computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.report.statistics import (
    difference,
    differences,
    holm,
    inseparable,
    mean,
    p_value,
    ranks,
    standard_error,
    student_t,
)

NAN = math.nan
SEEDS = st.lists(st.integers(-1000, 1000).map(lambda v: v / 8), min_size=2, max_size=5)  # sums of these are exact


def test_mean_and_standard_error_by_hand() -> None:
    # deviations -2, 0, 2: squares sum to 8, over n - 1 = 2 is 4, deviation 2, over the root of 3
    assert mean([40, 42, 44]) == 42
    assert standard_error([40, 42, 44]) == pytest.approx(2 / math.sqrt(3))
    # deviations -1.5, -0.5, 0.5, 1.5: squares sum to 5, over 3; over 4 for the error's square
    assert standard_error([1, 2, 3, 4]) == pytest.approx(math.sqrt(5 / 12))


def test_one_seed_has_a_mean_and_no_error() -> None:
    assert mean([42.5]) == 42.5
    assert math.isnan(standard_error([42.5]))
    assert all(map(math.isnan, student_t([1.0])))


def test_no_seed_has_nothing() -> None:
    assert math.isnan(mean([]))
    assert math.isnan(standard_error([]))


def test_students_interval_by_hand() -> None:
    # two degrees of freedom: 4.3027 standard errors to each side
    low, high = student_t([1, 2, 3])
    reach = 4.302653 / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - reach, 2 + reach))
    assert student_t([1, 2, 3], confidence=0.5) == pytest.approx((2 - 0.816497 / 3**0.5, 2 + 0.816497 / 3**0.5))


REPLICATES = 20_000


def coverage(gaps: np.ndarray, truth: float) -> float:
    """How often the interval that reports print, of each row of `gaps`, holds the truth."""
    return float(np.mean([low <= truth <= high for low, high in map(student_t, gaps)]))


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_the_interval_covers_what_it_says(seeds: int) -> None:
    """Of two methods that share a seed's luck; 0.0015 is the simulation's own standard error."""
    rng = np.random.default_rng(seeds)
    luck, one, other = rng.normal(size=(3, REPLICATES, seeds))
    gaps = (50 + 2 * luck + one) - (49 + 2 * luck + 0.5 * other)
    assert 0.944 < coverage(gaps, 1) < 0.956


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.87), (5, 0.87), (10, 0.89), (20, 0.91)])
def test_gaps_as_skewed_as_waiting_times_are_covered_less(seeds: int, least: float) -> None:
    """For information: no interval of three such gaps can know that."""
    gaps = np.random.default_rng(seeds).exponential(size=(REPLICATES // 4, seeds))
    assert least < coverage(gaps, 1) < 0.95


def test_p_by_hand_and_with_the_interval() -> None:
    # with two degrees of freedom the tail beyond t is (1 - t / sqrt(t² + 2)) / 2: t is 2 sqrt(3) for 1, 2, 3
    assert p_value([1, 2, 3]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert p_value([-1, -2, -3]) == p_value([1, 2, 3])
    assert p_value([0, 0, 0]) == 1
    assert math.isnan(p_value([1.0]))


def test_the_same_gap_each_time_says_nothing_of_its_spread() -> None:
    found = difference({0: 50.0, 1: 52.5}, {0: 47.5, 1: 50.0})
    assert found is not None and (found.points, found.pairs) == (2.5, 2)
    assert math.isnan(found.p) and math.isnan(found.interval[0])
    assert inseparable([{0: 50.0, 1: 52.5}, {0: 47.5, 1: 50.0}]) == [True, True]


@given(SEEDS)
def test_p_is_small_where_the_interval_leaves_zero_out(values: list[float]) -> None:
    low, high = student_t(values)
    if min(abs(low), abs(high)) > 1e-9:  # rounding aside
        assert (p_value(values) < 0.05) == (low > 0 or high < 0)


def test_holm_by_hand() -> None:
    # the smallest three times, the next twice, the largest once; never below one before it
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    one, none, two = holm([0.02, NAN, 0.03])
    assert (one, two) == pytest.approx((0.04, 0.04)) and math.isnan(none)


def test_eleven_comparisons_of_nothing_rarely_find_something() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for table in rng.normal(size=(400, 12, 5)):
        rows = [dict(enumerate(row)) for row in table]
        gaps = [gap for gap in differences(rows[1:], rows[0]) if gap is not None]
        found += any(gap.adjusted < 0.05 for gap in gaps)
    assert found <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_all_that_cannot_be_told_from_the_best_are_marked() -> None:
    best, near, far = by_seed(50, 52, 51, 53), by_seed(50.5, 51, 51.5, 52), by_seed(40, 42, 41, 43.5)
    assert inseparable([far, best, near]) == [False, True, True]
    assert inseparable([far, best, near], higher_is_better=False) == [True, False, False]
    # what is far by a rater that favours nobody is near where all are this noisy
    assert inseparable([by_seed(30, 60, 41), by_seed(52, 45, 50)]) == [True, True]


def test_noise_is_paired_away_before_marking() -> None:
    luck = [0, 9, -7, 4]
    rows = [by_seed(*(v + own for v in luck)) for own in (50, 49)]
    rows[1][0] += 0.01
    assert inseparable(rows) == [True, False]


def test_what_shares_no_two_seeds_with_the_best_is_not_marked() -> None:
    best, one = by_seed(50, 51, 52), {0: 99.0}
    assert inseparable([best, one]) == [False, False]  # nothing is known
    assert inseparable([best, one, by_seed(50, 51, 51)]) == [True, False, True]
    assert inseparable([best, {7: 60.0, 8: 10.0}]) == [False, False]
    assert inseparable([{0: 1.0}, {0: 2.0}]) == [False, False]
    assert inseparable([]) == []


def test_a_row_that_is_ahead_on_the_seeds_both_have_is_marked() -> None:
    best, other = {0: 40.0, 1: 41.0, 2: 99.0}, {0: 45.0, 1: 46.0}
    assert inseparable([best, other]) == [True, True]


def test_a_difference_is_paired_by_seed() -> None:
    found = difference({0: 44.0, 1: 47.0, 2: 46.0}, {0: 40.0, 1: 44.0, 2: 42.0})
    assert found is not None
    # gaps 4, 3, 4 over a baseline of 42
    assert found.points == pytest.approx(11 / 3)
    assert found.percent == pytest.approx(100 * (11 / 3) / 42)
    assert (found.pairs, found.unpaired) == (3, 0)
    # the gaps vary less than either method: pairing is what makes the interval narrow
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * 4.302653 / 3)


def test_only_seeds_that_both_have_count() -> None:
    found = difference({0: 50.0, 3: 10.0}, {0: 40.0, 1: 90.0, 2: 90.0})
    assert found is not None
    assert (found.points, found.percent, found.pairs) == (10, 25, 1)
    assert found.unpaired == 3
    assert math.isnan(found.interval[0]) and math.isnan(found.p)
    assert difference({0: 1.0}, {1: 1.0}) is None
    assert difference({}, {1: 1.0}) is None


def test_the_baseline_is_no_different_from_itself() -> None:
    own = {0: 40.0, 1: 44.0, 2: 41.0}
    found = difference(own, own)
    assert found is not None
    assert (found.points, found.percent) == (0, 0)
    assert found.interval == (0, 0)
    assert found.p == 1


def test_what_differs_by_rounding_alone_is_equal() -> None:
    found = difference({0: 0.1 + 0.2, 1: 0.7 + 0.1}, {0: 0.3, 1: 0.8})
    assert found is not None
    assert (found.points, found.p) == (0, 1)


def test_per_cent_of_nothing_is_nothing_and_of_a_negative_baseline_keeps_its_sign() -> None:
    zero = difference({0: 1.0}, {0: 0.0})
    below = difference({0: -1.0}, {0: -2.0})
    assert zero is not None and below is not None
    assert math.isnan(zero.percent)
    assert (below.points, below.percent) == (1, 50)


def test_ranks_by_hand() -> None:
    assert ranks([42.4, 46.1, 45.9]) == [3, 1, 2]
    assert ranks([2.5, 2.1, 2.3], higher_is_better=False) == [3, 1, 2]


def test_ties_share_a_place() -> None:
    assert ranks([3, 3, 2, 1, 2]) == [1, 1, 2, 3, 2]
    assert ranks([5.0, 5.0]) == [1, 1]
    assert ranks([46.04, 45.96, 45.9], decimals=1) == [1, 1, 2]
    assert ranks([46.04, 45.96, 45.9]) == [1, 2, 3]


def test_missing_runs_have_no_place() -> None:
    assert ranks([NAN, 2, 1]) == [None, 1, 2]
    assert ranks([NAN, 2]) == [None, None]
    assert ranks([NAN, NAN]) == [None, None]
    assert ranks([]) == []


@given(st.lists(st.floats(-1e6, 1e6) | st.just(NAN), min_size=2, max_size=8), st.booleans())
def test_better_values_have_lower_places(values: list[float], higher_is_better: bool) -> None:
    places = ranks(values, higher_is_better=higher_is_better)
    sign = 1 if higher_is_better else -1
    for (v, p), (w, q) in itertools.combinations(zip(values, places, strict=True), 2):
        if p is not None and q is not None:
            assert (p < q) == (sign * v > sign * w)
