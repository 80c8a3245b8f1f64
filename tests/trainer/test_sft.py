"""Finetuning: the effective batch, what carries loss, adapters, and that one process and two are one experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.errors import ConfigError
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED, encode
from dsel.pool import Example, Pool
from dsel.trainer.examples import tokenized
from dsel.trainer.sft import SFT, LoRA
from tests.conftest import ROOT, checked, make_pool
from tests.trainer import small

SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}

SETTINGS: dict[str, Any] = {**small.SETTINGS, "epochs": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"trainer\.batch_size=0"),
        ({"batch_tokens": 4096}, r"batch_size=64 and trainer\.batch_tokens=4096: give one, and null"),
        ({"batch_size": None}, r"batch_size=None and trainer\.batch_tokens=None: give one"),
        ({"batch_size": None, "batch_tokens": 0}, r"trainer\.batch_tokens=0: wants a whole number from 1 or null"),
        ({"log_every": 0}, r"trainer\.log_every=0: wants a whole number from 1"),
        ({"warmup": -1}, r"trainer\.warmup=-1: wants a number from 0"),
        ({"weight_decay": -0.1}, r"trainer\.weight_decay=-0.1: wants a number from 0"),
        ({"schedule": "cosin"}, r"trainer\.schedule=cosin: wants one of linear, cosine.*did you mean cosine"),
        ({"optimizer": "adam"}, r"trainer\.optimizer=adam: wants one of transformers' adamw_torch,"),
        ({"dtype": "bf16"}, r"trainer\.dtype=bf16: wants one of auto, float32"),
        ({"batch_size": None, "batch_tokens": 64}, r"must be at least trainer\.max_length=2048"),
        ({"learning_rate": -1}, r"trainer\.learning_rate"),
        ({"checkpoint_minutes": 0}, r"trainer\.checkpoint_minutes=0"),
        ({"quantization": "int3"}, r"trainer\.quantization=int3"),
        ({"quantization": "nf4"}, "use qlora"),
        ({"strategy": "fsdp"}, r"trainer\.strategy=fsdp: wants one of auto, single, ddp, fsdp2, zero3.*mean fsdp2"),
        (
            {"strategy": "fsdp2", "optimizer": "adafactor"},
            r"strategy=fsdp2 cuts weights into pieces, and trainer\.optimizer=adafactor needs whole ones: use adamw",
        ),
        ({"lora": {"foo": 1}}, r"trainer\.lora\.foo=1: unknown; there are rank, alpha, dropout"),
        ({"lora": {"rank": 8}}, r"trainer\.lora={rank: 8}: set alpha and dropout"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(SFT(**options), "trainer")


def test_zero3_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "deepspeed" else name)
    with pytest.raises(ConfigError, match=r"needs the package 'deepspeed': pip install 'dsel\[deepspeed\]'"):
        checked(SFT(strategy="zero3"), "trainer")
    lora: LoRA = {"rank": 4, "alpha": 8, "dropout": 0.0}
    quantized = SFT(strategy="zero3", quantization="nf4", lora=lora, optimizer="paged_adamw_8bit")
    with pytest.raises(ConfigError, match=r"zero3 cannot cut weights of 4 bits \(nf4\): use trainer\.strategy=fsdp2"):
        checked(quantized, "trainer")


def fitted(spec: CausalLM, cache: Cache, pool: Pool, seed: int = 0, **options: Any) -> tuple[Learner, list[float]]:
    losses: list[float] = []
    trainer = SFT(**{**SETTINGS, "log_every": 1, **options})
    learner = Learner(
        spec, trainer, cache, seed=seed, report=lambda m, step: losses.append(m["loss"]) if "loss" in m else None
    )
    learner.fit(pool)
    return learner, losses


def mixed_pool(n: int) -> Pool:
    """Examples of many lengths, each with its own words."""
    texts = [" ".join(str(i * k) for k in range(1 + i * i % 17)) for i in range(n)]
    user = {"role": "user", "content": "Count."}
    turns = [[user, {"role": "assistant", "content": text}] for text in texts]
    return Pool.build("mixed", [Example(f"m{i}", messages, "s", {}) for i, messages in enumerate(turns)])


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
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    short, long = CausalLM(hub="", path=str(tmp_path / "model"), dtype="float32"), "the model has 64 positions"
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


def test_lora_targets_that_a_model_has_not_are_one_line(
    spec: CausalLM, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = CausalLM(hub="", path=spec.path, dtype="float32", lora_targets=["q_projection"])
    with pytest.raises(ConfigError, match=r"model\.lora_targets=\['q_projection'\]: .*not found"):
        fitted(named, cache, make_pool(4), lora=LORA)
    monkeypatch.setattr(CausalLM, "load", lambda *_, **__: pytest.fail("its weights are read"))
    learner = Learner(named, SFT(lora=LORA), cache, seed=0)
    with pytest.raises(ConfigError, match=r"model\.lora_targets=\['q_projection'\]: .*not found"):
        learner.try_on(make_pool(4))


def test_lora_trains_adapters_only_and_can_be_merged(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    pool = make_pool(16)
    learner, _ = fitted(spec, cache, pool, lora=LORA)
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


@pytest.mark.parametrize("lora", [None, LORA])
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
    first.forget()  # `again` still uses the weights
    again.forget()
    _, trained = fitted(spec, cache, pool, lora=lora)
    assert trained == losses


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora": LORA},
        {"batch_size": 64},
        {"batch_size": None, "batch_tokens": 128},
    ],
    ids=["full", "lora", "one-step", "tokens"],
)
def test_packing_changes_neither_steps_nor_results(
    spec: CausalLM, tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The same curve and the same model, padded four at a time and packed; fractional epochs too."""
    caplog.set_level("INFO")
    pool, more = mixed_pool(30), {"epochs": 1.5, "warmup": 0.2, "micro_batch_size": 4, **options}
    padded, losses = fitted(spec, Cache(tmp_path / "padded"), pool, **more)
    packed, others = fitted(spec, Cache(tmp_path / "packed"), pool, packing=True, **more)
    assert len(losses) == len(others) > 0
    np.testing.assert_allclose(others, losses, rtol=1e-5)
    np.testing.assert_allclose(packed.nll(pool.messages), padded.nll(pool.messages), rtol=1e-4)
    assert f"{len(losses)} steps of " in caplog.text
    assert "packed rows of at most 128 tokens" in caplog.text


