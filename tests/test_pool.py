"""The pool and the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.errors import ConfigError
from dsel.pool import Example, Message, Pool, is_answer, resolve_budget


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


@pytest.mark.parametrize("share", [10, 0.1, 37])
def test_rows_are_counted_where_texts_repeat(share: float, caplog: pytest.LogCaptureFixture) -> None:
    messages = Pool.build("p", [example(i) for i in range(30)]).messages
    sizes = [5] * 18 + [1] * 10  # 100 rows of 28 texts
    rows = [i for i, size in enumerate(sizes) for _ in range(size)]
    pool = Pool.build("p", [Example(str(n), messages[i], "a", {}) for n, i in enumerate(rows)])
    wanted = share if share >= 1 else round(share * 100)
    kept, held = pool.hold_out(share)
    assert len(held) == wanted and len(kept) == 100 - wanted
    assert not {str(m) for m in kept.messages} & {str(m) for m in held.messages}
    assert not caplog.records


def test_a_holdout_that_cannot_be_exact_is_said(caplog: pytest.LogCaptureFixture) -> None:
    messages = Pool.build("p", [example(i) for i in range(2)]).messages
    pool = Pool.build("p", [Example(str(i), messages[i % 2], "a", {}) for i in range(100)])
    assert [len(part) for part in pool.hold_out(60)] == [50, 50]
    assert "data.holdout=60: 50 rows are held out" in caplog.text
    assert [len(part) for part in pool.hold_out(10)] == [100, 0]
    assert "data.holdout=10: 0 rows are held out" in caplog.text


@pytest.mark.parametrize("share", [-1, 1.5, 40, 41, float("nan"), float("inf")])
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


def conversations() -> Pool:
    """One turn, two turns, and two turns behind a system message and two questions in a row."""
    u, a, s = "user", "assistant", "system"
    turns = [
        [(u, "q0"), (a, "r0")],
        [(u, "q1"), (a, "r1"), (u, "p1"), (a, "t1")],
        [(s, "be"), (u, "q2"), (u, "o2"), (a, "r2"), (u, "p2"), (a, "t2")],
    ]
    messages = [[{"role": role, "content": content} for role, content in t] for t in turns]
    return Pool.build("p", [Example(str(i), m, "s", {"row": i}, scores={"q": i}) for i, m in enumerate(messages)])


def told(pool: Pool) -> list[str]:
    return [" ".join(m["content"] for m in messages) for messages in pool.messages]


def test_the_last_turn_is_the_pool_and_the_first_cuts_what_follows() -> None:
    pool = conversations()
    assert pool.turn("last") is pool
    first = pool.turn("first")
    assert told(first) == ["q0 r0", "q1 r1", "be q2 o2 r2"]
    assert first.responses == ["r0", "r1", "r2"]
    assert [len(p) for p in first.prompts] == [1, 1, 3]
    assert told(pool)[1] == "q1 r1 p1 t1"


def test_the_first_turn_is_one_that_is_trained_on() -> None:
    contents = [
        ("user", "q0"),
        ("assistant", "r0"),
        ("user", "q1"),
        ("assistant", "r1"),
        ("user", "q2"),
        ("assistant", "r2"),
    ]
    messages: list[Message] = [{"role": role, "content": content} for role, content in contents]
    messages[1]["train"] = False
    first = Pool.build("p", [Example("a", messages, "s", {})]).turn("first")
    assert told(first) == ["q0 r0 q1 r1"]


def test_answered_replaces_the_last_response_alone() -> None:
    pool = conversations()
    answers = ["x", "", "über\n\u2028 {}"]
    ours = pool.answered(answers)
    assert ours.responses == answers
    assert ours.prompts == pool.prompts
    assert [m[-1]["role"] for m in ours.messages] == ["assistant"] * 3
    assert pool.responses == ["r0", "t1", "t2"]
    assert pool.turn("first").answered(answers).texts[1] == "q1\n"
    with pytest.raises(ValueError):
        pool.answered(["too", "few"])


def test_changed_turns_keep_everything_else_and_order() -> None:
    pool = conversations()
    for ours in (pool.turn("first"), pool.answered(["a", "b", "c"]), pool.take([2, 0, 1]).answered(["c", "a", "b"])):
        again = ours if ours.ids[0] == "0" else ours.take([1, 2, 0])
        assert again.ids == pool.ids and again.sources == pool.sources and again.score_columns == ["q"]
        assert list(again.originals["json"]) == list(pool.originals["json"])
        assert list(again.rows["q"]) == [0, 1, 2]
    assert pool.take([2, 0, 1]).answered(["c", "a", "b"]).take([1, 2, 0]).responses == ["a", "b", "c"]


def test_fingerprints_follow_changed_turns() -> None:
    pool = conversations()
    pools = [
        pool,
        pool.turn("first"),
        *(pool.answered(a) for a in (["a", "b", "c"], ["a", "c", "b"], ["a", "b", "cc"])),
    ]
    assert len({p.fingerprint for p in pools}) == 5
    assert pool.answered(["a", "b", "c"]).fingerprint == pools[2].fingerprint
    other = Pool.build("p", [example(i) for i in range(3)])
    assert other.answered(["a", "b", "c"]).fingerprint != pools[2].fingerprint


def test_a_pool_with_answers_can_verify() -> None:
    pool = Pool.build("p", [example(i, truth={"answer": f"Answer {i}"}) for i in range(4)])
    verify = pool.verifier
    assert verify is not None
    right = verify(np.array([2, 0, 3, 2]), ["answer 2.", "answer 1", "Answer  3", ""])
    assert right.dtype == bool
    assert right.tolist() == [True, False, True, False]
    assert verify(np.arange(4), pool.responses).all()
    taken = pool.take([3, 1]).verifier
    assert taken is not None and taken(np.array([0, 1]), ["answer 3", "answer 3"]).tolist() == [True, False]
    with pytest.raises(ValueError):
        verify(np.array([0, 1]), ["answer 0"])


def test_a_pool_that_hides_or_lacks_answers_cannot_verify() -> None:
    pool = Pool.build("p", [example(0, truth={"answer": "a"})])
    assert pool.blind().verifier is None
    assert Pool.build("p", [example(0, truth={"kind": "k"})]).verifier is None
    assert Pool.build("p", [example(0)]).verifier is None


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("New York", True), ("new  york.", True), (" NEW\nYORK . ", True), ("New York..", False), ("York", False),
        ("New York!", False), ("NewYork", False), ("", False), (".", False),
    ],
)  # fmt: skip
def test_an_answer_may_differ_in_case_space_and_a_full_stop(response: str, right: bool) -> None:
    assert is_answer("New York", response) is right
    assert is_answer(response, "New York") is right


def test_a_message_keeps_what_goes_beyond_role_and_content() -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        {"role": "user", "content": "1 + 1?", "tools": [{"name": "add"}]},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "A sum."},
        {"role": "tool", "content": "2", "tool_call_id": "x"},
        {"role": "assistant", "content": "2", "train": False},
    ]
    plain = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    pool = Pool.build("made", [Example("a", turns, "s", {}), Example("b", plain, "s", {})])
    assert pool.messages == [turns, plain]
    assert pool.take([1, 0]).messages == [plain, turns]
    assert pool.turn("first").messages == [turns[:2], plain]
    assert pool.texts[0] == '1 + 1?\nA sum.\n{"function": {"name": "add", "arguments": {"a": 1}}}\n2\n2'
    assert pool.texts[1] == "Hi.\nHello."
