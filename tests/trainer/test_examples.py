"""What of the chosen examples a trainer reads, and that the rest is counted."""

from __future__ import annotations

from typing import Any

import pytest

from dsel.errors import ConfigError
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED, encode
from dsel.pool import Example, Message, Pool
from dsel.trainer.examples import response_ends, tokenized


def pool_of(**conversations: list[Message]) -> Pool:
    return Pool.build("p", [Example(name, messages, "s", {}) for name, messages in conversations.items()])


def turns(*texts: str, **more: Any) -> list[Message]:
    """A conversation that the user begins; `more` is set on the assistant's turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text, **(more if i % 2 else {})} for i, text in enumerate(texts)]


def test_examples_without_a_learnable_token_are_named(spec: CausalLM, caplog: pytest.LogCaptureFixture) -> None:
    pool = pool_of(long=turns("word " * 300, "yes"), short=turns("hi", "yes"))
    data, counts = tokenized(pool, spec.load_tokenizer(), 64)
    tokens = len(data[0]["input_ids"])
    assert counts == {"tokens": tokens, "cut_examples": 0, "cut_responses": 0, "cut_tokens": 0, "left_out": 1}
    assert (len(data), data[0]["length"]) == (1, tokens)
    assert "1 examples have no response within trainer.max_length=64 tokens, not trained on: long" in caplog.text
    with pytest.raises(ConfigError, match=r"trainer\.max_length=64"):
        tokenized(pool.take([0]), spec.load_tokenizer(), 64)


def test_what_is_cut_is_counted(spec: CausalLM, caplog: pytest.LogCaptureFixture) -> None:
    """Of five responses one ends in time, one is cut, one is beyond the limit, and a long question after a short
    answer costs nothing that could be learnt.
    """
    tokenizer, long = spec.load_tokenizer(), "word " * 80
    pool = pool_of(
        whole=turns("hi", "yes"),
        cut=turns("hi", long),
        later=turns("hi", long, "hi", "no"),
        asked=turns("hi", "yes", long),
    )
    data, counts = tokenized(pool, tokenizer, 64)
    whole = sum(len(encode(tokenizer, messages, None)[0]) for messages in pool.messages)
    assert counts == {
        "tokens": sum(data["length"]),
        "cut_examples": 3,
        "cut_responses": 3,
        "cut_tokens": whole - sum(data["length"]),
        "left_out": 0,
    }
    text = f"3 of 5 responses are cut at 64 tokens ({counts['cut_tokens']:,} of {whole:,} tokens not read)"
    assert text in caplog.text
    assert "trainer.max_length" in caplog.text
    caplog.clear()
    tokenized(pool.take([0, 3]), tokenizer, 64)
    assert not caplog.text


def test_nothing_to_train_on_is_left_out(spec: CausalLM, caplog: pytest.LogCaptureFixture) -> None:
    pool = pool_of(muted=turns("hi", "no", train=False), kept=turns("hi", "yes"))
    data, counts = tokenized(pool, spec.load_tokenizer(), 64)
    assert (len(data), counts["left_out"]) == (1, 1)
    assert "1 examples have no response to train on, left out: muted" in caplog.text
    with pytest.raises(ConfigError, match="no chosen example has a response to train on"):
        tokenized(pool.take([0]), spec.load_tokenizer(), 64)


def test_the_ends_of_responses() -> None:
    n = IGNORED
    assert response_ends([n, 5, 6, n, n, 7]) == [3, 6]
    assert response_ends([n, n]) == []
