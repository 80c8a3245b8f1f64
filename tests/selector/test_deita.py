import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dsel.selector import deita
from tests.selector.pools import pools, scattered


def one_at_a_time(x, quality, budget, threshold, metric):
    x = x.astype(np.float64)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    kept = []
    for i in np.argsort(-quality, kind="stable"):
        if kept and metric == "cosine" and (x[kept] @ x[i]).max() > threshold + 1e-13:
            continue
        if kept and metric == "l2" and np.square(x[kept] - x[i]).sum(axis=1).min() < threshold:
            continue
        kept.append(i)
        if len(kept) == budget:
            break
    return np.array(kept)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@given(x=pools(), threshold=st.floats(0.05, 0.99), budget=st.integers(1, 60), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_equals_one_at_a_time(metric, x, threshold, budget, seed):
    quality = np.random.default_rng(seed).integers(0, 20, len(x)) / 2.0
    budget = min(budget, len(x))
    ours = deita.filter_ranked(x, quality, budget, threshold=threshold, metric=metric)
    np.testing.assert_array_equal(ours, one_at_a_time(x, quality, budget, threshold, metric))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_equals_one_at_a_time_over_many_blocks(metric, scale):
    x = scattered(2500, 16) * np.float32(scale)
    quality = np.random.default_rng(1).random(len(x))
    threshold = 0.8 if metric == "cosine" else 8.0 * scale**2
    ours = deita.filter_ranked(x, quality, 2500, threshold=threshold, metric=metric)
    np.testing.assert_array_equal(ours, one_at_a_time(x, quality, 2500, threshold, metric))
    assert 20 < len(ours) < 2400


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neither_torch_nor_half_precision_on_disk_changes_a_choice(metric, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", scattered(1500, 16).astype(np.float16))
    x, quality = np.load(tmp_path / "x.npy", mmap_mode="r"), np.random.default_rng(1).random(1500)
    rule = {"threshold": 0.8 if metric == "cosine" else 8.0, "metric": metric}
    whole = np.asarray(x, dtype=np.float32)
    ours = deita.filter_ranked(whole, quality, 900, **rule)
    np.testing.assert_array_equal(deita.filter_ranked(x, quality, 900, **rule), ours)
    monkeypatch.setattr(deita, "torch_device", lambda name: torch.device(name))
    np.testing.assert_array_equal(deita.filter_ranked(x, quality, 900, **rule), ours)


def test_a_threshold_of_one_keeps_even_copies():
    x = np.repeat(scattered(5, 7), 4, axis=0)
    assert len(deita.filter_ranked(x, np.arange(20.0), 20, threshold=1.0)) == 20
    assert len(deita.filter_ranked(x, np.arange(20.0), 20, threshold=0.999999)) == 5


def test_a_threshold_exactly_met_keeps():
    x = np.array([[1, 0], [0, 1], [3, 4]], dtype=np.float32)
    quality = np.array([3.0, 2.0, 1.0])
    np.testing.assert_array_equal(deita.filter_ranked(x, quality, 3, threshold=2.0, metric="l2"), [0, 1, 2])
    np.testing.assert_array_equal(deita.filter_ranked(x, quality, 3, threshold=2.01, metric="l2"), [0, 2])


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_permuting_the_pool_permutes_the_result(seed):
    x, rng = scattered(80, 5, seed), np.random.default_rng(seed)
    quality, order = rng.permutation(np.arange(80.0)), rng.permutation(80)
    plain = deita.filter_ranked(x, quality, 30, threshold=0.7)
    permuted = deita.filter_ranked(x[order], quality[order], 30, threshold=0.7)
    np.testing.assert_array_equal(order[permuted], plain)


def test_unknown_metric():
    with pytest.raises(ValueError, match="metric"):
        deita.filter_ranked(np.ones((3, 2)), np.ones(3), 1, metric="dot")
