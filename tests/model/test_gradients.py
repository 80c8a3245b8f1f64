"""Gradients of each example against one backward pass for each, and the projection that is never there as a whole."""

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, LlamaConfig

from dsel.errors import ConfigError
from dsel.model.gradients import Projection, per_example, trained

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip


def adapted(config: Any = LlamaConfig, **lora: Any) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SIZES))
    options = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.5, "target_modules": "all-linear", **lora}
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    return model


def ragged(n: int = 9) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(0)
    texts = []
    for length in rng.integers(3, 40, n):
        ids = rng.integers(1, 64, length).tolist()
        prompt = int(rng.integers(1, length))
        texts.append((ids, [-100] * prompt + ids[prompt:]))
    return texts


def one_by_one(model: Any, texts: Any) -> torch.Tensor:
    model.eval()
    rows = []
    for ids, labels in texts:
        model.zero_grad()
        model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.backward()
        parameters = dict(model.named_parameters())
        rows.append(torch.cat([parameters[name].grad.flatten() for name in trained(model)]))
    model.zero_grad()
    return torch.stack(rows)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
@pytest.mark.parametrize("config", [LlamaConfig, Gemma2Config])  # one that rescales its logits
def test_they_are_those_of_each_example_alone(config, targets, checkpointing):
    model, texts = adapted(config, target_modules=targets), ragged()
    expected = one_by_one(model, texts)
    found = torch.full_like(expected, torch.nan)
    for rows, gradients in per_example(model, texts, tokens_a_batch=100, checkpointing=checkpointing):
        found[rows] = gradients
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not model.training and not any("forward" in module.__dict__ for module in model.modules())


def test_a_text_without_labels_has_none():
    model = adapted()
    ((rows, found),) = per_example(model, [([1, 2, 3], [-100] * 3), ([1, 2, 3], [-100, 2, 3])])
    assert rows == [1, 0] or rows == [0, 1]
    assert not found[rows.index(0)].any() and found[rows.index(1)].any()


def test_what_has_no_gradient_of_each_example_is_refused():
    with pytest.raises(ConfigError, match="DoRA"):
        list(per_example(adapted(use_dora=True), ragged(2)))
    bare = adapted().get_base_model()
    bare.requires_grad_(False)
    with pytest.raises(ConfigError, match="LoRA"):
        list(per_example(bare, ragged(2)))


def test_the_projection_keeps_cosines_and_is_the_same_in_any_batches():
    torch.manual_seed(0)
    x = torch.randn(6, 3000)
    x[1] = x[0] + 0.5 * torch.randn(3000)
    projection = Projection(3000, 2048, seed=1)
    found = projection(x)
    torch.testing.assert_close(torch.cat([projection(x[:1]), projection(x[1:])]), found, rtol=1e-4, atol=1e-3)
    unit = [torch.nn.functional.normalize(values, dim=1) for values in (x, found)]
    assert float((unit[0] @ unit[0].T - unit[1] @ unit[1].T).abs().max()) < 0.1
    whole = np.concatenate([projection.block(start) for start in range(0, 3000, projection.rows)])
    assert set(np.unique(whole)) == {-1, 1} and abs(whole.mean()) < 0.01
    torch.testing.assert_close(x @ torch.from_numpy(whole), found, rtol=1e-4, atol=1e-2)
    assert not np.array_equal(Projection(3000, 2048, seed=2).block(0), projection.block(0))
