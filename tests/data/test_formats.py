"""Every format of the field becomes messages, and what cannot is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.data.formats import (
    FORMATS,
    NAMES,
    Format,
    check_columns,
    format_named,
    recognise,
    rename,
    to_messages,
)
from dsel.data.reading import BadRow, Reading
from dsel.data.roles import ROLES
from dsel.data.unread import scores_of
from dsel.errors import ConfigError
from dsel.pool import Message

QUESTION, ANSWER = "What is\n1 + 1?", " 2 "
PLAIN: list[Message] = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
SYSTEM: Message = {"role": "system", "content": "Be brief."}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
LONG: list[Message] = [
    SYSTEM,
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
]


def read(row: Mapping[str, Any], reading: Reading | None = None) -> list[Message]:
    return to_messages(row, recognise(row, "here"), reading)


def sharegpt(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": name, "value": text} for name, text in turns]}


def example(form: Format) -> dict[str, Any]:
    """A row of `form` that asks `QUESTION` and answers `ANSWER`."""
    if form.required == ("instruction", "instances"):
        return {"instruction": QUESTION, "instances": [{"input": "", "output": ANSWER}]}
    if form.required == ("chosen", "rejected"):
        return {"chosen": PLAIN, "rejected": [PLAIN[0], {"role": "assistant", "content": "3"}]}
    if len(form.required) == 1:
        return {form.required[0]: PLAIN}
    return dict(zip(form.required, (QUESTION, ANSWER), strict=True))


every_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


@every_format
def test_every_format_gives_the_same_messages(form: Format) -> None:
    row = example(form) | {"id": 7, "source": "here", "unrelated": [1]}
    assert recognise(row, "here") is form
    assert read(row) == PLAIN


@every_format
def test_a_system_column_becomes_the_first_turn(form: Format) -> None:
    for column in {"system", "system_prompt"} & {*form.optional}:
        assert read(example(form) | {column: SYSTEM["content"]}) == [SYSTEM, *PLAIN]
        assert read(example(form) | {column: None}) == read(example(form) | {column: ""}) == PLAIN


@every_format
def test_every_format_can_be_named(form: Format) -> None:
    row = {c: v for other in FORMATS for c, v in example(other).items()} | example(form)
    assert recognise(row, "here") is FORMATS[0]
    assert recognise(row, "here", form.name) is form
    assert to_messages(row, form)[-1]["content"] == ANSWER


@every_format
def test_of_several_formats_the_first_in_the_table_is_read(form: Format) -> None:
    for other in FORMATS:
        row = example(form) | example(other)
        fitting = [f for f in FORMATS if set(f.required) <= row.keys()]
        assert recognise(row, "here") is fitting[0]
        assert FORMATS.index(fitting[0]) <= min(FORMATS.index(form), FORMATS.index(other))


def test_unknown_columns_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        recognise(dict.fromkeys(["task_id", "canonical_solution", "prompt"], "x"), "pool.jsonl")
    message = str(caught.value)
    assert message.startswith("pool.jsonl: ") and "canonical_solution, prompt, task_id" in message
    assert "data.columns" in message and "\n" not in message


content = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: text.strip())
conversations = st.builds(
    lambda system, pairs: [
        *({"role": "system", "content": text} for text in system),
        *({"role": r, "content": t} for pair in pairs for r, t in zip(("user", "assistant"), pair, strict=True)),
    ],
    st.lists(content, max_size=1),
    st.lists(st.tuples(content, content), min_size=1, max_size=4),
)


@given(conversations)
def test_any_conversation_survives_as_messages_sharegpt_or_trl(messages: list[Message]) -> None:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    reading = Reading()
    assert read({"messages": messages}, reading) == messages
    assert read(sharegpt(*((names[m["role"]], m["content"]) for m in messages)), reading) == messages
    assert read({"conversations": messages}, reading) == messages
    assert read({"prompt": messages[:-1], "completion": messages[-1:]}, reading) == messages
    assert not reading.repairs and not reading.unread
    assert read({"data": json.dumps(messages)}) == read({"chat": repr(messages)}) == messages


@given(conversations, st.data())
def test_what_is_cut_away_leaves_a_conversation_that_is_read_as_it_is(messages: list[Message], data: Any) -> None:
    turns = [m for m in messages if m["role"] != "system"]
    start, stop = data.draw(st.integers(0, len(turns))), data.draw(st.integers(0, len(turns)))
    try:
        cut = read({"messages": turns[start:stop]})
    except BadRow as bad:
        assert str(bad) in ("no user turn", "empty response")
        return
    assert cut[0]["role"] == "user" and cut[-1]["role"] == "assistant"
    assert read({"messages": cut}) == cut
    assert any(turns[i : i + len(cut)] == cut for i in range(start, stop))


def test_turns_and_system_survive() -> None:
    assert read({"messages": LONG}) == LONG
    named = [("system", "Be brief."), ("human", "one"), ("gpt", "two"), ("human", "three"), ("gpt", "four")]
    assert read(sharegpt(*named)) == LONG
    assert read({"messages": [SYSTEM | {"content": " "}, *LONG[1:]]}) == LONG[1:]


def test_an_answer_before_any_question_is_cut() -> None:
    reading = Reading()
    row = sharegpt(("system", "Be brief."), ("gpt", "zero"), ("human", "one"), ("gpt", "two"))
    assert read(row, reading) == LONG[:3]
    assert reading.repairs == {"leading assistant turns cut": 1}


def test_a_question_without_answer_is_cut() -> None:
    reading = Reading()
    assert read({"messages": [*LONG, {"role": "user", "content": "five"}]}, reading) == LONG
    assert reading.repairs == {"unanswered last turns cut": 1}


@pytest.mark.parametrize("name", ROLES)
def test_role_names_are_read_in_any_case(name: str) -> None:
    row = sharegpt((name, "x"), ("HUMAN", "one"), ("Gpt", "two"))
    roles = [m["role"] for m in read(row)]
    kept = {"system": ["system"], "user": ["user"], "assistant": [], "tool": []}
    assert roles == [*kept[ROLES[name]], "user", "assistant"]


def test_an_alpaca_input_is_joined_to_the_instruction() -> None:
    def prompt(**row: Any) -> str:
        return read({"output": "x", **row})[0]["content"]

    assert prompt(instruction="Add.", input="1 2") == "Add.\nInput: 1 2"
    assert prompt(instruction="Add.", input="") == prompt(instruction="Add.", input=None) == "Add."
    assert prompt(instruction="Add.") == "Add."
    assert prompt(instruction="", input="1 2") == "1 2"


def test_of_self_instruct_instances_the_first_is_used() -> None:
    row = {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "2 2", "output": "4"}]}
    assert [m["content"] for m in read(row)] == ["Add.\nInput: 1 2", "3"]


BROKEN = b"caf\xe9".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        ("empty response", {"prompt": "a", "completion": ""}),
        ("empty response", {"prompt": "a", "completion": " \n"}),
        ("empty response", {"prompt": "a", "completion": None}),
        ("empty response", {"instruction": "a", "instances": []}),
        ("empty response", {"instruction": "a", "instances": [{"input": "b"}]}),
        ("empty response", sharegpt(("human", "a"))),
        ("empty response", sharegpt(("human", "a"), ("gpt", ""), ("human", "b"), ("gpt", "c"))),
        ("empty response", {"prompt": [{"role": "user", "content": "a"}], "completion": []}),
        ("no user turn", {"prompt": "", "completion": "b"}),
        ("no user turn", {"instruction": " ", "input": None, "output": "b"}),
        ("no user turn", {"messages": []}),
        ("no user turn", {"messages": None}),
        ("no user turn", {"messages": [SYSTEM]}),
        ("no user turn", sharegpt(("system", "a"), ("gpt", "b"))),
        ("`completion` is a list, not text", {"prompt": "a", "completion": ["b"]}),
        ("`answer` is a map, not text", {"question": "a", "answer": {"b": "c"}}),
        ("`input` is a list, not text", {"instruction": "a", "input": ["b"], "output": "c"}),
        ("`answer` is of type bytes, not text", {"question": "a", "answer": b"c"}),
        ("`messages` is text, not a list of turns", {"messages": "a"}),
        ("`messages` is a number, not a list of turns", {"messages": 3}),
        ("`messages` is text that looks like a list, but", {"messages": "[{'role': 'user'} {'role': 'assistant'}]"}),
        ("`turns` is a list of strings, and who speaks", {"turns": ["a", "b"]}),
        ("`instances` is no list of maps", {"instruction": "a", "instances": ["b"]}),
        ("`chosen` is an answer without its question", {"chosen": "a", "rejected": "b"}),
        ("`label` is false", {"prompt": "a", "completion": "b", "label": False}),
        ("`label` is false", {"prompt": "a", "completion": "b", "label": "False"}),
        ("`kto_tag` is false", {"messages": PLAIN, "kto_tag": False}),
        ("`desirable` is false", {"prompt": "a", "completion": "b", "desirable": "0"}),
        ("`images`: a row with more than text", {"messages": PLAIN, "images": ["a.png"]}),
        ("`audio`: a row with more than text", {"messages": [PLAIN[0] | {"audio": {"id": "a"}}, PLAIN[1]]}),
        ("`content` has a part of type 'image_url'", {"messages": [PLAIN[0] | {"content": [IMAGE]}, PLAIN[1]]}),
        ("no response to train", {"messages": [PLAIN[0], PLAIN[1] | {"weight": 0}]}),
        ("no response to train", {"messages": [PLAIN[0], PLAIN[1] | {"train": False}]}),
        ("broken UTF-8", {"prompt": BROKEN, "completion": "b"}),
        ("broken UTF-8", {"prompt": "a", "completion": BROKEN}),
        ("broken UTF-8", {"prompt": "a", "completion": "b", "system": BROKEN}),
        ("broken UTF-8", {"prompt": "a", "completion": json.loads('"\\ud83d"')}),
        ("unknown role 'narrator'", {"messages": [*PLAIN, {"role": "narrator", "content": "{}"}]}),
        ("a turn without", {"messages": [{"role": None, "content": "a"}]}),
        ("broken UTF-8", {"messages": [PLAIN[0], PLAIN[1] | {"reasoning_content": BROKEN}]}),
        ("broken UTF-8", {"prompt": "a", "completion": "b", "tools": [{"name": BROKEN}]}),
        ("a turn without", {"messages": [{"role": "user"}]}),
        ("a turn without", {"conversations": [{"value": "a"}]}),
    ],
)
def test_an_unusable_row_has_a_short_reason(reason: str, row: dict[str, Any]) -> None:
    with pytest.raises(BadRow) as caught:
        read(row)
    assert str(caught.value).startswith(reason)
    str(caught.value).encode()  # it goes into logs and records
    assert len(str(caught.value)) < 90


def test_a_row_without_its_files_columns_is_unusable() -> None:
    with pytest.raises(BadRow, match="no column `completion`"):
        to_messages({"prompt": "a"}, format_named("prompt/completion"))


def test_columns_are_renamed() -> None:
    row = {"text_in": "a", "text_out": "b", "prompt": "old", "n": 1}
    renamed = rename(row, {"prompt": "text_in", "completion": "text_out"})
    assert renamed == {"prompt": "a", "completion": "b", "n": 1}
    assert rename(row, {}) == row


def test_swapped_columns_are_renamed() -> None:
    row = {"prompt": "the answer", "completion": "the question"}
    assert rename(row, {"prompt": "completion", "completion": "prompt"}) == {
        "prompt": "the question",
        "completion": "the answer",
    }


def test_only_known_names_can_be_mapped_to() -> None:
    check_columns(dict.fromkeys(NAMES, "x"))
    with pytest.raises(ConfigError, match=r"data\.columns: promt is none of .*prompt"):
        check_columns({"promt": "x", "completion": "y"})


def test_scores_are_the_numeric_columns_that_no_format_reads() -> None:
    row = {"prompt": "a", "completion": "b", "id": 3, "source": 4, "system": "", "good": 2, "better": 0.5}
    others = {"flag": True, "word": "1", "gap": None, "nan": float("nan"), "inf": float("inf"), "list": [1]}
    reserved = {"messages": 3.5, "\ud800": 1}
    reading = Reading()
    to_messages(row | others | reserved, recognise(row, "here"), reading)
    assert scores_of(row | others | reserved, reading.read) == {"good": 2.0, "better": 0.5}


def test_a_number_too_large_for_a_float_is_no_score() -> None:
    row = {"prompt": "a", "completion": "b", "hash": 10**400, "good": 1}
    assert scores_of(row, {"prompt", "completion"}) == {"good": 1.0}
