"""Losses do not depend on how texts are laid out for the model, nor on how much memory there is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.errors import ConfigError
from dsel.model import likelihood
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED
from dsel.model.likelihood import Encoded, in_batches, mean_nll, out_of_memory, packs


@pytest.fixture(scope="module")
def model(spec: CausalLM) -> Any:
    return spec.load(spec.load_tokenizer()).eval()


@pytest.fixture(params=["padded", "packed"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(likelihood, "packs", lambda model: request.param == "packed")
    return request.param


@pytest.fixture(scope="module", autouse=True)
def cleared() -> Iterator[list[None]]:
    """An entry for each time that memory is cleared for another try; collecting garbage in earnest takes long here."""
    calls: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accelerate.utils.memory.clear_device_cache", lambda garbage_collection: calls.append(None))
        yield calls


def texts(n: int = 23, longest: int = 60) -> list[Encoded]:
    """Random texts of 1 to `longest` tokens with labels here and there, some with none."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(n):
        ids = rng.integers(5, 300, rng.integers(1, longest + 1))
        out.append((ids.tolist(), np.where(rng.random(len(ids)) < rng.random(), ids, IGNORED).tolist()))
    return out


def one_by_one(model: Any, encoded: list[Encoded]) -> np.ndarray:
    """The definition: the mean of −log p over labelled tokens, from the whole logits of each text alone."""
    import torch

    out = []
    for ids, labels in encoded:
        with torch.no_grad():
            logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
        losses = [-float(logp[t - 1, ids[t]]) for t in range(1, len(ids)) if labels[t] != IGNORED]
        out.append(np.mean(losses) if losses else np.nan)
    return np.array(out)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tokens", [1, 100, 8192])
def test_each_text_is_read_as_if_alone(model: Any, layout: str, attention: str, tokens: int) -> None:
    model.set_attn_implementation(attention)
    expected = one_by_one(model, texts())
    assert np.isnan(expected).any() and np.isfinite(expected).sum() > 10
    np.testing.assert_allclose(mean_nll(model, texts(), tokens_a_batch=tokens), expected, rtol=1e-5)
    model.set_attn_implementation("sdpa")


def test_flash_attention_is_told_where_a_text_begins(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that goes by the bounds alone, as flash attention does, on the way through transformers."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    def within_bounds(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **kwargs: Any
    ) -> Any:
        bounds = kwargs["cu_seq_lens_q"].tolist()
        assert attention_mask is None and query.shape[0] == 1 and bounds == kwargs["cu_seq_lens_k"].tolist()
        assert kwargs["max_length_q"] == kwargs["max_length_k"] == max(np.diff(bounds))
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                *(x[:, :, start:end] for x in (query, key, value)), scale=scaling, is_causal=True, enable_gqa=True
            )
            for start, end in zip(bounds, bounds[1:])
        ]
        return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None

    AttentionInterface.register("within_bounds", within_bounds)
    AttentionMaskInterface.register("within_bounds", lambda *args, **kwargs: None)
    expected = mean_nll(model, texts())
    monkeypatch.setattr(likelihood, "packs", lambda model: True)
    model.set_attn_implementation("within_bounds")
    found = mean_nll(model, texts(), tokens_a_batch=100)
    model.set_attn_implementation("sdpa")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_texts_are_packed_for_flash_attention_on_cuda_only(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    config = model.config
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    assert not packs(model)
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    assert packs(model)
    monkeypatch.setattr(config, "layer_types", ["full_attention", "linear_attention"], raising=False)
    assert not packs(model)  # a recurrent layer would read on from one text into the next
    monkeypatch.setattr(config, "layer_types", ["full_attention", "sliding_attention"])
    assert packs(model)
    monkeypatch.setattr(type(model), "_is_stateful", True)
    assert not packs(model)
    monkeypatch.undo()
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    assert config._attn_implementation == "sdpa" and not packs(model)


def test_adapters_count(spec: CausalLM, layout: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = spec.load(spec.load_tokenizer())
    plain = mean_nll(base.eval(), texts())
    adapted = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False)).eval()
    found = mean_nll(adapted, texts())
    np.testing.assert_allclose(found, one_by_one(adapted, texts()), rtol=1e-5)
    assert np.nanmax(np.abs(found - plain)) > 0.01


def test_nothing_past_the_last_label_is_read(model: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, labels = list(range(5, 25)), [IGNORED] * 8 + list(range(13, 20)) + [IGNORED] * 5
    whole, shapes = mean_nll(model, [(ids, labels)]), fail_beyond(model, 100, monkeypatch)
    assert mean_nll(model, [(ids[:15], labels[:15])]) == whole
    assert mean_nll(model, [(ids, labels)]) == whole
    assert shapes == [(1, 14), (1, 14)]


def test_the_softmax_is_in_float32_whatever_the_weights(spec: CausalLM, layout: str) -> None:
    model = spec.load(spec.load_tokenizer(), dtype="bfloat16").eval()
    encoded = [(ids, ids) for ids, _ in texts() if len(ids) > 20]
    np.testing.assert_allclose(mean_nll(model, encoded), one_by_one(model, encoded), rtol=5e-4)


def fail_beyond(model: Any, tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Makes the model run out of memory at more than `tokens`; returns the shapes that it is given, as they come."""
    import torch

    forward, shapes = type(model.model).forward, []

    def limited(self: Any, **inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        if inputs["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, **inputs)

    monkeypatch.setattr(type(model.model), "forward", limited)
    return shapes


def test_batches_shrink_until_they_fit_and_stay_so(
    model: Any,
    layout: str,
    cleared: list[None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cleared.clear()
    encoded = [(ids, ids) for ids, _ in texts(32, 40)]
    expected = mean_nll(model, encoded)
    shapes = fail_beyond(model, 100, monkeypatch)
    np.testing.assert_allclose(mean_nll(model, encoded), expected, rtol=1e-5)
    failures = [np.prod(shape) > 100 for shape in shapes]
    assert failures == sorted(failures, reverse=True) and sum(failures) > 2  # it fails first, and never again
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(messages) == sum(failures) == len(cleared) and messages[0].startswith("out of memory")


def test_a_text_too_large_by_itself_is_named(model: Any, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_beyond(model, 20, monkeypatch)
    with pytest.raises(ConfigError, match=r"out of memory on a single text of 29 tokens.*Tried to allocate"):
        mean_nll(model, [(list(range(5, 35)),) * 2, ([5, 6, 7], [5, 6, 7])])


def test_the_allocators_refusal_is_told_from_other_errors() -> None:
    import torch

    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50, dtype=torch.uint8)
    assert out_of_memory(refused.value)
    assert out_of_memory(torch.OutOfMemoryError("anything"))
    with pytest.raises(RuntimeError) as wrong:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not out_of_memory(wrong.value)

    def work(rows: list[int]) -> None:
        torch.zeros(2, 3) @ torch.zeros(2, 3)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(in_batches(work, [1, 2], 10))


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 500), st.integers(50, 300))
def test_every_row_is_worked_once_within_what_fits(lengths: list[int], tokens: int, fits: int) -> None:
    import torch

    tried = []

    def work(rows: list[int]) -> list[int]:
        size = max(lengths[i] for i in rows) * len(rows)
        tried.append(size)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [lengths[i] for i in rows]

    found: Iterator[tuple[list[int], list[int]]] = in_batches(work, lengths, tokens)
    seen = [pair for rows, values in found for pair in zip(rows, values, strict=True)]
    assert sorted(seen) == list(enumerate(lengths))
    assert all(size <= max(tokens, 50) for size in tried)
    assert sum(size > fits for size in tried) <= 10
