"""Answers against one greedy step after another, whatever the batches; sampling that repeats and leaves no trace."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from dsel.model import generation
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import end_tokens, render
from dsel.model.generation import (
    batches_of_answers,
    generate,
    generate_with_vllm,
    prompt_ids,
    vllm_available,
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


def test_vllm_needs_the_package_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for package in (None, object()):
        for gpu in (False, True):
            monkeypatch.setattr("importlib.util.find_spec", lambda name, found=package: found)
            monkeypatch.setattr(torch.cuda, "is_available", lambda found=gpu: found)
            assert vllm_available() == (package is not None and gpu)


def test_what_vllm_is_asked_for(
    model: Any, tokenizer: Any, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the package, with the small model behind it: nothing here has the GPU that vLLM needs."""
    asked: dict[str, Any] = {}

    class Engine:
        def __init__(self, **options: Any) -> None:
            asked["options"] = options

        def generate(self, prompts: Any, settings: Any, *, lora_request: Any) -> list[Any]:
            asked.update(settings=settings, lora=lora_request)
            answers = [step_by_step(model, prompt["prompt_token_ids"], []) for prompt in prompts]
            ended = [[*answer[:7], tokenizer.eos_token_id, *answer[7:]] for answer in answers]
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(answer))]) for answer in ended]

    package, lora = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams = Engine, lambda **options: SimpleNamespace(**options)  # type: ignore[attr-defined]
    lora.LoRARequest = lambda *arguments: arguments  # type: ignore[attr-defined]
    for module in (package, ModuleType("vllm.lora"), lora):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    plain = expected(model, tokenizer, texts, [tokenizer.eos_token_id], 7)
    assert generate_with_vllm(CausalLM(hub="folder"), tokenizer, texts, max_new_tokens=NEW) == plain
    longest = max(map(len, prompt_ids(tokenizer, texts, 2048)))
    assert asked["options"]["model"] == "folder" and asked["options"]["max_model_len"] == longest + NEW
    assert "enable_lora" not in asked["options"] and asked["lora"] is None
    for own in asked["settings"]:
        assert (own.temperature, own.max_tokens, own.stop_token_ids) == (0, NEW, [tokenizer.eos_token_id])

    generate_with_vllm(CausalLM(hub="folder"), tokenizer, texts, temperature=0.7)
    assert len({own.seed for own in asked["settings"]}) == len(texts)

    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 24}))
    generate_with_vllm(CausalLM(hub="folder"), tokenizer, texts, adapters=tmp_path, max_prompt=5)
    assert asked["options"]["max_lora_rank"] == 32 and asked["options"]["enable_lora"]
    assert asked["options"]["max_model_len"] == 5 + 512
    assert asked["lora"] == ("adapters", 1, str(tmp_path))
    assert generate_with_vllm(CausalLM(hub="folder"), tokenizer, []) == []


class Documented:
    """vLLM's `LLM` as its documentation has it: these names, and of `EngineArgs` those that are asked for here."""

    asked: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        quantization: str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool = False,
        hf_overrides: Any = None,
        max_model_len: int | None = None,
        load_format: str = "auto",
        attention_backend: str | None = None,
        enable_lora: bool = False,
        max_lora_rank: int = 16,
    ):
        Documented.asked = {name: value for name, value in locals().items() if name not in ("self", "__class__")}

    def generate(self, prompts: Any, settings: Any, *, lora_request: Any) -> list[Any]:
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=())]) for _ in prompts]


MODEL = {"hub", "path"}
ELSEWHERE = {"chat_template", "pad_token", "lora_targets"}  # in the prompts, nowhere, and in the adapters
SAID: dict[str, tuple[Any, dict[str, Any]]] = {
    "revision": ("refs/pr/1", {"revision": "refs/pr/1", "tokenizer_revision": "refs/pr/1"}),
    "dtype": ("float16", {"dtype": "float16"}),
    "attention": ("flash_attention_2", {"attention_backend": "FLASH_ATTN"}),
    "trust_remote_code": (True, {"trust_remote_code": True}),
    "allow_bin": (True, {"load_format": "auto"}),
}


def test_vllm_is_told_the_whole_model(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, lora = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams = Documented, lambda **options: None  # type: ignore[attr-defined]
    lora.LoRARequest = lambda *arguments: None  # type: ignore[attr-defined]
    for module in (package, ModuleType("vllm.lora"), lora):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def asked(model: CausalLM) -> dict[str, Any]:
        generate_with_vllm(model, tokenizer, ["Hello"])
        return Documented.asked

    assert {field.name for field in fields(CausalLM)} == SAID.keys() | MODEL | ELSEWHERE
    plain = asked(CausalLM(hub="someone/model", dtype="float32"))
    assert (plain["model"], plain["tokenizer"], plain["load_format"]) == ("someone/model",) * 2 + ("safetensors",)
    assert plain["attention_backend"] is None
    for name, (value, expected) in SAID.items():
        found = asked(CausalLM(**{"hub": "someone/model", "dtype": "float32", name: value}))
        assert {key: found[key] for key in found if found[key] != plain[key]} == expected, name
    folder = asked(CausalLM(hub="someone/model", revision="refs/pr/1", path=str(tmp_path), dtype="float32"))
    assert (folder["model"], folder["tokenizer"]) == (str(tmp_path), str(tmp_path))
    assert folder["revision"] is None  # which a folder has not
    flex = asked(CausalLM(hub="someone/model", attention="flex_attention"))
    assert flex["attention_backend"] == "FLEX_ATTENTION"
