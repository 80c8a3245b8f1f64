"""Rows as they stand in the data sets of the field, and the turns they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dsel.data.formats import recognise, to_messages
from dsel.data.reading import BadRow, Reading
from dsel.data.unread import unread_columns
from dsel.pool import Example, Message, Pool

Short = tuple[str, str]

ROLE = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def turns(*short: str) -> list[Message]:
    """Messages written as "u: text"."""
    return [{"role": ROLE[text[0]], "content": text[3:]} for text in short]


def openai(*short: str, **last: Any) -> list[dict[str, Any]]:
    return [*turns(*short[:-1]), {**turns(short[-1])[0], **last}]


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bergen"}}}
TEXT_CALL = json.dumps({"name": "weather", "arguments": {"city": "Bergen"}})
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
UA, UAUA = ("u: A bird?", "a: Heron."), ("u: A bird?", "a: Heron.", "u: A fish?", "a: Trout.")
LIST = openai(*UA)

READ: dict[str, tuple[dict[str, Any], list[Message]]] = {
    # alpaca and its relatives
    "history": (
        {
            "instruction": "A fish?",
            "input": "",
            "output": "Trout.",
            "system": "Be brief.",
            "history": [["A bird?", "Heron."]],
        },
        turns("s: Be brief.", *UAUA),
    ),
    "history in JSON text": (
        {"instruction": "A fish?", "output": "Trout.", "history": '[["A bird?", "Heron."]]'},
        turns(*UAUA),
    ),
    "history of messages": ({"prompt": "A fish?", "response": "Trout.", "history": LIST}, turns(*UAUA)),
    "history that is empty": ({"instruction": "A bird?", "output": "Heron.", "history": []}, turns(*UA)),
    "history that is null": ({"instruction": "A bird?", "output": "Heron.", "history": None}, turns(*UA)),
    "context": (
        {"question": "A bird?", "context": "It is grey.", "answer": "Heron."},
        turns("u: A bird?\nInput: It is grey.", "a: Heron."),
    ),
    "context in pieces": (
        {"question": "A bird?", "context": ["It is grey.", "It is tall."], "answer": "Heron."},
        turns("u: A bird?\nInput: It is grey.\nIt is tall.", "a: Heron."),
    ),
    "target of firefly": ({"kind": "Birds", "input": "A bird?", "target": "Heron."}, turns(*UA)),
    "context of dolly": (
        {"instruction": "A bird?", "context": "", "response": "Heron.", "category": "open_qa"},
        turns(*UA),
    ),
    "input and context": (
        {"instruction": "A bird?", "input": "Grey.", "context": "Tall.", "output": "Heron."},
        turns("u: A bird?\nInput: Grey.\nTall.", "a: Heron."),
    ),
    "input beside a prompt": (
        {"prompt": "A bird?", "input": "Grey.", "completion": "Heron."},
        turns("u: A bird?\nInput: Grey.", "a: Heron."),
    ),
    "input alone": ({"input": "A bird?", "output": "Heron."}, turns(*UA)),
    "input without an instruction": ({"instruction": "", "input": "A bird?", "output": "Heron."}, turns(*UA)),
    "system_prompt of OpenOrca": (
        {"system_prompt": "Be brief.", "question": "A bird?", "response": "Heron."},
        turns("s: Be brief.", *UA),
    ),
    "query of MetaMath": ({"query": "A bird?", "response": "Heron.", "type": "GSM_AnsAug"}, turns(*UA)),
    "problem and solution": ({"problem": "A bird?", "solution": "Heron."}, turns(*UA)),
    "inputs and targets of FLAN": ({"inputs": "A bird?", "targets": "Heron.", "task": "birds"}, turns(*UA)),
    "user and assistant": ({"system": "", "user": "A bird?", "assistant": "Heron."}, turns(*UA)),
    "reasoning beside an answer": (
        {"question": "A bird?", "reasoning": "Grey, tall.", "answer": "Heron."},
        openai(*UA, reasoning_content="Grey, tall."),
    ),
    "tools beside an instruction": (
        {"instruction": "A bird?", "output": "Heron.", "tools": json.dumps([TOOL["function"]])},
        [{**LIST[0], "tools": [TOOL]}, LIST[1]],
    ),
    # numbers, NaN, JSON text, maps
    "a number as answer": ({"question": "6 times 7?", "answer": 42}, turns("u: 6 times 7?", "a: 42")),
    "a fraction as answer": ({"question": "Half of 9?", "answer": 4.5}, turns("u: Half of 9?", "a: 4.5")),
    "zero as answer": ({"question": "1 - 1?", "answer": 0}, turns("u: 1 - 1?", "a: 0")),
    "a boolean as answer": ({"question": "Wet?", "answer": True}, turns("u: Wet?", "a: True")),
    "a number as content": ({"messages": [LIST[0], {"role": "assistant", "content": 7}]}, turns("u: A bird?", "a: 7")),
    "text before a number": ({"question": "A bird?", "answer": "Heron.", "output": 3.2}, turns(*UA)),
    "NaN as nothing": (
        {"instruction": "A bird?", "input": float("nan"), "output": "Heron.", "system": float("nan")},
        turns(*UA),
    ),
    "messages in JSON text": ({"messages": json.dumps(LIST)}, turns(*UA)),
    "messages as pandas writes them": ({"messages": str(LIST)}, turns(*UA)),
    "each message in JSON text": ({"messages": [json.dumps(m) for m in LIST]}, turns(*UA)),
    "prompt and completion in JSON text": (
        {"prompt": json.dumps(LIST[:1]), "completion": json.dumps(LIST[1:])},
        turns(*UA),
    ),
    "a prompt that is JSON": ({"prompt": '{"a": 1}', "completion": "Heron."}, turns('u: {"a": 1}', "a: Heron.")),
    "a map of lists": ({"messages": {"role": ["user", "assistant"], "content": ["A bird?", "Heron."]}}, turns(*UA)),
    "a single map": ({"prompt": LIST[0], "completion": LIST[1]}, turns(*UA)),
    "a list and a text": ({"prompt": LIST[:1], "completion": "Heron."}, turns(*UA)),
    "a text and a list": ({"prompt": "A bird?", "completion": LIST[1:]}, turns(*UA)),
    "messages within input": ({"input": {"messages": LIST[:1]}, "output": "Heron."}, turns(*UA)),
    # lists of turns
    "strings of LIMA": ({"conversations": ["A bird?", "Heron.", "A fish?", "Trout."]}, turns(*UAUA)),
    "strings of UltraChat": ({"id": "0", "data": ["A bird?", "Heron."]}, turns(*UA)),
    "pairs of Capybara": (
        {"conversation": [{"input": "A bird?", "output": "Heron."}, {"input": "A fish?", "output": "Trout."}]},
        turns(*UAUA),
    ),
    "pairs with a system prompt": (
        {"conversation": [{"system": "Be brief.", "input": "A bird?", "output": "Heron."}]},
        turns("s: Be brief.", *UA),
    ),
    "pairs of human and assistant": ({"conversation": [{"human": "A bird?", "assistant": "Heron."}]}, turns(*UA)),
    "pairs of user and assistant": ({"conversations": [{"user": "A bird?", "assistant": "Heron."}]}, turns(*UA)),
    "pairs of prompt and response": ({"dialog": [{"prompt": "A bird?", "response": "Heron."}]}, turns(*UA)),
    "pairs of question and answer": ({"dialogue": [{"question": "A bird?", "answer": "Heron."}]}, turns(*UA)),
    "pairs of strings": ({"chat": [["A bird?", "Heron."], ["A fish?", "Trout."]]}, turns(*UAUA)),
    "a map a turn": ({"conversations": [{"Human": "A bird?"}, {"Assistant": "Heron."}]}, turns(*UA)),
    "role and value": ({"conversations": [{"role": m["role"], "value": m["content"]} for m in LIST]}, turns(*UA)),
    "from and content": ({"messages": [{"from": m["role"], "content": m["content"]} for m in LIST]}, turns(*UA)),
    "role and text": ({"turns": [{"role": m["role"], "text": m["content"]} for m in LIST]}, turns(*UA)),
    "speaker and text": ({"dialog": [{"speaker": m["role"], "text": m["content"]} for m in LIST]}, turns(*UA)),
    "author and text": ({"chat": [{"author": m["role"], "text": m["content"]} for m in LIST]}, turns(*UA)),
    "sender and message": ({"data": [{"sender": m["role"], "message": m["content"]} for m in LIST]}, turns(*UA)),
    "two forms in one conversation": (
        {"conversations": [{"from": "human", "value": "A bird?"}, LIST[1]]},
        turns(*UA),
    ),
    "contents of Gemini": (
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "A bird?"}]},
                {"role": "model", "parts": [{"text": "Heron."}]},
            ],
        },
        turns("s: Be brief.", *UA),
    ),
    # system turns
    "system beside messages": ({"messages": LIST, "system": "Be brief."}, turns("s: Be brief.", *UA)),
    "the conversation's own system": (
        {"messages": openai("s: Be kind.", *UA), "system": "Be brief."},
        turns("s: Be kind.", *UA),
    ),
    "an empty system turn": ({"messages": openai("s:  ", *UA), "system": "Be brief."}, turns("s: Be brief.", *UA)),
    "system in the middle": (
        {"messages": openai(*UA, "s: Be brief.", *UAUA[2:])},
        turns(*UA, "s: Be brief.", *UAUA[2:]),
    ),
    "developer": ({"messages": [{"role": "developer", "content": "Be brief."}, *LIST]}, turns("s: Be brief.", *UA)),
    "turn after turn of one role": (
        {"messages": openai("u: Hello", "u: A bird?", "a: A", "a: Heron.")},
        turns("u: Hello", "u: A bird?", "a: A", "a: Heron."),
    ),
    # content in parts
    "parts of text": (
        {"messages": [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in LIST]},
        turns(*UA),
    ),
    "several parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
                LIST[1],
            ]
        },
        turns("u: A\nB", "a: Heron."),
    ),
    "parts as Arrow holds them": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "A bird?", "image_url": None}]}, LIST[1]]},
        turns(*UA),
    ),
    "parts of the Responses API": (
        {"messages": [LIST[0], {"role": "assistant", "content": [{"type": "output_text", "text": "Heron."}]}]},
        turns(*UA),
    ),
    "thinking as a part": (
        {
            "messages": [
                LIST[0],
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "Grey."}, {"type": "text", "text": "Heron."}],
                },
            ]
        },
        openai(*UA, reasoning_content="Grey."),
    ),
    "images that are none": ({"messages": LIST, "images": [], "image": None, "videos": None}, turns(*UA)),
    # reasoning and tools
    "reasoning_content": ({"messages": openai(*UA, reasoning_content="Grey.")}, openai(*UA, reasoning_content="Grey.")),
    "thinking": ({"messages": openai(*UA, thinking="Grey.")}, openai(*UA, reasoning_content="Grey.")),
    "tool calls": (
        {
            "messages": [
                LIST[0],
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Bergen"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "rain"},
                {"role": "assistant", "content": "It rains."},
            ],
            "tools": [TOOL],
        },
        [
            {**LIST[0], "tools": [TOOL]},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **CALL}]},
            {"role": "tool", "content": "rain", "name": "weather", "tool_call_id": "c1"},
            *turns("a: It rains."),
        ],
    ),
    "tool calls as Arrow holds them": (
        {
            "messages": [
                {**LIST[0], "tool_calls": None, "name": None},
                {
                    **LIST[1],
                    "tool_calls": [
                        {"function": {"name": "weather", "arguments": {"city": "Bergen", "land": None}}, "id": None}
                    ],
                },
            ]
        },
        openai(*UA, tool_calls=[CALL]),
    ),
    "a last turn that is a call": (
        {"messages": [LIST[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
        openai("u: A bird?", "a: ", tool_calls=[CALL]),
    ),
    "function_call of old": (
        {
            "messages": [
                LIST[0],
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "weather", "arguments": '{"city": "Bergen"}'},
                },
                {"role": "function", "name": "weather", "content": "rain"},
                LIST[1],
            ],
            "functions": [TOOL["function"]],
        },
        [
            {**LIST[0], "tools": [TOOL]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "rain", "name": "weather"},
            LIST[1],
        ],
    ),
    "function_call and observation of ShareGPT": (
        {
            "conversations": [
                {"from": "human", "value": "A bird?"},
                {"from": "function_call", "value": TEXT_CALL},
                {"from": "observation", "value": "rain"},
                {"from": "gpt", "value": "Heron."},
            ],
            "tools": json.dumps([TOOL["function"]]),
        },
        [
            {**LIST[0], "tools": [TOOL]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "rain"},
            LIST[1],
        ],
    ),
    "two calls at once": (
        {"conversations": [LIST[0], {"from": "function_call", "value": f"[{TEXT_CALL}, {TEXT_CALL}]"}]},
        openai("u: A bird?", "a: ", tool_calls=[CALL, CALL]),
    ),
    "a call that is no JSON": (
        {"conversations": [LIST[0], {"from": "function_call", "value": "weather(Bergen)"}]},
        turns("u: A bird?", "a: weather(Bergen)"),
    ),
    "tools that are none": ({"messages": LIST, "tools": "[]", "functions": None}, turns(*UA)),
    "tools in a system turn": (
        {"messages": [{"role": "system", "content": "Be brief.", "tools": [TOOL]}, *LIST]},
        [{"role": "system", "content": "Be brief.", "tools": [TOOL]}, *LIST],
    ),
    "parts of Anthropic": (
        {
            "messages": [
                LIST[0],
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "Let me look."},
                        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bergen"}},
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "rain"}]},
                LIST[1],
            ]
        },
        [
            LIST[0],
            {"role": "assistant", "content": "Let me look.", "tool_calls": [{"id": "c1", **CALL}]},
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
            LIST[1],
        ],
    ),
    # turns that carry no loss
    "weight 0": (
        {"messages": [*openai(*UA, weight=0), *openai(*UAUA[2:], weight=1)]},
        [*openai(*UA, train=False), *turns(*UAUA[2:])],
    ),
    "weight 0.0 of a table": (
        {"messages": [*openai(*UA, weight=0.0), *openai(*UAUA[2:], weight=1.0)]},
        [*openai(*UA, train=False), *turns(*UAUA[2:])],
    ),
    "train false": (
        {"conversations": [*openai(*UA, train=False), *turns(*UAUA[2:])]},
        [*openai(*UA, train=False), *turns(*UAUA[2:])],
    ),
    "training false": (
        {"messages": [*openai(*UA, training=False), *turns(*UAUA[2:])]},
        [*openai(*UA, train=False), *turns(*UAUA[2:])],
    ),
    "loss false": (
        {"messages": [*openai(*UA, loss=False), *openai(*UAUA[2:], loss=True)]},
        [*openai(*UA, train=False), *turns(*UAUA[2:])],
    ),
    "train_on_turn false": (
        {"conversations": [*openai(*UA, train_on_turn=False), *openai(*UAUA[2:], train_on_turn=True)]},
        [*openai(*UA, train=False), *turns(*UAUA[2:])],
    ),
    "loss_mask 0": (
        {"messages": [*openai(*UA, loss_mask=0), *openai(*UAUA[2:], loss_mask=1)]},
        [*openai(*UA, train=False), *turns(*UAUA[2:])],
    ),
    "weight of a user": ({"messages": [{**LIST[0], "weight": 0}, LIST[1]]}, turns(*UA)),
    "weight 0 at the end": ({"messages": [*LIST, *openai(*UAUA[2:], weight=0)]}, turns(*UA)),
    # preferences
    "chosen and rejected": ({"prompt": "A bird?", "chosen": "Heron.", "rejected": "Trout."}, turns(*UA)),
    "question of orca pairs": (
        {"system": "Be brief.", "question": "A bird?", "chosen": "Heron.", "rejected": "Trout."},
        turns("s: Be brief.", *UA),
    ),
    "chosen as messages with the prompt": (
        {"prompt": "A bird?", "chosen": LIST, "rejected": openai("u: A bird?", "a: Trout.")},
        turns(*UA),
    ),
    "chosen as messages without": ({"chosen": LIST, "rejected": openai("u: A bird?", "a: Trout.")}, turns(*UA)),
    "chosen as the answer alone": (
        {"prompt": LIST[:1], "chosen": LIST[1:], "rejected": openai("a: Trout.")},
        turns(*UA),
    ),
    "transcripts of hh-rlhf": (
        {
            "chosen": "\n\nHuman: A bird?\n\nAssistant: Heron.\n\nHuman: A fish?\n\nAssistant: Trout.",
            "rejected": "\n\nHuman: A bird?\n\nAssistant: No.",
        },
        turns(*UAUA),
    ),
    "preferences of ShareGPT": (
        {
            "conversations": [{"from": "human", "value": "A bird?"}],
            "chosen": {"from": "gpt", "value": "Heron."},
            "rejected": {"from": "gpt", "value": "Trout."},
        },
        turns(*UA),
    ),
    "preferences of OpenAI": (
        {
            "input": {"messages": LIST[:1], "tools": []},
            "preferred_output": LIST[1:],
            "non_preferred_output": openai("a: Trout."),
        },
        turns(*UA),
    ),
    "a wanted answer of KTO": ({"prompt": "A bird?", "completion": "Heron.", "label": True}, turns(*UA)),
    # tables of several formats
    "a number called messages": ({"instruction": "A bird?", "output": "Heron.", "messages": 3.5}, turns(*UA)),
    "empty messages": ({"instruction": "A bird?", "output": "Heron.", "messages": None}, turns(*UA)),
    "an empty pair": ({"instruction": None, "output": None, "messages": LIST}, turns(*UA)),
    "data that are none": ({"question": "A bird?", "answer": "Heron.", "data": "birds.csv"}, turns(*UA)),
}


@pytest.mark.parametrize("name", READ)
def test_a_row_is_read_as_the_turns_it_is(name: str) -> None:
    row, expected = READ[name]
    form = recognise(row, "here")
    assert to_messages(row, form) == expected
    pool = Pool.build("pool", [Example("a", expected, "here", row)])
    assert pool.messages == [expected]


def noted(row: dict[str, Any]) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Repairs, unread keys of turns and unread columns of a row."""
    reading = Reading()
    messages = to_messages(row, recognise(row, "here"), reading)
    return dict(reading.repairs), dict(reading.unread), unread_columns(row, reading.read, messages)


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("numbers and booleans of `answer` read as text", {"question": "a", "answer": 3}),
        ("lists of `messages` read out of text", {"messages": json.dumps(LIST)}),
        ("lists of `completion` read out of text", {"prompt": "a", "completion": json.dumps(LIST[1:])}),
        ("conversations of `data` without roles, read as user and assistant in turn", {"data": ["a", "b"]}),
        (
            "conversations whose own system turn was read instead of the column `system`",
            {"messages": openai("s: Be kind.", *UA), "system": "Be brief."},
        ),
        ("lists of `context` joined by newlines", {"question": "a", "context": ["b", "c"], "answer": "d"}),
        ("rows with a number as `label`, trained whatever it says", {"prompt": "a", "completion": "b", "label": 0}),
        ("rows with a number as `label`, trained whatever it says", {"prompt": "a", "completion": "b", "label": "1"}),
        (
            "results of tools written as JSON",
            {"messages": [*openai("u: a"), {"role": "tool", "content": {"sky": "rain"}}, *openai("a: b")]},
        ),
        ("turns with a `weight` other than 0 and 1, trained like any other", {"messages": openai(*UA, weight=0.5)}),
        (
            "instances of an instruction beyond the first, left out",
            {"instruction": "a", "instances": [{"input": "", "output": c} for c in "bc"]},
        ),
    ],
)
def test_what_is_read_otherwise_than_it_stands_is_counted(words: str, row: dict[str, Any]) -> None:
    assert noted(row)[0] == {words: 1}


