"""GIST against a plain reading of it, and against LESS's own features where nothing is left out."""

from types import SimpleNamespace

import numpy as np
import pytest

from dsel.arrays import unit_rows
from dsel.questions import Gradients
from dsel.selector import gist, less
from tests.conftest import GOLDEN


@pytest.fixture
def gradients():
    """Of 12 targets in 500 dimensions that vary in three directions, and a little in all others."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 500)) + 0.01 * rng.normal(size=(12, 500))
    return found.astype(np.float32)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("variance", [0.3, 0.95, 0.9999999, 1.0])
def test_directions_are_the_singular_vectors_that_keep_the_variance(gradients, variance, whiten):
    _, sizes, vectors = np.linalg.svd(gradients.astype(np.float64), full_matrices=False)
    kept = np.cumsum(sizes**2) / np.sum(sizes**2)
    r = next(i + 1 for i in range(12) if kept[i] >= variance - 1e-12)
    ours = gist.directions(gradients, variance=variance, whiten=whiten)
    assert ours.shape == (r, 500) and ours.dtype == np.float32
    expected = vectors[:r] / sizes[:r, None] if whiten else vectors[:r]
    signs = np.sign((ours * expected).sum(axis=1))[:, None]
    np.testing.assert_allclose(ours * signs, expected, rtol=1e-3, atol=1e-5 * abs(expected).max())


def test_three_directions_are_enough_here(gradients):
    ours = gist.directions(gradients)
    assert len(ours) == 3
    np.testing.assert_allclose(ours @ ours.T, np.eye(3), atol=1e-5)


def test_copies_span_no_more_and_nothing_spans_nothing():
    line = np.outer([1, 2, -3], np.arange(7)).astype(np.float32)
    assert gist.directions(line, variance=1.0).shape == (1, 7)
    with pytest.raises(ValueError, match="no gradients"):
        gist.directions(np.zeros((3, 7), dtype=np.float32))


def test_blocks_of_columns_change_nothing(gradients, monkeypatch):
    whole = gist.directions(gradients)
    monkeypatch.setattr(gist, "COLUMNS", 7)
    np.testing.assert_allclose(abs(gist.directions(gradients) @ whole.T), np.eye(3), atol=1e-5)


def test_with_all_directions_the_targets_agree_as_their_gradients_do():
    """Of the gradients that LESS's released code gave for 18 targets of 9 subtasks."""
    raw = np.load(GOLDEN / "targets" / "less.npz")
    pool, targets = raw["train_rawgrad_ckpt1"], raw["tydiqa_rawgrad_ckpt1"]
    subtasks = np.arange(18).reshape(9, 2)
    basis = gist.directions(targets, variance=1.0)
    ours = less.similarities(targets @ basis.T, targets @ basis.T, subtasks, subtask="mean_gradient")
    np.testing.assert_allclose(ours, less.similarities(targets, targets, subtasks, subtask="mean_gradient"), atol=1e-3)

    # of the pool only the share inside the space counts: cosines grow by what lies outside
    here = less.similarities(pool @ basis.T, targets @ basis.T, subtasks, subtask="mean_gradient")
    outside = less.similarities(pool, targets, subtasks, subtask="mean_gradient")
    inside = np.linalg.norm(unit_rows(pool) @ basis.T, axis=1)[:, None]
    np.testing.assert_allclose(here * inside, outside, atol=1e-3)


def test_the_gradients_of_a_shard_stay_within_the_memory_that_is_given():
    snapshot = SimpleNamespace(parameters=10_000_000)
    asked = Gradients(snapshot, 64, 8192, 0, None, memory=2e9)  # type: ignore[arg-type]
    assert asked.shard_size * snapshot.parameters * 4 <= 2e9 < (asked.shard_size + 1) * snapshot.parameters * 4
    assert Gradients(snapshot, 64, 8192, 0, None, memory=1.0).shard_size == 1  # type: ignore[arg-type]
