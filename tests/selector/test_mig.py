"""MIG's greedy choice: the released code's order, and a slow reference."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dsel.selector import mig
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def released():
    golden = np.load(GOLDEN / "targets" / "mig.npz")
    joined = golden["W"].astype(np.float64)
    np.fill_diagonal(joined, 1)
    labels = np.unpackbits(golden["label_bits"], axis=1)[:, : len(joined)].astype(float)
    return golden, labels, csr_matrix(joined / joined.sum(axis=0))


@pytest.mark.parametrize("norm", [0, 1])
def test_order_is_the_released_one(released, norm):
    golden, labels, spread = released
    name = ("default_cli_norm0_b0.8_200", "class_default_norm1_200")[norm]
    shared = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1) if norm else labels
    np.testing.assert_array_equal(mig.greedy(csr_matrix(shared), golden["score"], spread, 200), golden[name])


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_greedy_against_the_definition(released, gain):
    golden, labels, spread = released
    adds = (golden["score"][:120, None] * labels[:120]) @ spread.toarray()
    there, expected = np.zeros(adds.shape[1]), []
    for _ in range(60):
        value = adds @ (0.8 * (there + 1e-6) ** -0.2)
        if gain == "exact":
            value = ((there + adds + 1e-6) ** 0.8 - (there + 1e-6) ** 0.8).sum(axis=1)
        value[expected] = -np.inf
        expected.append(int(value.argmax()))
        there += adds[expected[-1]]
    ours = mig.greedy(csr_matrix(labels[:120]), golden["score"][:120], spread, 60, gain=gain)
    np.testing.assert_array_equal(ours, expected)


def test_graph_joins_labels_that_are_alike():
    labels = np.array([[1, 0], [0.99, 0.1], [0, 1]])
    spread = mig.graph(labels, 0.9).toarray()
    np.testing.assert_allclose(spread.sum(axis=0), 1)
    assert (spread[2, :2] == 0).all() and spread[0, 1] == spread[1, 0] > 0


def test_quality_must_not_be_negative():
    with pytest.raises(ValueError, match="negative"):
        mig.greedy(csr_matrix(np.eye(2)), [1, -1], csr_matrix(np.eye(2)), 1)