def test_steps_warm_up_and_log_agree_when_packed(
    spec: CausalLM, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    """Three steps of eight, not one of a row; a warm-up of two is shorter than that, one of five is not."""
    caplog.set_level("INFO")
    _, losses = fitted(spec, cache, make_pool(20), packing=True, epochs=1, warmup=2)
    assert len(losses) == 3
    assert "training on 20 examples" in caplog.text
    assert "3 steps of 8 examples, an epoch is 3 packed rows of at most 128 tokens" in caplog.text
    assert "warm-up" not in caplog.text
    fitted(spec, cache, make_pool(20), packing=True, epochs=1, warmup=5)
    assert "warm-up (5 steps) is longer than training (3)" in caplog.text


def test_a_model_that_mixes_the_examples_of_a_row_is_not_packed(
    spec: CausalLM, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsel.trainer.sft.keeps_apart", lambda *args, **more: False)
    with pytest.raises(ConfigError, match=r"mixes the examples of a row: use trainer\.packing=false"):
        fitted(spec, cache, make_pool(8), packing=True)
    fitted(spec, cache, make_pool(8))


def test_a_warm_up_longer_than_training_is_reported(
    spec: CausalLM, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    fitted(spec, cache, make_pool(8), warmup=1000, epochs=1)
    assert "warm-up (1000 steps) is longer than training (1)" in caplog.text


# A plain loop


def plain_loop(spec: CausalLM, pool: Pool, options: dict[str, Any], seed: int) -> tuple[Any, list[float]]:
    """What finetuning is, in a few lines of PyTorch: one example at a time, no padding, no library's trainer.

    AdamW with decay on matrices alone, linear warm-up and decay, gradients cut at norm 1, the loss a mean over all
    response tokens of the step; the examples are drawn in the order of a permutation of seed + epoch.
    """
    import torch

    trainer = SFT(**options)
    tokenizer = spec.load_tokenizer()
    model = trainer.load(spec, tokenizer, seed=seed).train()
    examples = [encode(tokenizer, messages, trainer.max_length) for messages in pool.messages]
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": trainer.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=trainer.learning_rate)
    batches: list[list[int]] = []
    for epoch in range(int(trainer.epochs)):
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        batches += [order[i : i + options["batch_size"]] for i in range(0, len(order), options["batch_size"])]
    losses, warm = [], int(trainer.warmup)
    for step, batch in enumerate(batches):
        rate = step / warm if step < warm else (len(batches) - step) / (len(batches) - warm)
        for group in optimizer.param_groups:
            group["lr"] = trainer.learning_rate * rate
        count = sum(label != IGNORED for i in batch for label in examples[i][1][1:])
        total = 0.0
        for i in batch:
            ids, labels = (torch.tensor(side) for side in examples[i])
            logits = model(ids[None]).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=IGNORED, reduction="sum") / count
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return model, losses


def compare_with_a_plain_loop(
    spec: CausalLM, cache: Cache, pool: Pool, tolerances: tuple[float, float], **options: Any
) -> None:
    """The losses of all steps, and the difference of the final weights as a part of what training changed in them."""
    chosen = {**SETTINGS, "weight_decay": 0.1, "warmup": 2, "micro_batch_size": 3, **options}
    model, expected = plain_loop(spec, pool, chosen, seed=3)
    learner, losses = fitted(spec, cache, pool, seed=3, **chosen)
    assert len(losses) == len(expected) > 3
    assert losses[0] - losses[-1] > 0.05  # it learns
    np.testing.assert_allclose(losses, expected, rtol=tolerances[0])
    start = SFT(**chosen).load(spec, learner.tokenizer, seed=3).state_dict()
    ours, theirs = learner.model.state_dict(), model.state_dict()
    changed = sum(float((theirs[name] - value).square().sum()) for name, value in start.items())
    apart = sum(float((ours[name] - value).square().sum()) for name, value in theirs.items())
    assert (apart / changed) ** 0.5 <= tolerances[1]


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_training_is_a_plain_loop(spec: CausalLM, cache: Cache, packing: bool, lora: dict[str, Any] | None) -> None:
    compare_with_a_plain_loop(spec, cache, mixed_pool(30), (1e-6, 1e-5), packing=packing, lora=lora)


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_dir(), reason=f"needs {SMOLLM2}")
@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_training_smollm2_is_a_plain_loop(cache: Cache, packing: bool, lora: dict[str, Any] | None) -> None:
    spec = CausalLM(hub="", path=str(SMOLLM2), dtype="float32")
    more = {"packing": packing, "lora": lora, "batch_size": 4, "learning_rate": 2e-3 if lora else 2e-5}
    compare_with_a_plain_loop(spec, cache, mixed_pool(8), (5e-5, 2e-3), **more)
