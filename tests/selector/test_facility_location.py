"""Facility location and QDIT: one lazy greedy, checked against the definition."""

from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dsel.arrays import unit_rows
from dsel.selector import coverage, coverage_on_torch, facility_location, products, qdit
from tests.selector.pools import pools, scattered


def cosines(x):
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def by_definition(x, quality, budget, alpha):
    """argmax of (1 - alpha) d(S + {i}) + alpha q_i, d from scratch each time; values this close are ties."""
    s, chosen = cosines(x), []
    for _ in range(budget):
        values = {
            i: (1 - alpha) * s[:, [*chosen, i]].max(axis=1).sum() + alpha * quality[i]
            for i in range(len(x))
            if i not in chosen
        }
        top = max(values.values())
        chosen.append(min(i for i, value in values.items() if value > top - 1e-10))
    return np.array(chosen)


def plain_incremental(x, quality, budget, alpha):
    s, chosen, best = cosines(x), [], -np.ones(len(x))
    for _ in range(budget):
        values = (1 - alpha) * np.maximum(s - best[:, None], 0).sum(axis=0) + alpha * quality
        values[chosen] = -np.inf
        chosen.append(int(values.argmax()))
        best = np.maximum(best, s[chosen[-1]])
    return np.array(chosen)


def regrets(x, quality, chosen, alpha):
    """How far each pick was below the best one possible at its time."""
    s, best, left, out = cosines(x), -np.ones(len(x)), np.ones(len(x), dtype=bool), []
    for i in chosen:
        values = (1 - alpha) * np.maximum(s - best[:, None], 0).sum(axis=0) + alpha * quality
        out.append(values[left].max() - values[i])
        left[i] = False
        best = np.maximum(best, s[i])
    return np.array(out)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.99, 1.0])
def test_order_equals_the_definition_on_300_points(alpha):
    x = scattered(300, 12)
    quality = 3 * np.random.default_rng(1).random(300)
    ours = qdit.greedy(x, quality, 15, alpha=alpha)
    np.testing.assert_array_equal(ours, by_definition(x, quality, 15, alpha))
    if alpha == 0:
        np.testing.assert_array_equal(facility_location.greedy(x, 15), ours)


@pytest.mark.parametrize("pairs", [10**9, 3000, 0], ids=["listed early", "listed later", "never listed"])
def test_order_equals_the_plain_greedy_whenever_the_pairs_are_listed(pairs, monkeypatch):
    for name, value in (("PAIRS", pairs), ("ENTRIES", 64), ("FIRST", 8), ("LAST", 32), ("TOGETHER", 4)):
        monkeypatch.setattr(coverage, name, value)
    x = scattered(500, 16, seed=3)
    quality = np.random.default_rng(1).random(500)
    on = products.Products(unit_rows(x))
    on.side = 64
    ours = coverage.on_cpu(on, 500, 0.6, 0.4 * quality, lambda count: None)
    np.testing.assert_array_equal(ours, plain_incremental(x, quality, 500, 0.4))


def by_torch(x, quality, budget, alpha, halves=False):
    """The greedy that runs on a GPU, here on the processor."""
    with patch.object(coverage_on_torch, "has_halves", lambda device: halves):
        on = torch.device("cpu")
        return coverage_on_torch.lazy_greedy(
            unit_rows(x), budget, 1 - alpha, alpha * np.asarray(quality, float), on, lambda count: None
        )


@pytest.mark.parametrize("listed", [0.5, 1e-5, 0.0], ids=["listed early", "listed later", "never listed"])
@pytest.mark.parametrize("halves", [False, True])
def test_torch_chooses_the_same_whenever_the_pairs_are_listed(listed, halves, monkeypatch):
    for name, value in (("LISTED", listed), ("TILE", 5000), ("FIRST", 8), ("TOGETHER", 4)):
        monkeypatch.setattr(coverage_on_torch, name, value)
    x = scattered(300, 16, seed=3)
    quality = np.random.default_rng(1).random(300)
    np.testing.assert_array_equal(by_torch(x, quality, 200, 0.4, halves), plain_incremental(x, quality, 200, 0.4))


