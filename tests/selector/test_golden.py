"""The indices that the published code returned (see tests/golden)."""

import numpy as np
import pytest

from dsel.selector import deita, qdit
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "alpaca_gpt4_999.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize(("threshold", "budget"), [(0.9, 100), (0.6, 100), (0.5, 150)])
def test_deita(golden, threshold, budget):
    ours = deita.filter_ranked(golden["embeddings"], golden["quality"], budget, threshold=threshold)
    np.testing.assert_array_equal(ours, golden[f"deita_thr{threshold}_b{budget}"])


def test_deita_with_squared_distances(golden):
    ours = deita.filter_ranked(golden["embeddings"], golden["quality"], 100, threshold=0.9, metric="l2")
    np.testing.assert_array_equal(ours, golden["l2_threshold0p9_b100"])


def test_qdit(golden):
    ours = qdit.greedy(golden["embeddings"][:100], golden["quality"][:100] / 36, 10, alpha=0.5)
    np.testing.assert_array_equal(ours, golden["qdit_n100_k10_alpha0p5_quality_over_36"])
