"""Tokens and labels of conversations: the loss is on every assistant turn and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED, encode, render, template

WORDS = st.text(min_size=1, max_size=20)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a colour."},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": "Another one?"},
    {"role": "assistant", "content": "blue and green"},
]


@pytest.fixture(scope="module")
def tokenizer(spec: CausalLM) -> Any:
    return spec.load_tokenizer()


@pytest.fixture(scope="module")
def plain(spec: CausalLM) -> Any:
    """The same vocabulary with the template for models that have none."""
    loaded = CausalLM(hub="", path=spec.path, chat_template="turns").load_tokenizer()
    loaded.chat_template = template("turns", option="model.chat_template")
    return loaded


def learnt(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    ids, labels = encode(tokenizer, messages)
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    return tokenizer.decode([label for label in labels if label != IGNORED])


def test_every_assistant_turn_and_its_end_is_learnt(tokenizer: Any) -> None:
    text = learnt(tokenizer, CHAT)
    assert "".join(text.split()) == "red<|end|>blueandgreen<|end|>"


def test_the_template_for_base_models_works_too(plain: Any) -> None:
    text = learnt(plain, CHAT)
    assert "red" in text
    assert "blue and green" in text
    assert "colour" not in text
    assert "Another" not in text
    assert "brief" not in text
    assert text.count(plain.eos_token) == 2


def test_ids_are_those_of_the_rendered_text(tokenizer: Any) -> None:
    ids, _ = encode(tokenizer, CHAT)
    assert ids == tokenizer(render(tokenizer, CHAT), add_special_tokens=False)["input_ids"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    turns=st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20)), min_size=1, max_size=3
    )
)
def test_labels_split_at_the_generation_prompt(tokenizer: Any, turns: list[tuple[str, str]]) -> None:
    """For a single last turn the learnt tokens are what follows the generation prompt: TRL's own definition."""
    safe = [(q.replace("<", ""), a.replace("<", "")) for q, a in turns]
    messages = [m for q, a in safe for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a + "."})]
    ids, labels = encode(tokenizer, messages)
    prompt = tokenizer(render(tokenizer, messages[:-1], generation_prompt=True), add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert labels[len(prompt) :] == ids[len(prompt) :]
    assert labels[len(prompt) - 1] == IGNORED


def test_cut_at_the_maximum_length(tokenizer: Any) -> None:
    ids, labels = encode(tokenizer, CHAT)
    short_ids, short_labels = encode(tokenizer, CHAT, max_length=len(ids) - 3)
    assert short_ids == ids[:-3]
    assert short_labels == labels[:-3]


def test_a_template_that_rewrites_history_is_refused(tokenizer: Any) -> None:
    import copy

    forgetful = copy.deepcopy(tokenizer)
    forgetful.chat_template = "{{ messages|length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="earlier turns"):
        encode(forgetful, CHAT)
