"""Finetuning: the effective batch, what carries loss, adapters, and that one process and two are one experiment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.cache import Cache
from dsel.errors import ConfigError
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED
from dsel.pool import Example, Pool
from dsel.trainer.sft import SFT, accumulation, tokenized
from tests.conftest import QUICK, ROOT, make_pool, offline

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "learning_rate": 5e-3,
    "batch_size": 8,
    "micro_batch_size": 8,
    "warmup": 0,
    "max_length": 128,
    "gradient_checkpointing": False,
}


@given(st.integers(1, 32), st.integers(1, 64), st.integers(1, 16))
def test_a_step_is_always_the_whole_batch(share: int, micro: int, devices: int) -> None:
    at_once, steps = accumulation(share * devices, micro, devices)
    assert at_once * steps * devices == share * devices
    assert at_once <= micro


def test_devices_that_cannot_share_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be shared by 3 devices: give a multiple of 3"):
        accumulation(64, 4, 3)


def test_prime_shares_fall_back_to_single_examples() -> None:
    assert accumulation(7, 4, 1) == (1, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"trainer\.batch_size=0"),
        ({"learning_rate": -1}, r"trainer\.learning_rate"),
        ({"checkpoint_minutes": 0}, r"trainer\.checkpoint_minutes=0"),
        ({"quantization": "int3"}, r"trainer\.quantization=int3"),
        ({"quantization": "nf4"}, "use qlora"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SFT(**options).check()


def test_examples_without_a_learnable_token_are_named(spec: CausalLM, caplog: pytest.LogCaptureFixture) -> None:
    long = [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "yes"}]
    short = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    pool = Pool.build("p", [Example("long", long, "s", {}), Example("short", short, "s", {})])
    data, tokens = tokenized(pool, spec.load_tokenizer(), 64)
    assert len(data) == 1
    assert tokens == len(data[0]["input_ids"])
    assert "not trained on: long" in caplog.text
    with pytest.raises(ConfigError, match=r"trainer\.max_length=64"):
        tokenized(pool.take([0]), spec.load_tokenizer(), 64)


def fitted(spec: CausalLM, cache: Cache, pool: Pool, seed: int = 0, **options: Any) -> tuple[Learner, list[float]]:
    losses: list[float] = []
    trainer = SFT(**{**SETTINGS, "log_every": 1, **options})
    learner = Learner(
        spec, trainer, cache, seed=seed, report=lambda m, step: losses.append(m["loss"]) if "loss" in m else None
    )
    learner.fit(pool)
    return learner, losses


def test_finetuning_lowers_the_loss_of_what_it_was_shown(spec: CausalLM, cache: Cache) -> None:
    pool = make_pool(32)
    before = Learner(spec, SFT(**SETTINGS), cache, seed=0).nll(pool.messages)
    learner, losses = fitted(spec, cache, pool, epochs=6)
    assert len(losses) == 6 * 4
    assert learner.nll(pool.messages).mean() < before.mean() - 1
    assert losses[-1] < losses[0] - 1


def test_a_text_beyond_the_models_positions_is_cut_there_and_said(
    spec: CausalLM, cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = spec.load_tokenizer()
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    short, long = CausalLM(hub="", path=str(tmp_path), dtype="float32"), "the model has 64 positions"
    fitted(short, cache, make_pool(8), epochs=1)
    assert long not in caplog.text
    pool = make_pool(8, answer="number {i} " * 40)
    learner, losses = fitted(short, cache, pool, epochs=1)
    assert caplog.text.count(long) == 1 and np.isfinite(losses).all()
    assert np.isfinite(learner.nll(pool.messages)).all()


def test_the_first_loss_is_the_mean_over_response_tokens(spec: CausalLM, cache: Cache) -> None:
    """The trainer's own figure for one full batch, against a plain forward pass over the same tokens."""
    import torch

    pool = make_pool(8)
    _, losses = fitted(spec, cache, pool, epochs=1, optimizer="sgd", max_grad_norm=0.0)
    tokenizer = spec.load_tokenizer()
    model = spec.load(tokenizer)
    total, count = 0.0, 0
    for row in tokenized(pool, tokenizer, 128)[0]:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
        count += int((labels != IGNORED).sum())
    assert losses[0] == pytest.approx(total / count, rel=1e-4)