def test_last_turns_without_loss_are_counted() -> None:
    assert noted({"messages": [*LIST, *openai(*UAUA[2:], weight=0)]})[0] == {"last turns without loss cut": 2}


def test_the_same_system_prompt_twice_needs_no_word() -> None:
    assert noted({"messages": openai("s: Be brief.", *UA), "system": "Be brief."})[0] == {}


@pytest.mark.parametrize(
    ("keys", "turn"),
    [
        ({"refusal": 1}, {"refusal": "I cannot."}),
        ({"notes": 1}, {"notes": ["Grey.", 3]}),
        ({"train_detail": 1}, {"train_detail": [{"begin": 0, "end": 3, "train": "no"}]}),
        (
            {},
            {
                "refusal": None,
                "audio": None,
                "id": "a1",
                "timestamp": "2024-01-02T03:04:05Z",
                "likes": 3,
                "text": "Heron.",
            },
        ),
        ({"train_detail": 1}, {"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]}),
        ({"mask": 1}, {"mask": 0}),
        ({}, {"name": "Ann", "weight": 1, "model": "gpt-4", "url": "https://example.org/a"}),
    ],
)
def test_keys_of_turns_that_carry_text_are_counted(keys: dict[str, int], turn: dict[str, Any]) -> None:
    assert noted({"messages": openai(*UA, **turn)})[1] == keys


def test_roles_can_be_named() -> None:
    row = {"conversations": [{"from": "Narrator", "value": "A bird?"}, {"from": "0", "value": "Heron."}]}
    assert to_messages(row, recognise(row, "here"), Reading({"narrator": "user", "0": "assistant"})) == turns(*UA)
    with pytest.raises(BadRow, match="unknown role 'Narrator'") as caught:
        to_messages(row, recognise(row, "here"))
    assert caught.value.advice == "data.roles={Narrator: …} makes it one of system, user, assistant, tool"


def test_a_known_name_can_have_another_role() -> None:
    row = {"dialog": [{"speaker": "USER", "text": "A bird?"}, {"speaker": "SYSTEM", "text": "Heron."}]}
    assert to_messages(row, recognise(row, "here"), Reading({"system": "assistant"})) == turns(*UA)


def test_a_key_that_says_who_speaks_is_named_by_roles_too() -> None:
    row = {"chat": [{"narrator": "A bird?"}, {"Heron": "Heron."}]}
    with pytest.raises(BadRow, match="a turn without a role and a text"):
        to_messages(row, recognise(row, "here"))
    assert to_messages(row, recognise(row, "here"), Reading({"narrator": "user", "heron": "assistant"})) == turns(*UA)


def test_lists_too_deep_or_texts_too_long_are_refused_in_a_word() -> None:
    for text in ("[" * 5000, "[" * 300 + "]" * 300, "[" * 100_000 + "]" * 100_000, "['a'," * 300_000):
        with pytest.raises(BadRow, match="looks like a list, but is not JSON"):
            to_messages({"messages": text}, recognise({"messages": text}, "here"))
