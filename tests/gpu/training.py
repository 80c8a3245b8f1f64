"""Trainings: tokens a second, and the share of the peak that the model's operations are."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsel import memory
from dsel.engine.launch import launch
from dsel.model.causal_lm import CausalLM
from dsel.model.flops import forward_and_back
from dsel.pool import Pool
from dsel.trainer.job import Job, outcome_of
from dsel.trainer.sft import SFT, LoRA
from tests.gpu import shapes
from tests.gpu.checking import Check, Machine, Row, finite, need
from tests.gpu.shapes import Shape

ADAPTERS: LoRA = {"rank": 64, "alpha": 16, "dropout": 0.1}
WARM = 2  # steps that are not counted: memory is found, kernels are chosen


def setting(machine: Machine, **options: Any) -> SFT:
    """A trainer for a few steps over texts of the same length."""
    sizes = machine.sizes
    common = {"epochs": 1, "batch_size": sizes.examples, "max_length": sizes.length, "log_every": 1, "warmup": 0}
    return SFT(**{**common, **options})


def fits(machine: Machine, spec: CausalLM, trainer: SFT, processes: int = 1, strategy: str = "single") -> bool:
    needed = memory.training(spec, trainer, trainer.max_length, processes, strategy)
    return sum(needed.values()) < machine.memory


def largest(machine: Machine, *trainers: SFT) -> tuple[Shape, SFT]:
    """The first shape, and of the trainers the first, that fit the device and the disk."""
    for shape in (machine.sizes.large, machine.sizes.middle, machine.sizes.small):
        for trainer in trainers if machine.has_room(shape) else ():
            if fits(machine, machine.causal(shape), trainer):
                return shape, trainer
    return machine.sizes.small, trainers[-1]


def measure(
    machine: Machine,
    spec: CausalLM,
    trainer: SFT,
    examples: Pool,
    processes: int = 1,
) -> tuple[float, float, dict[str, float]]:
    """Tokens a second after the first steps, the share of the peak, and what the trainer reports."""
    times: list[float] = []
    job = Job(spec, trainer, examples.fingerprint, seed=0)

    def report(metrics: dict[str, float], step: int) -> None:
        if "loss" in metrics:  # it was waited for
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory(dir=machine.folder) as name, machine.emptied():
        folder = Path(name)
        if processes == 1:  # as a job is run, but that nothing is saved
            tokenizer = spec.load_tokenizer()
            model = trainer.load(spec, tokenizer, seed=0).train()
            mixed = {"bfloat16": job.mixed, "seed": 0}
            outcome = trainer.train(model, tokenizer, examples, folder=folder, report=report, **mixed)
            del model
        else:
            launch(job, examples, processes, folder, report)
            outcome = outcome_of(folder)
    warm = min(WARM, len(times) - 2)
    counted = outcome["tokens"] * (len(times) - 1 - warm) / len(times)
    rate = counted / (times[-1] - times[warm])
    each = forward_and_back(*memory.shape(spec, trainer).passed, 1)
    return rate, rate * each / machine.peak.bfloat16 / processes, outcome


def same_length(machine: Machine, spec: CausalLM) -> Pool:
    sizes = machine.sizes
    return shapes.pool(spec.load_tokenizer(), [sizes.length + 8] * sizes.examples * sizes.steps)


def row(machine: Machine, shape: Shape, trainer: SFT, *, processes: int = 1, note: str = "") -> Row:
    spec = machine.causal(shape)
    rate, share, outcome = measure(machine, spec, trainer, same_length(machine, spec), processes)
    finite(outcome["loss"])
    what = f"{shape.name}, texts of {machine.sizes.length} tokens, weights {trainer.dtype or 'bfloat16'}"
    return Row(what, rate, "tokens/s", share, note)


def lora(machine: Machine) -> Iterator[Row]:
    trainer = setting(machine, lora=ADAPTERS)
    for shape in dict.fromkeys((largest(machine, trainer)[0], machine.sizes.small)):
        yield row(machine, shape, trainer, note="what checkpointing computes again is not counted")


def full(machine: Machine) -> Iterator[Row]:
    whole = setting(machine, dtype="float32", learning_rate=1e-5)
    shape, trainer = largest(machine, whole, replace(whole, dtype="bfloat16"))
    yield row(machine, shape, trainer, note="the largest that fits one device")
    if shape != machine.sizes.small:
        yield row(machine, machine.sizes.small, whole)


def qlora(machine: Machine) -> Iterator[Row]:
    need(importlib.util.find_spec("bitsandbytes") is not None, "bitsandbytes is not installed (dsel[gpu])")
    need(machine.cuda, "4 bits need a CUDA GPU")
    trainer = setting(machine, lora=ADAPTERS, quantization="nf4", optimizer="paged_adamw_8bit")
    yield row(machine, largest(machine, trainer)[0], trainer)


def rows_of(attention: str, packing: bool, machine: Machine) -> Iterator[Row]:
    """Texts of very different lengths, padded or packed."""
    missing = attention.startswith("flash") and importlib.util.find_spec("flash_attn") is None
    need(not missing, "flash-attn is not installed")
    need(machine.cuda or attention == "sdpa", f"{attention} needs a CUDA GPU")
    sizes, shape = machine.sizes, machine.sizes.middle
    spec = replace(machine.causal(shape), attention=attention)
    drawn = np.random.default_rng(0).lognormal(np.log(sizes.length / 4), 1, sizes.examples * sizes.steps)
    examples = shapes.pool(spec.load_tokenizer(), np.clip(drawn, 4, sizes.length).astype(int).tolist())
    rate, share, outcome = measure(machine, spec, setting(machine, lora=ADAPTERS, packing=packing), examples)
    finite(outcome["loss"])
    how = "packed" if packing else "padded"
    yield Row(f"{shape.name}, LoRA, texts of different lengths, {how}, {attention}", rate, "tokens/s", share)


def cut(machine: Machine) -> Iterator[Row]:
    """All weights under fsdp2, by all GPUs; by two processes where there is none."""
    import torch

    processes = torch.cuda.device_count() if machine.cuda else 2
    need(processes > 1, "there is one GPU, and fsdp2 cuts weights over several")
    shape = machine.sizes.large
    need(machine.has_room(shape), f"there is no room to make {shape.name}")
    trainer = setting(machine, dtype="float32", strategy="fsdp2", batch_size=4 * processes, learning_rate=1e-5)
    need(fits(machine, machine.causal(shape), trainer, processes, "fsdp2"), f"{processes} devices have no room")
    yield row(machine, shape, trainer, processes=processes, note=f"by {processes} processes")


CHECKS: dict[str, Check] = {
    "lora": lora,
    "full": full,
    "qlora": qlora,
    "padded": partial(rows_of, "sdpa", False),
    "packed": partial(rows_of, "sdpa", True),
    "packed-flex": partial(rows_of, "flex_attention", True),
    "packed-flash": partial(rows_of, "flash_attention_2", True),
    "fsdp2": cut,
}