@pytest.mark.parametrize("kind", ["groups", "diffuse", "copies"])
@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_torch_chooses_what_the_processor_does(kind, alpha):
    rng = np.random.default_rng(2)
    x = {
        "groups": lambda: scattered(1200, 32),
        "diffuse": lambda: rng.standard_normal((1200, 32)),
        "copies": lambda: scattered(300, 32)[rng.integers(0, 300, 1200)],
    }[kind]()
    quality = rng.integers(0, 5, 1200) / 4.0
    here = qdit.greedy(x, quality, 150, alpha=alpha)
    np.testing.assert_array_equal(by_torch(x, quality, 150, alpha, halves=kind == "groups"), here)


@given(x=pools(max_n=40), alpha=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 99), halves=st.booleans())
@settings(deadline=None, max_examples=40)
def test_every_pick_by_torch_is_a_best_one(x, alpha, seed, halves):
    n = len(x)
    quality = np.random.default_rng(seed).integers(-3, 4, n) / 2.0
    ours = by_torch(x, quality, n, alpha, halves)
    assert ours.dtype == np.int64 and sorted(ours) == list(range(n))
    assert regrets(x, quality, ours, alpha).max() < 2e-9


@given(x=pools(max_n=20), halves=st.booleans())
@settings(deadline=None, max_examples=25)
def test_ties_go_to_the_lowest_index_by_torch(x, halves):
    expected = by_definition(x, np.zeros(len(x)), len(x), 0)
    np.testing.assert_array_equal(by_torch(x, np.zeros(len(x)), len(x), 0.0, halves), expected)


@given(x=pools(), alpha=st.sampled_from([0.0, 0.5, 0.9, 1.0]), seed=st.integers(0, 99), pairs=st.booleans())
@settings(deadline=None, max_examples=80)
def test_every_pick_is_a_best_one(x, alpha, seed, pairs):
    n = len(x)
    quality = np.random.default_rng(seed).integers(-3, 4, n) / 2.0
    before, coverage.PAIRS = coverage.PAIRS, coverage.PAIRS * pairs
    try:
        ours = qdit.greedy(x, quality, n, alpha=alpha)
    finally:
        coverage.PAIRS = before
    assert ours.dtype == np.int64 and sorted(ours) == list(range(n))
    assert regrets(x, quality, ours, alpha).max() < 2e-9


@given(x=pools(max_n=25))
@settings(deadline=None, max_examples=40)
def test_ties_go_to_the_lowest_index(x):
    expected = by_definition(x, np.zeros(len(x)), len(x), 0)
    np.testing.assert_array_equal(facility_location.greedy(x, len(x)), expected)


def test_equal_points_come_in_order():
    np.testing.assert_array_equal(facility_location.greedy(np.ones((50, 3)), 20), np.arange(20))


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_permuting_the_pool_permutes_the_result(seed):
    # Without a quality, two that serve only each other would tie: both add 1 + cos(i, j) - best_i - best_j.
    rng = np.random.default_rng(seed)
    x, quality, order = scattered(90, 6, seed), rng.random(90), rng.permutation(90)
    permuted = qdit.greedy(x[order], quality[order], 30)
    np.testing.assert_array_equal(order[permuted], qdit.greedy(x, quality, 30))


def test_lengths_of_rows_do_not_matter():
    x = scattered(100, 5)
    lengths = np.random.default_rng(0).uniform(0.01, 100, (100, 1)).astype(np.float32)
    np.testing.assert_array_equal(facility_location.greedy(x * lengths, 40), facility_location.greedy(x, 40))


def test_alpha_one_is_the_quality_ranking():
    quality = np.random.default_rng(0).random(60)
    np.testing.assert_array_equal(qdit.greedy(scattered(60, 4), quality, 60, alpha=1.0), np.argsort(-quality))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, np.nan])
def test_alpha_is_checked(alpha):
    with pytest.raises(ValueError, match="alpha"):
        qdit.greedy(scattered(10, 2), np.ones(10), 2, alpha=alpha)
