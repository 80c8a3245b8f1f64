"""The pool and the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.errors import ConfigError
from dsel.pool import Example, Pool, resolve_budget


def example(i: int, *, text: str | None = None, source: str = "a", **more: object) -> Example:
    messages = [{"role": "user", "content": text or f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}]
    return Example(id=str(i), messages=messages, source=source, original={"row": i}, **more)  # type: ignore[arg-type]


def test_take_keeps_columns_originals_and_truth_aligned() -> None:
    pool = Pool.build("p", [example(i, truth={"kind": f"k{i}"}, scores={"q": i}) for i in range(5)])
    taken = pool.take([3, 1])
    assert taken.ids == ["3", "1"]
    assert list(taken.originals["json"]) == ['{"row": 3}', '{"row": 1}']
    assert taken.truth is not None and list(taken.truth["kind"]) == ["k3", "k1"]
    assert list(taken.rows["q"]) == [3.0, 1.0]
    assert taken.score_columns == ["q"]


def test_blind_pool_has_no_truth_and_the_same_fingerprint() -> None:
    pool = Pool.build("p", [example(i, truth={"is_noise": True}) for i in range(3)])
    blind = pool.blind()
    assert blind.truth is None
    assert blind.fingerprint == pool.fingerprint
    assert not {"is_noise", "kind"} & set(blind.rows.column_names)


def test_fingerprint_follows_content_and_order() -> None:
    one = Pool.build("p", [example(0), example(1)])
    same = Pool.build("q", [example(0), example(1)])
    swapped = Pool.build("p", [example(1), example(0)])
    other = Pool.build("p", [example(0), example(1, text="else")])
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, swapped.fingerprint, other.fingerprint}) == 3
    assert one.take([1, 0]).fingerprint != one.fingerprint


def test_repeated_ids_are_made_distinct() -> None:
    pool = Pool.build("p", [example(7), example(7), example(7)])
    assert len(set(pool.ids)) == 3
    assert pool.ids[0] == "7"


def test_holdout_depends_on_content_not_on_order_or_neighbours() -> None:
    pool = Pool.build("p", [example(i) for i in range(40)])
    _, held = pool.hold_out(10)
    _, reordered = pool.take(list(range(39, -1, -1))).hold_out(10)
    assert len(held) == 10
    assert set(held.ids) == set(reordered.ids)


def test_holdout_never_splits_equal_examples() -> None:
    pool = Pool.build("p", [example(i, text="the same") for i in range(2)] + [example(i) for i in range(2, 30)])
    twins = Pool.build("p", [Example(str(i), pool.messages[i % 15], "a", {}) for i in range(30)])
    kept, held = twins.hold_out(0.5)
    assert not {str(m) for m in kept.messages} & {str(m) for m in held.messages}


@pytest.mark.parametrize("share", [-1, 1.5, 40, 41])
def test_impossible_holdouts_are_refused(share: float) -> None:
    pool = Pool.build("p", [example(i) for i in range(40)])
    with pytest.raises(ConfigError, match="data.holdout"):
        pool.hold_out(share)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_min=True))
def test_a_fraction_gives_at_least_one_and_at_most_all(n: int, fraction: float) -> None:
    assert 1 <= resolve_budget(fraction, n) <= n


@given(st.integers(2, 10**6), st.data())
def test_a_count_is_taken_as_it_is(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, n))
    assert resolve_budget(count, n) == count


@pytest.mark.parametrize("budget", [0, -1, 1.5, float("nan"), float("inf"), 11, "ten", None, True])
def test_impossible_budgets_are_refused_in_one_line(budget: float) -> None:
    with pytest.raises(ConfigError, match="budget=") as caught:
        resolve_budget(budget, 10)
    assert "\n" not in str(caught.value)
