"""Rows read a batch at a time are what they are one by one: the same examples, originals and account."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.batches import as_json
from dsel.data import convert as converting
from dsel.data.convert import Chunk, convert
from dsel.data.native import rows_of
from dsel.data.raw import Unreadable
from dsel.data.rows import Meaning
from dsel.json_columns import json_of

TEXTS = [
    "A bird?", "Heron.", "", " ", "\n\t", None, "\u3000", "\x1c", "\0", "\0a", " lead", "trail \n", "é", "鳥は?",
    "\ufeffx",
    '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]', '{"a": 1}', " [1, 2]", "{'b': 2}",
    "[x",
    "3", " 4.5 ", "1e3", "-.5", "nan", "None", "n/a", "1e999", "٣", "2024-01-02", "https://a.b/c", "0123456789abcdef",
    "true", "False", "0", "1", 'A bird? "Heron."\\', "A bird?\nHeron.", "HERON.", "A bird? Heron.", "x" * 300,
    "line\u2028end\x7f\x01", "Heron. A bird? is asked here", "one two three",
]  # fmt: skip
ODD_TEXTS = [*TEXTS, "\ud800", "caf\udce9"]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    2,
    -7,
    2**70,
    1.5,
    0.0,
    float("nan"),
    float("inf"),
    10**400,
    [],
    {},
    ["a"],
]
VALUES += [{"note": "a note"}, {"id": "x"}, [[1]], ["A bird?", "Heron."], [{"role": "user", "content": "A bird?"}]]
ROLES = ["user", "assistant", "system", "human", "gpt", "Tool", "narrator", "", None, "function_call", "observation"]

texts = st.sampled_from(ODD_TEXTS)
plain = st.sampled_from(["A bird?", "Heron.", "A fish?", "Trout.", "x y", "[x", " lead", "é\n"])
anything = st.one_of(texts, st.sampled_from(VALUES))

turn = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(ROLES[:3]), "content": plain}),
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES), "content": texts},
        optional={"weight": st.sampled_from([None, 0, 1]), "name": texts, "id": texts, "tool_calls": st.just([]),
                  "more": texts, "from": st.sampled_from(ROLES), "train_mask": st.sampled_from([None, "x"])},
    ),
    st.fixed_dictionaries({"from": st.sampled_from(ROLES), "value": texts}),
)  # fmt: skip
asked = {"role": "user", "content": "A bird?"}
replied = {"role": "assistant", "content": "Heron."}
chat = st.one_of(
    st.just([asked, replied]),
    st.just([{"role": "system", "content": "Be brief."}, asked, replied]),
    st.lists(turn, max_size=4),
    st.lists(turn, max_size=2).map(lambda turns: [asked, *turns, replied]),
)

MORE = {
    "input": texts, "context": anything, "system": texts, "system_prompt": plain, "id": anything, "source": texts,
    "dataset": anything,
    "hint": texts, "text": texts, "score": anything, "grade": texts, "ok": st.sampled_from([None, True, False]),
    "label": anything, "kto_tag": texts, "tools": anything, "reasoning": texts, "history": anything, "image": anything,
    "meta": anything, "category": texts, "Thought": texts, "chosen": anything, "rejected": texts, "messages": anything,
    "a\0b": texts, " Question ": texts, "url": texts, "n": st.sampled_from([None, 1, 2, 3]),
}  # fmt: skip


def tables(columns: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of the same columns: those, and some more."""

    def rows(names: set[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
        each = {**columns, **{name: MORE[name] for name in MORE if name in names}}
        return st.lists(st.fixed_dictionaries(each), min_size=1, max_size=12)

    return st.sets(st.sampled_from(sorted(MORE)), max_size=4).flatmap(rows)


pairs = tables({"question": st.one_of(plain, texts), "answer": st.one_of(plain, plain, texts)})
chats = tables({"conversations": st.one_of(chat, chat, chat, anything)})
mixed = st.lists(
    st.one_of(pairs, chats, st.just([{"no": "format"}]), st.just([Unreadable("not JSON")])), max_size=3
).map(lambda found: [row for rows in found for row in rows])
MEANINGS = [
    Meaning("a", "a.jsonl"),
    Meaning("a", "a.jsonl", label="mine"),
    Meaning("a", "a.jsonl", columns={"input": "hint", "completion": "answer"}),
    Meaning("a", "a.jsonl", columns={"question": "text"}),
    Meaning("a", "a.jsonl", roles={"narrator": "system"}, format=None),
    Meaning("a", "a.jsonl", format="question/answer"),
    Meaning("a\nb", "a.jsonl"),
]


def one_by_one(read: Callable[[], Chunk]) -> Chunk:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "FEW", 10**9)
        return read()


def at_once(read: Callable[[], Chunk]) -> Chunk:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "FEW", 1)
        return read()


