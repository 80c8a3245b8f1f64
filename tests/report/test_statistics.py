"""The statistics of the tables, against cases computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.report import statistics
from dsel.report.statistics import bootstrap, difference, mean, ranks, standard_error, student_t

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
    assert all(map(math.isnan, bootstrap([1.0])))
    assert all(map(math.isnan, student_t([1.0])))


def test_no_seed_has_nothing() -> None:
    assert math.isnan(mean([]))
    assert math.isnan(standard_error([]))
    assert all(map(math.isnan, bootstrap([])))


def test_bootstrap_of_two_by_hand() -> None:
    # the four resamples of (1, 3) have means 1, 2, 2, 3: 2.5 % and 97.5 % of them are reached at 1 and at 3
    assert bootstrap([1, 3]) == (1, 3)
    # at 50 % the ends are the values that 25 % and 75 % reach
    assert bootstrap([1, 3], confidence=0.5) == (1, 2)


def test_bootstrap_of_three_by_hand() -> None:
    # of 27 resamples of (0, 3, 9) means are 0 (1), 1 (3), 2 (3), 3 (1 + 3), 4 (6), 5 (3), 6 (3), 7 (3), 9 (1).
    # 2.5 % of 27 is 0.675, so the first; 97.5 % is 26.3, so the last
    assert bootstrap([0, 3, 9]) == (0, 9)
    # 10 % is 2.7: 4 means are at most 1; 90 % is 24.3: 23 are at most 6, and 26 at most 7
    assert bootstrap([0, 3, 9], confidence=0.8) == (1, 7)


@given(SEEDS)
def test_bootstrap_of_few_seeds_is_that_of_all_resamples(values: list[float]) -> None:
    means = sorted(sum(r) / len(r) for r in itertools.product(values, repeat=len(values)))
    wanted = [means[math.ceil(q * len(means)) - 1] for q in (0.025, 0.975)]
    assert bootstrap(values) == pytest.approx(wanted)


@given(SEEDS, st.integers(-100, 100))
def test_bootstrap_moves_with_the_values(values: list[float], by: int) -> None:
    low, high = bootstrap(values)
    assert low <= mean(values) <= high
    assert bootstrap([v + by for v in values]) == pytest.approx((low + by, high + by))
    assert bootstrap(list(reversed(values))) == pytest.approx((low, high))


def test_bootstrap_of_many_seeds_is_drawn_the_same_each_time_and_near_the_exact_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = [0.3, 1.1, 0.2, -0.4, 0.9, 0.5]
    exact = bootstrap(values)
    monkeypatch.setattr(statistics, "EXACT_UP_TO", 0)
    drawn = bootstrap(values)
    assert drawn == bootstrap(values)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.04)
    many = np.random.default_rng(1).normal(size=40)
    low, high = bootstrap(many)
    assert high - low == pytest.approx(2 * 1.96 * standard_error(many), rel=0.1)


def test_students_interval_by_hand() -> None:
    # two degrees of freedom: 4.3027 standard errors to each side
    low, high = student_t([1, 2, 3])
    reach = 4.302653 / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - reach, 2 + reach))
    assert low < bootstrap([1, 2, 3])[0]


def test_a_difference_is_paired_by_seed() -> None:
    found = difference({0: 44.0, 1: 47.0, 2: 46.0}, {0: 40.0, 1: 44.0, 2: 42.0})
    assert found is not None
    # gaps 4, 3, 4 over a baseline of 42
    assert found.points == pytest.approx(11 / 3)
    assert found.percent == pytest.approx(100 * (11 / 3) / 42)
    assert found.bootstrap == (3, 4)
    assert found.pairs == 3
    # the gaps vary less than either method: pairing is what makes the interval narrow
    assert found.student_t[1] - found.student_t[0] == pytest.approx(2 * 4.302653 / 3)


def test_only_seeds_that_both_have_count() -> None:
    found = difference({0: 50.0, 3: 10.0}, {0: 40.0, 1: 90.0, 2: 90.0})
    assert found is not None
    assert (found.points, found.percent, found.pairs) == (10, 25, 1)
    assert math.isnan(found.bootstrap[0])
    assert difference({0: 1.0}, {1: 1.0}) is None
    assert difference({}, {1: 1.0}) is None


def test_the_baseline_is_no_different_from_itself() -> None:
    own = {0: 40.0, 1: 44.0, 2: 41.0}
    found = difference(own, own)
    assert found is not None
    assert (found.points, found.percent) == (0, 0)
    assert found.bootstrap == (0, 0)
    assert found.student_t == (0, 0)


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
