"""A step is the examples it is said to be, however devices share and pack them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED
from dsel.trainer.sft import SFT
from dsel.trainer.steps import Steps, cut, keeps_apart, packed_groups, padded_groups, steps

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


def made(lengths: list[int], *, devices: int = 1, rank: int = 0, row: int = 50, **options: Any) -> Steps:
    rows = [list(range(length)) for length in lengths]
    data = Dataset.from_dict({"input_ids": rows, "labels": rows, "length": lengths})
    return Steps(data, vars(SFT(**{"epochs": 1, "batch_size": 4, **options})), row, 0, devices, rank)


@pytest.mark.parametrize(
    ("examples", "epochs", "batch_size", "expected"),
    [
        (600, 3, 16, 114),
        (13, 1, 16, 1),
        (16, 1, 16, 1),
        (17, 1, 16, 2),
        (40, 0.5, 16, 2),
        (10_000, 3, 64, 471),
        (40, 1.1, 4, 11),
    ],
)
def test_steps(examples: int, epochs: float, batch_size: int, expected: int) -> None:
    assert steps({"batch_size": batch_size}, examples, 0, epochs) == expected
    assert steps({"batch_size": None, "batch_tokens": batch_size}, 0, examples, epochs) == expected


@given(LENGTHS, st.integers(50, 200))
def test_a_step_of_tokens_is_that_to_within_an_example(lengths: list[int], step: int) -> None:
    parts = cut(np.array(lengths), step)
    assert np.concatenate(parts).tolist() == list(range(len(lengths)))
    assert len(parts) == steps({"batch_tokens": step}, 0, sum(lengths), 1)
    assert all(0 < sum(lengths[i] for i in part) < step + max(lengths) for part in parts)
    for k in range(1, len(parts)):
        so_far = sum(lengths[i] for part in parts[:k] for i in part)
        assert k * step - max(lengths) < so_far <= k * step


@given(LENGTHS, st.integers(1, 5), st.integers(1, 8))
def test_padded_groups_are_alike(lengths: list[int], devices: int, at_once: int) -> None:
    groups = padded_groups(lengths, devices, at_once)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert len(groups) % devices == 0
    sizes = [len(group) for group in groups]
    assert max(sizes) <= at_once
    assert max(sizes) - min(sizes) <= 1
    assert len(groups) < len(lengths) / at_once + devices


@given(LENGTHS, st.integers(1, 5), st.integers(50, 150))
def test_packed_rows_hold_what_they_may(lengths: list[int], devices: int, at_once: int) -> None:
    groups = packed_groups(lengths, devices, at_once)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert len(groups) % devices == 0
    assert max(sum(lengths[i] for i in group) for group in groups) <= at_once
    assert len(groups) < 2 * sum(lengths) / at_once + 1 + devices


@pytest.mark.parametrize("sizes", [{"batch_size": 4}, {"batch_size": None, "batch_tokens": 60}], ids=str)
def test_packing_and_devices_change_no_step(sizes: dict[str, Any]) -> None:
    """Each example once an epoch; those of a step are the same, however many devices share it and in what rows."""
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 50, 23)]
    one = made(lengths, epochs=2.5, **sizes)
    expected = [sorted(one.examples(i).tolist()) for i in range(len(one))]
    assert len(one) == int(np.ceil(one.in_epoch * 2.5))
    for epoch in range(2):
        seen = expected[epoch * one.in_epoch : (epoch + 1) * one.in_epoch]
        assert sorted(i for step in seen for i in step) == list(range(23))
    assert expected[0] != expected[one.in_epoch]
    for devices in (1, 2, 3):
        for packing in (False, True):
            shares = [
                made(lengths, epochs=2.5, packing=packing, devices=devices, rank=r, **sizes) for r in range(devices)
            ]
            for i, step in enumerate(expected):
                micro = [share[i] for share in shares]
                assert len({len(m) for m in micro}) == 1  # all are busy equally often
                rows = [row for m in micro for rows in m for row in rows]
                loss = [row["length"] for row in rows if set(row["labels"]) != {IGNORED}]
                assert sorted(loss) == sorted(lengths[j] for j in step)
                assert all(rows for m in micro for rows in m)


def test_rows_of_an_epoch() -> None:
    """Case 50 of the field: 60 of 5 tokens, 4 a step, are 15 steps of one row each, not 3 rows and one step."""
    assert (len(made([5] * 60, packing=True)), made([5] * 60, packing=True).rows()) == (15, 15)
    assert made([30] * 60, packing=True).rows() == 60
    assert len(made([5] * 3, packing=True, batch_size=64)) == 1


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_a_model_that_keeps_rows_apart(spec: CausalLM, name: str) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model = spec.load(spec.load_tokenizer()).train()
    model.set_attn_implementation(name)
    collate = DataCollatorForLanguageModeling(0, padding_free=True)
    assert keeps_apart(model, [5, 6, 7], [8, 9], collate, bfloat16=False)
    assert keeps_apart(model, [5, 6, 7], [8, 9], collate, bfloat16=True)
    assert model.training


@pytest.mark.parametrize("name", ["Bloom", "OPT", "Mamba"])
def test_models_that_mix_what_a_row_holds_are_found(name: str) -> None:
    import transformers
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1}
    heads = {"Bloom": {"n_head": 2}, "OPT": {"num_attention_heads": 2, "ffn_dim": 16, "word_embed_proj_dim": 16}}
    config = getattr(transformers, f"{name}Config")(**small, **heads.get(name, {}))
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    collate = DataCollatorForLanguageModeling(0, padding_free=True)
    assert not keeps_apart(model, [5, 6, 7], [8, 9], collate, bfloat16=False)
