"""What a model is asked: losses, answers, vectors and gradients, and whether a device says what a processor says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from dsel.cache import Cache
from dsel.data.procedural import Procedural
from dsel.embedder.base import Tokenized
from dsel.embedder.causal_lm import CausalLMEmbedder
from dsel.forecast import weights_of
from dsel.memory import shape as counted
from dsel.model.chat import IGNORED, encode, render
from dsel.model.flops import forward_and_back
from dsel.model.generation import generate
from dsel.model.gradients import per_example
from dsel.model.likelihood import mean_nll
from dsel.model.tiny import Tiny
from dsel.trainer.sft import SFT
from tests.gpu import shapes
from tests.gpu.checking import Check, Machine, Row, best, finite, need
from tests.gpu.shapes import Shape
from tests.gpu.training import ADAPTERS


def of_each(measure: Callable[[Machine, Shape], Row], machine: Machine) -> Iterator[Row]:
    """Of the largest shape that can be read with, and of a small one."""
    for shape in dict.fromkeys((machine.readable(), machine.sizes.small)):
        with machine.emptied():
            yield measure(machine, shape)


def nll(machine: Machine, shape: Shape) -> Row:
    """Losses of the answers of texts."""
    sizes, spec = machine.sizes, machine.causal(shape)
    tokenizer = spec.load_tokenizer()
    talks = shapes.conversations(tokenizer, [sizes.length] * sizes.texts)
    texts = [encode(tokenizer, talk, sizes.length) for talk in talks]
    model = spec.load(tokenizer).to(machine.device).eval()
    losses, seconds = best(machine, lambda: mean_nll(model, texts))
    finite(losses)
    read = sum(len(ids) for ids, _ in texts)
    labelled = sum(label != IGNORED for _, labels in texts for label in labels)
    layers = shape.parameters - shape.head * (1 if shape.tied else 2)
    done = 2 * (layers * read + shape.head * labelled)
    what = f"{shape.name}, texts of {sizes.length} tokens"
    return Row(what, read / seconds, "tokens/s", done / seconds / machine.peak.bfloat16)


def answers(machine: Machine, shape: Shape) -> Row:
    """Answers that do not end before their limit, as those of random weights."""
    sizes, spec = machine.sizes, machine.causal(shape)
    tokenizer, new, asked = spec.load_tokenizer(), sizes.new_tokens, sizes.length // 4
    talks = shapes.conversations(tokenizer, [asked] * sizes.prompts, asked=0.9)
    texts = [render(tokenizer, talk[:1], generation_prompt=True) for talk in talks]
    model = spec.load(tokenizer).to(machine.device).eval()
    generate(model, tokenizer, texts[:2], max_new_tokens=2)
    _, seconds = machine.timed(lambda: generate(model, tokenizer, texts, max_new_tokens=new))
    read = sum(len(ids) for ids in tokenizer(texts)["input_ids"]) + new * len(texts)
    share = 2 * shape.parameters * read / seconds / machine.peak.bfloat16
    what = f"{shape.name}, {len(texts)} prompts of {asked} tokens, up to {new} new ones"
    return Row(what, len(texts) / seconds, "answers/s", share, "a share of operations: memory is what limits")


def embedding(machine: Machine) -> Iterator[Row]:
    """An encoder, and a causal model as an embedder."""
    sizes, shape = machine.sizes, machine.readable()
    small = shapes.encoder(sizes.encoder, machine.folder, machine.device, machine.dtype)
    with machine.emptied():
        yield vectors(machine, small, sizes.encoder.name, [min(250, sizes.length)] * 32 * sizes.texts)
    spec = machine.causal(shape)
    large = CausalLMEmbedder(hub="", path=spec.path, dtype=spec.dtype, device=machine.device)
    with machine.emptied():
        yield vectors(machine, large, f"{shape.name} as an embedder", [sizes.length - 8] * sizes.texts)


def vectors(machine: Machine, embedder: Tokenized, name: str, lengths: list[int]) -> Row:
    words = machine.causal(machine.sizes.small).load_tokenizer()
    texts = [talk[1]["content"] for talk in shapes.conversations(words, lengths, asked=0)]
    found, seconds = best(machine, lambda: embedder.encode(texts))
    finite(found)
    read = sum(embedder.sizes(texts))
    share = 2 * (weights_of(embedder) or 0) * read / seconds / machine.peak.bfloat16
    return Row(
        f"{name}, texts of {read / len(texts):.0f} tokens", len(texts) / seconds, "texts/s", share, "with its tokenizer"
    )


def gradients(machine: Machine) -> Iterator[Row]:
    """The gradient of each example, many at a time, and one by one."""
    sizes, shape = machine.sizes, machine.sizes.middle
    spec, trainer, length = machine.causal(shape), SFT(lora=ADAPTERS), sizes.length // 2
    tokenizer = spec.load_tokenizer()
    model = trainer.load(spec, tokenizer, seed=0).to(machine.device).eval()
    texts = [encode(tokenizer, talk, length) for talk in shapes.conversations(tokenizer, [length] * sizes.gradients)]

    def found(groups: list[int]) -> None:
        for start in groups:
            for _, values in per_example(model, texts[start : start + len(texts) // len(groups)]):
                if not values.isfinite().all():
                    raise ValueError("there are gradients that are not finite")

    each = forward_and_back(*counted(spec, trainer).passed, length)
    for name, groups in (("together", [0]), ("one by one", list(range(len(texts))))):
        _, seconds = best(machine, partial(found, groups))
        rate = len(texts) / seconds
        what = f"{shape.name}, LoRA of rank {ADAPTERS['rank']}, texts of {length} tokens, {name}"
        yield Row(what, rate, "examples/s", rate * each / machine.peak.bfloat16)


def tiny(machine: Machine) -> Iterator[Row]:
    """What the pretrained `tiny` says on the device and on the processor, in float32."""
    spec = Tiny(dtype="float32") if machine.cuda else Tiny(dtype="float32", steps=20, hidden=64, layers=1)
    spec.prepare(Cache(machine.folder / "cache"))
    tokenizer = spec.load_tokenizer()
    talks = list(islice(Procedural(size=1000).load().messages, 4 * machine.sizes.texts))
    texts = [encode(tokenizer, talk, 128) for talk in talks]
    prompts = [render(tokenizer, talk[:-1], generation_prompt=True) for talk in talks]
    model = spec.load(tokenizer).eval()
    said = []
    for device in (machine.device, "cpu"):
        model = model.to(device)
        said.append((mean_nll(model, texts), generate(model, tokenizer, prompts, max_new_tokens=16)))
    (there, theirs), (here, ours) = said
    most = float(np.nanmax(np.abs(there - here)))
    yield Row(f"nll of {len(texts)} texts against the processor's", most, "nats, at most")
    same = 100 * float(np.mean([a == b for a, b in zip(theirs, ours, strict=True)]))
    yield Row(f"greedy answers to {len(texts)} prompts against the processor's", same, "% the same")
    if not most < 1e-3:
        raise ValueError(f"the device's losses are {most:.2g} off the processor's")


def attention(machine: Machine) -> Iterator[Row]:
    """The losses of packed rows, as flash attention has them, against padded ones."""
    need(importlib.util.find_spec("flash_attn") is not None, "flash-attn is not installed")
    need(machine.cuda, "flash attention needs a CUDA GPU")
    sizes = machine.sizes
    spec = machine.causal(sizes.small)
    tokenizer = spec.load_tokenizer()
    lengths = np.random.default_rng(0).integers(8, sizes.length, sizes.texts).tolist()
    texts = [encode(tokenizer, talk, sizes.length) for talk in shapes.conversations(tokenizer, lengths)]
    found = []
    for name in ("sdpa", "flash_attention_2"):
        model = replace(spec, attention=name).load(tokenizer).to(machine.device).eval()
        losses, seconds = best(machine, partial(mean_nll, model, texts))
        found.append(losses)
        rate = sum(len(ids) for ids, _ in texts) / seconds
        yield Row(f"{sizes.small.name}, nll of texts of different lengths, {name}", rate, "tokens/s")
    most = float(np.nanmax(np.abs(found[0] - found[1])))
    yield Row("packed rows of flash attention against padded ones, bfloat16", most, "nats, at most")


CHECKS: dict[str, Check] = {
    "tiny": tiny,
    "nll": partial(of_each, nll),
    "generate": partial(of_each, answers),
    "embedding": embedding,
    "gradients": gradients,
    "attention": attention,
}
