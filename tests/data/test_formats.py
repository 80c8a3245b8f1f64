"""Every format of the field becomes messages, and what cannot is refused with a reason."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.data.formats import (
    FORMATS,
    NAMES,
    ROLES,
    BadRow,
    check_columns,
    recognise,
    rename,
    scores_of,
    to_messages,
)
from dsel.errors import ConfigError
from dsel.pool import Message

QUESTION, ANSWER = "What is\n1 + 1?", " 2 "
PLAIN: list[Message] = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
SYSTEM: Message = {"role": "system", "content": "Be brief."}
LONG: list[Message] = [
    SYSTEM,
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
]


def read(row: dict[str, Any], repairs: Counter[str] | None = None) -> list[Message]:
    return to_messages(row, recognise(row.keys(), "here"), Counter() if repairs is None else repairs)


def sharegpt(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": name, "value": text} for name, text in turns]}


EXAMPLES: dict[tuple[str, ...], dict[str, Any]] = {
    ("messages",): {"messages": PLAIN},
    ("conversations",): sharegpt(("human", QUESTION), ("gpt", ANSWER)),
    ("instruction", "instances"): {"instruction": QUESTION, "instances": [{"input": "", "output": ANSWER}]},
    ("instruction", "output"): {"instruction": QUESTION, "input": "", "output": ANSWER},
    ("prompt", "completion"): {"prompt": QUESTION, "completion": ANSWER},
    ("prompt", "response"): {"prompt": QUESTION, "response": ANSWER},
    ("instruction", "response"): {"instruction": QUESTION, "response": ANSWER},
    ("question", "answer"): {"question": QUESTION, "answer": ANSWER},
    ("inputs_pretokenized", "targets_pretokenized"): {"inputs_pretokenized": QUESTION, "targets_pretokenized": ANSWER},
}


def test_every_format_has_an_example_here() -> None:
    assert [form.required for form in FORMATS] == list(EXAMPLES)


@pytest.mark.parametrize("required", EXAMPLES, ids="/".join)
def test_every_format_gives_the_same_messages(required: tuple[str, ...]) -> None:
    row = EXAMPLES[required] | {"id": 7, "source": "here", "unrelated": [1]}
    assert recognise(row.keys(), "here").required == required
    assert read(row) == PLAIN


@pytest.mark.parametrize("required", [f.required for f in FORMATS if "system" in f.optional], ids="/".join)
def test_a_system_column_becomes_the_first_turn(required: tuple[str, ...]) -> None:
    assert read(EXAMPLES[required] | {"system": SYSTEM["content"]}) == [SYSTEM, *PLAIN]
    assert read(EXAMPLES[required] | {"system": None}) == PLAIN
    assert read(EXAMPLES[required] | {"system": ""}) == PLAIN


@pytest.mark.parametrize("first", range(len(FORMATS)))
@pytest.mark.parametrize("second", range(len(FORMATS)))
def test_of_several_formats_the_first_in_the_table_is_read(first: int, second: int) -> None:
    columns = {*FORMATS[first].required, *FORMATS[second].required}
    fitting = [i for i, form in enumerate(FORMATS) if set(form.required) <= columns]
    assert recognise(columns, "here") is FORMATS[fitting[0]]
    assert fitting[0] <= min(first, second)


def test_unknown_columns_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        recognise(["task_id", "canonical_solution", "prompt"], "pool.jsonl")
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
    repairs: Counter[str] = Counter()
    assert read({"messages": messages}, repairs) == messages
    assert read(sharegpt(*((names[m["role"]], m["content"]) for m in messages)), repairs) == messages
    assert read({"conversations": messages}, repairs) == messages
    assert read({"prompt": messages[:-1], "completion": messages[-1:]}, repairs) == messages
    assert not repairs


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
    repairs: Counter[str] = Counter()
    row = sharegpt(("system", "Be brief."), ("gpt", "zero"), ("human", "one"), ("gpt", "two"))
    assert read(row, repairs) == LONG[:3]
    assert repairs == {"leading assistant turns cut": 1}


def test_a_question_without_answer_is_cut() -> None:
    repairs: Counter[str] = Counter()
    assert read({"messages": [*LONG, {"role": "user", "content": "five"}]}, repairs) == LONG
    assert repairs == {"unanswered last turns cut": 1}


@pytest.mark.parametrize("name", ROLES)
def test_role_names_are_read_in_any_case(name: str) -> None:
    row = sharegpt((name, "x"), ("HUMAN", "one"), ("Gpt", "two"))
    roles = [m["role"] for m in read(row)]
    assert roles == {"system": ["system"], "user": ["user"], "assistant": []}[ROLES[name]] + ["user", "assistant"]


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
        ("not text", {"prompt": 1, "completion": "b"}),
        ("not text", {"prompt": "a", "completion": ["b"]}),
        ("not text", {"prompt": [{"role": "user", "content": "a"}], "completion": "b"}),
        ("not text", {"messages": "a"}),
        ("not text", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
        ("not text", {"instruction": "a", "instances": ["b"]}),
        ("not text", {"instruction": "a", "output": "b", "system": 3}),
        ("broken UTF-8", {"prompt": BROKEN, "completion": "b"}),
        ("broken UTF-8", {"prompt": "a", "completion": BROKEN}),
        ("broken UTF-8", {"prompt": "a", "completion": "b", "system": BROKEN}),
        ("broken UTF-8", {"prompt": "a", "completion": json.loads('"\\ud83d"')}),
        ("unknown role 'tool'", {"messages": [*PLAIN, {"role": "tool", "content": "{}"}]}),
        ("unknown role 'None'", {"messages": [{"role": None, "content": "a"}]}),
        ("a turn without", {"messages": [{"role": "user"}]}),
        ("a turn without", {"messages": ["a", "b"]}),
        ("a turn without", {"conversations": [{"value": "a"}]}),
    ],
)
def test_an_unusable_row_has_a_short_reason(reason: str, row: dict[str, Any]) -> None:
    with pytest.raises(BadRow) as caught:
        read(row)
    assert str(caught.value).startswith(reason)
    str(caught.value).encode()  # it goes into logs and records
    assert len(str(caught.value)) < 60


def test_a_row_without_its_files_columns_is_unusable() -> None:
    with pytest.raises(BadRow, match="no column 'completion'"):
        to_messages({"prompt": "a"}, recognise(["prompt", "completion"], "here"), Counter())


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
    assert scores_of(row | others, recognise(row.keys(), "here")) == {"good": 2.0, "better": 0.5}


def test_a_number_too_large_for_a_float_is_no_score() -> None:
    row = {"prompt": "a", "completion": "b", "hash": 10**400, "good": 1}
    assert scores_of(row, recognise(row.keys(), "here")) == {"good": 1.0}
