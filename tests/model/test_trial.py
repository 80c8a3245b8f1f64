"""A template tried on a pool: one line for a refusal, counts for what is left out or rewritten."""

from __future__ import annotations

from typing import Any

import pytest

from dsel.errors import ConfigError
from dsel.model import trial
from dsel.model.chat import template
from dsel.model.trial import try_template
from dsel.pool import Example, Message, Pool
from dsel.scorer.ifd import PROBES
from tests.model.test_templates import INST, NO_END, STRIPS, assistant, calls, system, tokenizer_for, user

TWO = [user("USER1"), assistant("ANSWER1"), user("USER2"), assistant("ANSWER2")]
THOUGHT = [user("USER1"), assistant("<think>T1</think>ANSWER1")]
LEAVES_OUT = STRIPS.replace("loop.last or ", "")


def pool(*conversations: list[Message]) -> Pool:
    rows = enumerate(conversations)
    return Pool.build("made", [Example(id=f"d/{i}", messages=m, source="s", original={}) for i, m in rows])


def test_a_refusal_names_the_example_and_the_remedy() -> None:
    tokenizer = tokenizer_for(INST, "</s>")
    try_template(tokenizer, pool(TWO), name="m")
    with pytest.raises(ConfigError) as error:
        try_template(tokenizer, pool(TWO, [system("S"), *TWO], TWO), name="m")
    assert str(error.value) == (
        "m: its chat template refuses example d/1, system, user, assistant, user, assistant (roles must alternate); "
        "leave such examples out, or set model.chat_template=turns, which renders any"
    )
    tokenizer.chat_template = template("turns", option="")
    try_template(tokenizer, pool(TWO, [system("S"), *TWO]), name="m", probes=PROBES)


def test_what_a_method_has_the_model_read_is_tried_too() -> None:
    with pytest.raises(ConfigError, match=r"^m: .* refuses what this method .* system, user, assistant .*=turns$"):
        try_template(tokenizer_for(INST, "</s>"), pool(TWO), name="m", probes=PROBES)


@pytest.mark.parametrize("every", [0, 5000])
def test_what_is_left_out_is_counted(
    every: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of large pools by one example of each shape."""
    monkeypatch.setattr(trial, "EVERY", every)
    called = [user("USER1"), assistant("Wait.", tool_calls=calls("CITY1"))]
    try_template(tokenizer_for(LEAVES_OUT, "</s>"), pool(TWO, THOUGHT, THOUGHT, called, THOUGHT), name="m")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "the chat template of m leaves out text of 4 of 5 examples: a part of a response (3), a tool call (1); the "
        "first is d/1; model.chat_template=turns leaves out nothing"
    )


def test_nothing_is_said_of_a_template_that_renders_all(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tokenizer_for(template("turns", option=""), "</s>")
    full: list[Message] = [
        system("S"),
        user("USER1", tools=[{"type": "function", "function": {"name": "weather", "description": "Tells it."}}]),
        assistant("", tool_calls=calls("CITY1"), reasoning_content="THOUGHT1"),
        {"role": "tool", "content": "RESULT"},
        assistant("ANSWER"),
    ]
    full[0]["tools"] = full[1].pop("tools")
    try_template(tokenizer, pool(TWO, THOUGHT, full), name="m", probes=PROBES)
    assert not caplog.records


def test_rewritten_responses_and_missing_ends_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    try_template(tokenizer_for(STRIPS, "</s>"), pool(TWO, [*THOUGHT, *TWO]), name="m")
    assert "rewrites responses once later turns follow: 1 responses of 1 examples (the first is d/1)" in caplog.text
    caplog.clear()
    try_template(tokenizer_for(NO_END, "</s>"), pool(TWO), name="m")
    assert "ends no response with a token that stops generation: </s> is learnt" in caplog.text


def test_a_template_without_a_generation_prompt_is_said(caplog: pytest.LogCaptureFixture) -> None:
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    try_template(tokenizer_for(source, "</s>"), pool(TWO), name="m")
    assert "has no generation prompt: '<|im_start|>assistant' is learnt before each response" in caplog.text
    caplog.clear()
    try_template(tokenizer_for(INST, "</s>"), pool(TWO), name="m")
    assert not caplog.records


@pytest.mark.parametrize("arguments", [{"city": "Rome"}, '{"city": "Rome"}'])
def test_the_plain_template_renders_all_of_a_message(arguments: Any) -> None:
    from dsel.model.chat import render

    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    text = render(
        tokenizer_for(template("turns", option=""), "</s>"),
        [user("Hot?", tools=[{"name": "weather"}]), assistant("I look.", reasoning_content="Hm.", tool_calls=[call])],
    )
    assert text == (
        '<s><|tools|>\n[{"name": "weather"}]\n<|user|>\nHot?\n<|assistant|>\n<think>\nHm.\n</think>\nI look.\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call></s>\n'
    )
