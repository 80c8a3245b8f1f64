"""How many positions models have, of each of the kinds that say so in their own way."""

from __future__ import annotations

from typing import Any

import pytest

from dsel.model.positions import positions, within

SMALL = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("bert", {"max_position_embeddings": 40}, 40),
        ("roberta", {"max_position_embeddings": 42, "pad_token_id": 1}, 40),
        ("mpnet", {"max_position_embeddings": 42, "pad_token_id": 1}, 40),
        ("llama", {"max_position_embeddings": 40}, 40),
        ("gpt2", {"n_positions": 40, "n_embd": 8, "n_layer": 1, "n_head": 2}, 40),
        ("t5", {"d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 2, "d_kv": 4}, None),
    ],
)
def test_positions_are_those_that_work(kind: str, options: dict[str, Any], expected: int | None) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    own = SMALL if kind not in ("gpt2", "t5") else {"vocab_size": 20}
    model = AutoModel.from_config(AutoConfig.for_model(kind, **own | options)).eval()
    assert positions(model) == expected
    assert within(30, model) == 30 and within(64, model) == (expected or 64)
    if expected is not None:
        with torch.inference_mode():
            model(input_ids=torch.full((1, expected), 5), attention_mask=torch.ones(1, expected, dtype=torch.long))


def test_a_model_without_a_configuration_has_no_limit() -> None:
    assert positions(None) is None