def same(raw: Any, meaning: Meaning) -> Chunk:
    slow, fast = one_by_one(lambda: convert(raw, meaning)), at_once(lambda: convert(raw, meaning))
    assert _equal(fast, slow)
    assert fast.originals.slice().equals(slow.originals.slice())
    assert fast.account == slow.account
    for of in ("forms", "repairs", "keys", "unread"):  # in the order in which the log says them
        assert list(getattr(fast.account, of).items()) == list(getattr(slow.account, of).items())
    fast.rows.validate(full=True)
    return fast


def _equal(one: Chunk, two: Chunk) -> bool:
    assert sorted(one.rows.schema.names) == sorted(two.rows.schema.names)
    for name in one.rows.schema.names:
        left, right = one.rows.column(name).to_pylist(), two.rows.column(name).to_pylist()
        assert len(left) == len(right)
        assert all(a == b or (a != a and b != b) for a, b in zip(left, right, strict=True)), name
    return True


@settings(deadline=None, max_examples=120)
@given(st.one_of(pairs, chats, mixed), st.sampled_from(MEANINGS))
def test_rows_of_python(rows: list[Any], meaning: Meaning) -> None:
    same(rows, meaning)


@settings(deadline=None, max_examples=120)
@given(st.one_of(pairs, chats), st.sampled_from(MEANINGS))
def test_rows_of_arrow(rows: list[Any], meaning: Meaning) -> None:
    batch = _batch(rows)
    if batch is not None:
        same(batch, meaning)
        same(batch.slice(1), meaning)


def _batch(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch | None:
    """The rows in Arrow, but for columns of which it has no type."""
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        raw = [v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for v in values]
        try:
            found = pa.array(raw, pa.binary() if all(v is None or isinstance(v, bytes) for v in raw) else None)
            columns[name] = found.view(pa.string()) if pa.types.is_binary(found.type) else pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            continue
    return pa.record_batch(columns) if columns else None


@settings(deadline=None, max_examples=80)
@given(st.one_of(pairs, chats))
def test_the_text_of_rows(rows: list[Any]) -> None:
    batch = _batch(rows)
    if batch is None:
        return
    values = list(rows_of(batch))
    sound = [i for i, row in enumerate(values) if isinstance(row, dict)]
    for part in (batch.take(pa.array(sound, pa.int64())), batch.take(pa.array(sound[1:], pa.int64()))):
        found = json_of(part)
        if found is not None:
            assert found.to_pylist() == [as_json(row) for row in rows_of(part) if isinstance(row, dict)]
            found.validate(full=True)


def test_plain_rows_are_read_at_once() -> None:
    """Or nothing above would have shown anything."""
    extra = {"id": "x", "source": "web", "score": 1.5, "grade": "3", "note": "Some words.", "meta": {"a": [1]}}
    pair: dict[str, Any] = {"question": "A bird?", "answer": "Heron.", "system": "Be brief.", "input": "Grey.", **extra}
    talk = {"messages": [{"role": "system", "content": "Be brief."}, asked, replied], **extra}
    for row in (pair, talk):
        for raw in ([row] * 30, pa.RecordBatch.from_pylist([row] * 30)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(converting, "read_row", None)  # not called
                found = convert(raw, Meaning("a", "a.jsonl"))
            assert found.rows.num_rows == 30 and found.account.forms.total() == 30
