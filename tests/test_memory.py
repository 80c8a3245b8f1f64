"""Which strategy a training gets, by what it takes on a device."""

from __future__ import annotations

from typing import Any

import pytest

from dsel import memory
from dsel.model.causal_lm import CausalLM
from dsel.trainer.sft import SFT

FITS, SHORT = 1e15, 1.0  # bytes


@pytest.mark.parametrize(
    ("asked", "workers", "there", "expected"),
    [
        ({}, 1, SHORT, "single"),
        ({}, 8, FITS, "ddp"),
        ({}, 8, SHORT, "fsdp2"),
        ({"optimizer": "adafactor"}, 8, SHORT, "ddp"),
        ({"strategy": "single"}, 8, FITS, "single"),
        ({"strategy": "ddp"}, 8, SHORT, "ddp"),
        ({"strategy": "fsdp2"}, 8, FITS, "fsdp2"),
        ({"strategy": "fsdp2"}, 1, FITS, "single"),
    ],
)
def test_the_cheapest_that_fits(
    asked: dict[str, Any], workers: int, there: float, expected: str, spec: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "capacity", lambda processes: there)
    assert memory.strategy(spec, SFT(**asked), workers) == expected


def test_pieces_are_a_share_and_sums_of_gradients_a_copy(spec: CausalLM) -> None:
    alone = memory.training(spec, SFT(batch_size=8), 128)
    ddp, cut = (memory.training(spec, SFT(batch_size=64), 128, 8, strategy) for strategy in ("ddp", "fsdp2"))
    assert ddp == {**alone, "gradients": 2 * alone["gradients"]}
    assert (cut["gradients"], cut["optimizer"]) == (alone["gradients"] / 8, alone["optimizer"] / 8)
    assert alone["weights"] / 8 < cut["weights"] <= alone["weights"]
    assert (cut["activations"], cut["logits"]) == (alone["activations"], alone["logits"])


@pytest.mark.parametrize(
    ("options", "workers", "expected"),
    [
        ({}, 1, ["single"]),
        ({}, 8, ["single", "ddp", "fsdp2", "zero3"]),
        ({"optimizer": "adafactor"}, 8, ["single", "ddp"]),
        ({"lora": {"rank": 4, "alpha": 4, "dropout": 0}, "quantization": "nf4"}, 8, ["single", "ddp", "fsdp2"]),
    ],
)
def test_what_the_libraries_can(options: dict[str, Any], workers: int, expected: list[str]) -> None:
    assert memory.strategies(SFT(**options), workers) == expected
