"""Answers against one greedy step after another, whatever the batches; sampling that repeats and leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from dsel.model import generation
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import end_tokens, render
from dsel.model.generation import (
    batches_of_answers,
    generate,
    prompt_ids,
)

NEW = 12


@pytest.fixture(scope="module")
def tokenizer(spec: CausalLM) -> Any:
    return spec.load_tokenizer()


@pytest.fixture
def model(spec: CausalLM, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    import torch

    monkeypatch.setattr(generation, "FIRST_STAGE", 2)
    monkeypatch.setattr(generation, "GROWTH", 2)  # 2, 4, 8 and 12 tokens: answers go through several batches
    model = spec.load(tokenizer).eval()
    torch.manual_seed(0)
    with torch.no_grad():  # the small model hardly knows one word from another
        for weights in model.parameters():
            weights += 0.2 * torch.randn_like(weights)
    return model


@pytest.fixture
def texts(tokenizer: Any) -> list[str]:
    words = "Who is in the town of big red houses and why do they say that ?".split()
    chats = [" ".join(words[: 1 + 5 * i % 16]) for i in range(11)]
    return [render(tokenizer, [{"role": "user", "content": chat}], generation_prompt=True) for chat in chats]


def step_by_step(model: Any, ids: list[int], ends: list[int], new: int = NEW) -> list[int]:
    """The most probable token, `new` times over or up to an end token."""
    import torch

    answer: list[int] = []
    for _ in range(new):
        with torch.no_grad():
            token = int(model(torch.tensor([ids + answer])).logits[0, -1].argmax())
        if token in ends:
            break
        answer.append(token)
    return answer


def expected(model: Any, tokenizer: Any, texts: list[str], ends: list[int], new: int = NEW) -> list[str]:
    answers = [step_by_step(model, ids, ends, new) for ids in prompt_ids(tokenizer, texts, 2048)]
    return [tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]


def two_ends(model: Any, tokenizer: Any, texts: list[str]) -> list[int]:
    """Makes tokens that the answers do hold end them, so that answers have many lengths."""
    answers = [step_by_step(model, ids, []) for ids in prompt_ids(tokenizer, texts, 2048)]
    ends = sorted({answers[0][3], answers[1][-1]})
    model.generation_config.eos_token_id = ends
    assert len({len(step_by_step(model, ids, ends)) for ids in prompt_ids(tokenizer, texts, 2048)}) > 1
    return ends


@pytest.mark.parametrize("tokens", [1, 100, 10**6])
@pytest.mark.parametrize("new", [1, 5, NEW])
def test_answers_are_the_greedy_ones_in_order(
    model: Any, tokenizer: Any, texts: list[str], tokens: int, new: int
) -> None:
    ends = two_ends(model, tokenizer, texts)
    side = tokenizer.padding_side
    found = generate(model, tokenizer, texts, max_new_tokens=new, tokens_a_batch=tokens)
    assert found == expected(model, tokenizer, texts, [*ends, tokenizer.eos_token_id], new)
    assert len(set(found)) > 3
    assert tokenizer.padding_side == side


def test_the_models_own_settings_for_sampling_play_no_part(model: Any, tokenizer: Any, texts: list[str]) -> None:
    plain = expected(model, tokenizer, texts, [tokenizer.eos_token_id])
    model.generation_config.update(
        do_sample=True, temperature=5.0, top_k=3, repetition_penalty=9.0, no_repeat_ngram_size=1, num_beams=3
    )
    assert generate(model, tokenizer, texts, max_new_tokens=NEW) == plain


def test_adapters_answer_too(model: Any, tokenizer: Any, texts: list[str]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    before = generate(model, tokenizer, texts, max_new_tokens=NEW)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False)).eval()
    found = generate(adapted, tokenizer, texts, max_new_tokens=NEW)
    assert found == expected(adapted, tokenizer, texts, [tokenizer.eos_token_id]) != before


def test_the_end_of_a_long_prompt_is_kept_and_that_is_said(
    model: Any, tokenizer: Any, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    ids = tokenizer(texts[3], add_special_tokens=False)["input_ids"]
    assert len(ids) > 6
    answer = tokenizer.decode(step_by_step(model, ids[-6:], []), skip_special_tokens=True).strip()
    assert generate(model, tokenizer, [texts[3]], max_new_tokens=NEW, max_prompt=6) == [answer]
    assert "1 of 1 prompts are longer than 6 tokens: only their ends are read" in caplog.text


def rows_computed(model: Any, monkeypatch: pytest.MonkeyPatch, most: int = 10**6) -> list[int]:
    """The number of rows of each batch from now on; memory runs out at prompts of more than `most` tokens together."""
    import torch

    real, rows = model.generate, []

    def counted(**inputs: Any) -> Any:
        rows.append(len(inputs["input_ids"]))
        if inputs["input_ids"].numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(**inputs)

    monkeypatch.setattr(model, "generate", counted)
    return rows


def test_equal_prompts_are_answered_once_unless_sampled(
    model: Any, tokenizer: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_computed(model, monkeypatch)
    found = generate(model, tokenizer, [*texts[:3], *texts[:3], texts[0]], max_new_tokens=2)
    assert found[:3] == found[3:6] and found[6] == found[0] and rows == [3]
    sampled = generate(model, tokenizer, [texts[0]] * 5, max_new_tokens=2, temperature=1.0)
    assert len(set(sampled)) > 1 and rows == [3, 5]


def test_what_has_ended_is_not_computed_on(
    model: Any, tokenizer: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = two_ends(model, tokenizer, texts)
    lengths = [len(step_by_step(model, ids, ends)) for ids in prompt_ids(tokenizer, texts, 2048)]
    rows = rows_computed(model, monkeypatch)
    generate(model, tokenizer, texts, max_new_tokens=NEW)
    # an answer of exactly `limit` tokens has not been seen to end yet
    assert rows == [n for n in (sum(x >= limit for x in lengths) for limit in (0, 2, 4, 8)) if n]


def test_batches_come_as_they_are_done_each_index_once(model: Any, tokenizer: Any, texts: list[str]) -> None:
    two_ends(model, tokenizer, texts)
    whole = generate(model, tokenizer, texts, max_new_tokens=NEW)
    parts = list(batches_of_answers(model, tokenizer, texts, max_new_tokens=NEW, tokens_a_batch=100))
    assert len(parts) > 3
    assert sorted(i for rows, _ in parts for i in rows) == list(range(len(texts)))
    assert all(answers == [whole[i] for i in rows] for rows, answers in parts)
    assert list(batches_of_answers(model, tokenizer, [])) == []


def test_fewer_at_a_time_when_memory_runs_out(
    model: Any, tokenizer: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = generate(model, tokenizer, texts, max_new_tokens=2)
    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", lambda garbage_collection: None)
    rows = rows_computed(model, monkeypatch, most=60)
    assert generate(model, tokenizer, texts, max_new_tokens=2) == plain
    assert rows[:3] == [11, 5, 2] and sum(rows[2:]) == len(texts)  # two failures, then each prompt once


def test_sampling_repeats_and_leaves_no_trace(model: Any, tokenizer: Any, texts: list[str]) -> None:
    import torch

    def sampled(**more: Any) -> list[str]:
        return generate(model, tokenizer, texts, max_new_tokens=NEW, temperature=1.5, **more)

    state = torch.random.get_rng_state()
    first = sampled(seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert sampled(seed=1) == first
    assert sampled(seed=2) != first
    assert sampled(seed=1, top_p=1e-6) == generate(model, tokenizer, texts, max_new_tokens=NEW)


def test_an_answer_ends_with_the_turn(tokenizer: Any, spec: CausalLM) -> None:
    end, other = tokenizer.eos_token_id, tokenizer.bos_token_id
    assert end_tokens(tokenizer) == [end]
    assert end_tokens(tokenizer, 99) == end_tokens(tokenizer, [99, end]) == sorted([end, 99])
    changed = spec.load_tokenizer()
    changed.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '" + tokenizer.bos_token + "' }}{% endfor %}"
    )
    assert end_tokens(changed) == sorted([end, other])
    changed.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' and' }}{% endfor %}"
    assert end_tokens(changed) == [end]  # an ordinary word ends no answer
