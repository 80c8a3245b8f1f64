"""Operations by tokens and parameters, against those that torch counts product by product."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dsel.model import flops
from dsel.model.causal_lm import CausalLM
from dsel.model.generation import generate
from dsel.model.gradients import Projection
from dsel.model.likelihood import mean_nll
from dsel.spent import counted

TOKENS = 40


@pytest.fixture(scope="module")
def model(spec: CausalLM) -> Any:
    return spec.load(spec.load_tokenizer())


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))


def products(work: Callable[[], Any]) -> int:
    """Those of matrices, without attention's of tokens with tokens."""
    with FlopCounterMode(display=False) as counter:
        work()
    ours = [n for name, n in counter.get_flop_counts()["Global"].items() if "attention" not in str(name)]
    return sum(ours)


def test_reading_and_training_all(spec: CausalLM) -> None:
    model = spec.load(spec.load_tokenizer()).train()
    ids = torch.arange(TOKENS)[None] % 50
    read = products(lambda: model(input_ids=ids, labels=ids))
    assert flops.reading(model, TOKENS) == pytest.approx(read, rel=0.02)
    trained = products(lambda: model(input_ids=ids, labels=ids).loss.backward())
    assert flops.training(model, TOKENS) == pytest.approx(trained, rel=0.05)
    assert flops.training(model, TOKENS, again=True) == flops.training(model, TOKENS) * 8 / 6


def test_training_adapters(spec: CausalLM) -> None:
    model = adapted(spec.load(spec.load_tokenizer())).train()
    ids = torch.arange(TOKENS)[None] % 50
    trained = products(lambda: model(input_ids=ids, labels=ids).loss.backward())
    assert flops.training(model, TOKENS) == pytest.approx(trained, rel=0.1)
    frozen, own = flops.passed(model)
    assert own == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert flops.training(model, 1) == 4 * frozen + 6 * own


def test_the_head_counts_and_the_table_does_not(model: Any) -> None:
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    whole = sum(p.numel() for p in model.parameters())  # each once
    expected = whole if head is table else whole - table.numel()
    assert sum(flops.passed(model)) == expected
    assert sum(flops.passed(model.model)) == expected - head.numel()


def test_experts_count_as_often_as_they_are_asked() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(num_local_experts=8, num_experts_per_tok=2)
            self.gate = torch.nn.Linear(4, 8, bias=False)
            self.experts = torch.nn.ModuleList(torch.nn.Linear(4, 4, bias=False) for _ in range(8))
            self.mlp = torch.nn.ModuleDict({"experts": self.experts})

    assert sum(flops.passed(Layer())) == 32 + 8 * 16  # those of a module itself: no `.experts.` inside a name
    whole = torch.nn.ModuleDict({"layer": Layer()})
    whole.config = SimpleNamespace(num_local_experts=8, num_experts_per_tok=2)
    assert sum(flops.passed(whole)) == 32 + 2 * 16


def test_tokens_are_counted_where_they_are_read(model: Any, spec: CausalLM) -> None:
    with counted() as spent:
        mean_nll(model, [([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, -100])])  # the last is not read, nor its texts
    assert spent.tokens == 2 and spent.flops == flops.reading(model, 2)
    tokenizer = spec.load_tokenizer()
    with counted() as spent:
        generate(model, tokenizer, ["a b c"], max_new_tokens=5)
    prompt = len(tokenizer("a b c", add_special_tokens=False)["input_ids"])
    assert prompt < spent.tokens <= prompt + 5 and spent.flops == flops.reading(model, spent.tokens)


def test_a_projection_counts() -> None:
    with counted() as spent:
        Projection(100, 16, 0)(torch.from_numpy(np.ones((3, 100), np.float32)))
    assert spent.flops == 2 * 3 * 100 * 16
