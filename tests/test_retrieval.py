"""The nearest examples to targets, against plain sorting; the round robin of RDS+'s released code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel import retrieval
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def alpaca():
    embeddings = np.load(GOLDEN / "alpaca_gpt4_999.npz")["embeddings"]
    return embeddings[40:], embeddings[:40]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 5), st.integers(1, 13))
def test_top_is_a_stable_sort_whatever_the_blocks(seed, n, m, rows):
    rng = np.random.default_rng(seed)
    similar = rng.integers(-3, 4, (n, m)).astype(np.float32) / 3 * rng.choice([1, -0.0])  # ties, zeros of both signs
    k = int(rng.integers(1, n + 1))
    indices, values = retrieval.top((similar[i : i + rows] for i in range(0, n, rows)), k)
    expected = np.argsort(-similar, axis=0, kind="stable")[:k].T
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(similar, expected.T, axis=0).T)


def test_top_wants_enough_examples():
    with pytest.raises(ValueError, match="4 examples are wanted of 3"):
        retrieval.top([np.zeros((3, 1), np.float32)], 4)


def test_cosines_are_the_same_in_blocks(alpaca, monkeypatch):
    pool, targets = alpaca
    whole = np.concatenate(list(retrieval.cosines(pool, targets)))
    monkeypatch.setattr(retrieval, "CELLS", 40 * 100)
    blocks = list(retrieval.cosines(pool.astype(np.float32), targets))
    assert [len(block) for block in blocks] == [100] * 9 + [59]
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)


@pytest.mark.parametrize("budget", [50, 200])
def test_round_robin_is_the_released_one(alpaca, budget):
    ranked, _ = retrieval.top(retrieval.cosines(*alpaca), 400)
    golden = np.load(GOLDEN / "targets" / "rdsplus_selection.npz")[f"single_max_{budget}"]
    np.testing.assert_array_equal(retrieval.round_robin(ranked, budget), golden)


def test_several_tasks_take_turns_as_in_the_released_code(alpaca):
    tasks = np.split(np.arange(40), [10, 25])
    ranked, _ = retrieval.top(retrieval.by_group(retrieval.cosines(*alpaca), tasks), 100)
    golden = np.load(GOLDEN / "targets" / "rdsplus_selection.npz")["multitask_rr_max_50"]
    np.testing.assert_array_equal(retrieval.round_robin(ranked, 50), golden)


def test_one_group_of_all_targets_is_the_released_global_rule(alpaca):
    ranked, _ = retrieval.top(retrieval.by_group(retrieval.cosines(*alpaca), [np.arange(40)]), 200)
    golden = np.load(GOLDEN / "targets" / "rdsplus_selection.npz")["optimized_max_200"]
    np.testing.assert_array_equal(ranked[0], golden)


@pytest.mark.parametrize("on_taken", ["skip", "next"])
def test_round_robin_against_the_definition(on_taken):
    rng = np.random.default_rng(0)
    for m, n, budget in ((1, 5, 5), (3, 20, 20), (4, 30, 17)):
        ranked = np.stack([rng.permutation(n) for _ in range(m)])
        chosen, turns = [], [list(row) for row in ranked]
        while len(chosen) < budget:
            for wishes in turns:
                while wishes and len(chosen) < budget:
                    wish = wishes.pop(0)
                    if wish not in chosen:
                        chosen.append(wish)
                        break
                    if on_taken == "skip":
                        break
        np.testing.assert_array_equal(retrieval.round_robin(ranked, budget, on_taken=on_taken), chosen)


@pytest.mark.parametrize("on_taken", ["skip", "next"])
def test_round_robin_says_when_the_lists_are_too_short(on_taken):
    assert retrieval.round_robin(np.array([[0, 1], [0, 1]]), 3, on_taken=on_taken) is None
