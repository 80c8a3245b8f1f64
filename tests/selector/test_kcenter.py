from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dsel.selector import kcenter, on_torch
from tests.selector.pools import pools, scattered


def gonzalez(x, budget, start=None, selected=()):
    x = x.astype(np.float64)
    gap, chosen = np.full(len(x), np.inf), []
    for i in selected:
        gap = np.minimum(gap, np.square(x - x[i]).sum(axis=1).astype(np.float32))
    gap[list(selected)] = -1
    while len(chosen) < budget:
        i = start if start is not None and not chosen else int(gap.argmax())
        chosen.append(i)
        gap = np.minimum(gap, np.square(x - x[i]).sum(axis=1).astype(np.float32))
        gap[i] = -1
    return np.array(chosen)


def radius(x, centres):
    return np.sqrt(np.square(x[:, None] - x[None, list(centres)]).sum(axis=2).min(axis=1).max())


@pytest.mark.parametrize("d", [2, 40, 200])
@pytest.mark.parametrize("leaders", [7, 1024])
def test_equals_the_plain_loop(d, leaders, monkeypatch):
    monkeypatch.setattr(kcenter, "LEADERS", leaders)
    monkeypatch.setattr(kcenter, "CENTRES", 16)
    x = scattered(1500, d)
    np.testing.assert_array_equal(kcenter.farthest_first(x, 400, start=5), gonzalez(x, 400, start=5))


@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_equals_the_plain_loop_on_disk(kind, tmp_path):
    np.save(tmp_path / "x.npy", scattered(900, 24).astype(kind))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    plain = gonzalez(np.asarray(x, dtype="float16" if kind == "float16" else "float32"), 90, start=1)
    np.testing.assert_array_equal(kcenter.farthest_first(x, 90, start=1), plain)


@given(x=pools(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_torch_picks_the_same(x, seed):
    budget = 1 + seed % len(x)
    ours = kcenter.farthest_first(x, budget, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kcenter, "torch_device", lambda name: torch.device(name))
        np.testing.assert_array_equal(kcenter.farthest_first(x, budget, seed=seed), ours)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_torch_picks_the_same_over_many_rounds(kind, monkeypatch):
    x = scattered(3000, 48).astype(kind)
    ours = kcenter.farthest_first(x, 700, start=3, selected=[5, 2000])
    monkeypatch.setattr(kcenter, "torch_device", lambda name: torch.device(name))
    monkeypatch.setattr(on_torch, "CENTRES", 48)
    monkeypatch.setattr(on_torch, "MEMORY", 2**20)
    np.testing.assert_array_equal(kcenter.farthest_first(x, 700, start=3, selected=[5, 2000]), ours)


@given(x=pools(), seed=st.integers(0, 99), leaders=st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=60)
def test_ties_go_to_the_lowest_index_in_every_block(x, seed, leaders):
    budget = 1 + seed % len(x)
    plain = gonzalez(x, budget, start=seed % len(x))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kcenter, "LEADERS", leaders)
        patch.setattr(kcenter, "SAMPLE", 7)
        patch.setattr(kcenter, "CENTRES", 2)
        np.testing.assert_array_equal(kcenter.farthest_first(x, budget, start=seed % len(x)), plain)


def test_equals_the_plain_loop_far_from_the_origin():
    x = scattered(800, 10) + np.float32(1000)
    np.testing.assert_array_equal(kcenter.farthest_first(x, 100, start=0), gonzalez(x, 100, start=0))


def test_equals_the_plain_loop_after_selected():
    x, selected = scattered(700, 20), [3, 99, 500, 12]
    ours = kcenter.farthest_first(x, 150, selected=selected)
    np.testing.assert_array_equal(ours, gonzalez(x, 150, selected=selected))
    ours = kcenter.farthest_first(x, 150, selected=selected, start=8)
    np.testing.assert_array_equal(ours, gonzalez(x, 150, selected=selected, start=8))


def test_selection_can_be_continued():
    x = scattered(600, 9)
    whole = kcenter.farthest_first(x, 80, start=1)
    np.testing.assert_array_equal(kcenter.farthest_first(x, 50, selected=whole[:30]), whole[30:])


@given(x=pools(), budget=st.integers(1, 60), leaders=st.sampled_from([1, 5, 1024]))
@settings(deadline=None, max_examples=100)
def test_budget_is_met_with_distinct_farthest_points(x, budget, leaders):
    budget = min(budget, len(x))
    before, kcenter.LEADERS = kcenter.LEADERS, leaders
    try:
        ours = kcenter.farthest_first(x, budget, start=0)
    finally:
        kcenter.LEADERS = before
    assert ours.dtype == np.int64 and len(set(ours.tolist())) == budget
    gap = np.full(len(x), np.inf)
    for t, i in enumerate(ours):
        assert t == 0 or gap[i] >= gap.max() * (1 - 1e-5)
        gap = np.minimum(gap, np.square(x.astype(np.float64) - x[i]).sum(axis=1))


@given(x=pools(max_n=11, max_d=3), budget=st.integers(1, 4), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_radius_is_at_most_twice_the_optimum(x, budget, seed):
    budget = min(budget, len(x))
    best = min(radius(x, centres) for centres in combinations(range(len(x)), budget))
    assert radius(x, kcenter.farthest_first(x, budget, seed=seed)) <= 2 * best + 1e-5


def test_grid_ties_go_to_the_lowest_index():
    x = np.array([[i, j] for i in range(9) for j in range(9)], dtype=np.float32)
    np.testing.assert_array_equal(kcenter.farthest_first(x, 81, start=40), gonzalez(x, 81, start=40))


def test_equal_points_come_in_order():
    np.testing.assert_array_equal(kcenter.farthest_first(np.ones((30, 4)), 5, start=2), [2, 0, 1, 3, 4])


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_permuting_the_pool_permutes_the_result(seed):
    x, order = scattered(120, 7, seed), np.random.default_rng(seed).permutation(120)
    start = int(np.flatnonzero(order == 4)[0])
    ours = order[kcenter.farthest_first(x[order], 40, start=start)]
    np.testing.assert_array_equal(ours, kcenter.farthest_first(x, 40, start=4))


def test_the_seed_sets_the_start():
    x = scattered(200, 5)
    starts = {int(kcenter.farthest_first(x, 1, seed=seed)[0]) for seed in range(20)}
    assert len(starts) > 10
    np.testing.assert_array_equal(kcenter.farthest_first(x, 9, seed=3), kcenter.farthest_first(x, 9, seed=3))


def test_bad_arguments():
    x = scattered(10, 2)
    with pytest.raises(ValueError, match="the 8 examples available"):
        kcenter.farthest_first(x, 9, selected=[0, 1])
    with pytest.raises(ValueError, match="start must be"):
        kcenter.farthest_first(x, 2, start=10)
    with pytest.raises(ValueError, match="selected must be"):
        kcenter.farthest_first(x, 2, selected=[-1])
    with pytest.raises(ValueError, match="already among"):
        kcenter.farthest_first(x, 2, selected=[4], start=4)
