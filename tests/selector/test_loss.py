"""Draws by loss, against plain readings of how they are made."""

import math

import numpy as np
import pytest

from dsel.errors import ConfigError
from dsel.selector import delta_loss, loss


def plain_weights(losses, focus, weight, low, high):
    known = sorted(value for value in losses if not math.isnan(value))

    def quantile(share):
        place = share * (len(known) - 1)
        below = math.floor(place)
        above = min(below + 1, len(known) - 1)
        return known[below] + (place - below) * (known[above] - known[below])

    first, second = quantile(low), quantile(high)
    out = []
    for value in losses:
        part = "low" if value <= first else "medium" if value <= second else "high"
        out.append(0.0 if math.isnan(value) else weight if part == focus else 1.0)
    return out


@pytest.mark.parametrize("focus", ["low", "medium", "high"])
def test_weights_against_the_definition(focus):
    losses = np.random.default_rng(0).gamma(2, size=50)
    losses[[3, 17]] = np.nan
    ours = loss.weights(losses, focus=focus)
    np.testing.assert_array_equal(ours, plain_weights(losses.tolist(), focus, 5.0, 0.33, 0.66))
    assert sorted(set(ours.tolist())) == [0, 1, 5]


def test_equal_losses_and_none_at_all():
    np.testing.assert_array_equal(loss.weights([2.0] * 4, focus="high"), [1] * 4)
    np.testing.assert_array_equal(loss.weights([2.0] * 4, focus="low"), [5] * 4)
    np.testing.assert_array_equal(loss.weights([np.nan] * 3), [0] * 3)


def test_draws_follow_the_weights_and_meet_the_budget():
    weights = np.array([0, 1, 1, 5, 0, 1])
    first = np.zeros(6)
    for seed in range(4000):
        first[loss.draw(weights, 1, np.random.default_rng(seed))] += 1
    np.testing.assert_allclose(first / 4000, weights / 8, atol=0.03)
    for budget in range(1, 7):
        drawn = loss.draw(weights, budget, np.random.default_rng(0))
        assert len(set(drawn.tolist())) == budget
    assert drawn[-2:].tolist() == [0, 4]
    with pytest.raises(ValueError, match="budget"):
        loss.draw(weights, 7, np.random.default_rng(0))


def plain_window(first, present, time, window, steepness, outside):
    n = len(first)
    fallen = [a - b for a, b in zip(first, present, strict=True)]
    order = sorted((i for i in range(n) if not math.isnan(fallen[i])), key=lambda i: -fallen[i])
    start = (n - window * n) / (1 + math.exp(-steepness * (time - 0.5)))
    end = start + window * n
    risen = next((place for place, i in enumerate(order) if fallen[i] < 0), len(order))
    inside = order[int(start) : min(int(end), risen)]
    return [0.0 if math.isnan(fallen[i]) else 1.0 if i in inside else outside for i in range(n)]


@pytest.mark.parametrize("time", [0.0, 0.2, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("drop", [0.0, 0.4, 3.0])
def test_the_window_against_the_definition(time, drop):
    rng = np.random.default_rng(1)
    first = rng.gamma(2, size=60)
    present = first - rng.normal(drop, 0.5, size=60)
    first[5], present[8] = np.nan, np.nan
    ours = delta_loss.weights(first, present, time)
    np.testing.assert_array_equal(ours, plain_window(first.tolist(), present.tolist(), time, 0.2, 10.0, 0.025))


def test_the_window_moves_from_the_front_of_the_order_to_its_end():
    first, present = np.full(100, 9.0), np.arange(100) / 50
    centres = [np.flatnonzero(delta_loss.weights(first, present, time) == 1).mean() for time in (0, 0.4, 0.6, 1)]
    assert centres == sorted(centres)
    assert centres[0] < 12 and centres[-1] > 88


def test_quantiles_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"selector\.low"):
        loss.Loss(low=0.8, high=0.2).check()