def test_same_seed_same_weights_bit_for_bit(spec: CausalLM, tmp_path: Path) -> None:
    import torch

    one, two = (fitted(spec, Cache(tmp_path / name), make_pool(16))[0].model.state_dict() for name in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_lora_trains_adapters_only_and_can_be_merged(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    pool = make_pool(16)
    learner, _ = fitted(spec, cache, pool, lora={"rank": 4, "alpha": 8, "dropout": 0.0})
    base = spec.load(learner.tokenizer).state_dict()
    kept = learner.model.get_base_model().state_dict()
    frozen = [key for key in kept if "lora_" not in key]
    assert all(torch.equal(kept[key], base[key.replace("base_layer.", "")]) for key in frozen)
    losses = learner.nll(pool.messages)

    learner.write(tmp_path / "adapters")
    with safe_open(tmp_path / "adapters" / "adapter_model.safetensors", "pt") as file:
        assert all("lora_" in key for key in file.keys())  # noqa: SIM118 (not a dict)
    learner.write(tmp_path / "merged", merge=True)
    merged = Learner(CausalLM(hub="", path=str(tmp_path / "merged"), dtype="float32"), None, cache, seed=0)
    np.testing.assert_allclose(merged.nll(pool.messages), losses, rtol=1e-4)


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8, "dropout": 0.0}])
def test_a_run_killed_after_training_does_not_train_again(
    spec: CausalLM, cache: Cache, lora: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pool = make_pool(16)
    first, losses = fitted(spec, cache, pool, lora=lora)
    again, no_losses = fitted(spec, cache, pool, lora=lora)  # the first never said it was complete
    assert losses
    assert not no_losses
    assert "reused what an interrupted run had learnt" in caplog.text
    np.testing.assert_allclose(again.nll(pool.messages), first.nll(pool.messages), rtol=1e-5)
    again.forget()
    _, trained = fitted(spec, cache, pool, lora=lora)
    assert trained == losses


def test_packing_sees_the_same_tokens(spec: CausalLM, cache: Cache) -> None:
    learner, losses = fitted(spec, cache, make_pool(64), packing=True, batch_size=2, epochs=8)
    assert losses[-1] < losses[0]


def test_a_warm_up_longer_than_training_is_reported(
    spec: CausalLM, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    fitted(spec, cache, make_pool(8), warmup=1000, epochs=1)
    assert "warm-up (1000 steps) is longer than training (1)" in caplog.text


@pytest.mark.parametrize("processes", [2])
def test_one_process_and_two_are_the_same_experiment(processes: int, run_folder: Path) -> None:
    """A distributed job (gloo, on the CPU) takes the same steps over the same examples as a single process."""
    records = []
    for name, launcher in (("one", []), ("many", ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"])):
        runs = run_folder / f"distributed-{name}"
        options = [*QUICK, "budget=64", "evaluator=none", "tracker=none", "trainer.log_every=1", f"runs={runs}"]
        subprocess.run(
            [sys.executable, *launcher, "-m", "dsel.run", *options],
            cwd=ROOT, env=offline(run_folder, OMP_NUM_THREADS="1"), check=True, capture_output=True, timeout=500,
        )  # fmt: skip
        (record,) = runs.glob("*/record.json")  # one run folder, however many processes
        records.append(json.loads(record.read_text())["rounds"][0]["training"])
        log = (record.parent / "run.log").read_text()
        losses = [float(line.split("loss ")[1].split(",")[0]) for line in log.splitlines() if ": loss " in line]
        assert len(losses) == 4
        records[-1]["losses"] = losses
    one, many = records
    assert one["steps"] == many["steps"]
    assert one["examples"] == many["examples"] == 64
    np.testing.assert_allclose(many["losses"], one["losses"], atol=2e-4)
