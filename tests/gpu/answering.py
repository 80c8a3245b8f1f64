"""Answers by vLLM, where it is installed: those of our own loop, and how fast."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np

from dsel.cache import Cache
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import render
from dsel.model.generation import generate
from dsel.trainer.sft import SFT
from tests.gpu import shapes
from tests.gpu.checking import Check, Machine, Row, need


def by_vllm(machine: Machine) -> Iterator[Row]:
    need(importlib.util.find_spec("vllm") is not None, "vllm is not installed (dsel[vllm])")
    sizes, new = machine.sizes, machine.sizes.new_tokens
    spec = machine.causal(sizes.small)
    tokenizer = spec.load_tokenizer()
    talks = [talk[:1] for talk in shapes.conversations(tokenizer, [sizes.length // 4] * 32, asked=0.9, seed=2)]
    model = spec.load(tokenizer).to(machine.device).eval()
    texts = [render(tokenizer, talk, generation_prompt=True) for talk in talks]
    ours = generate(model, tokenizer, texts, max_new_tokens=8)
    del model
    theirs = learner(machine, spec).generate(talks, max_new_tokens=8)
    same = 100 * float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)]))
    yield Row(f"{sizes.small.name}, 8 tokens for 32 prompts against our loop's, bfloat16", same, "% the same")
    shape = machine.readable()
    asked = learner(machine, machine.causal(shape))
    prompts = [t[:1] for t in shapes.conversations(tokenizer, [sizes.length // 4] * 8 * sizes.prompts, asked=0.9)]
    _, start = machine.timed(lambda: asked.generate(prompts[:4], max_new_tokens=2))
    yield Row(f"{shape.name}: an engine, and 4 answers of 2 tokens", start, "s")
    _, seconds = machine.timed(lambda: asked.generate(prompts, max_new_tokens=new))
    what = f"{shape.name}, {len(prompts)} prompts of {sizes.length // 4} tokens, up to {new} new ones"
    yield Row(what, len(prompts) / max(seconds - start, 1e-9), "answers/s", note="less the start of the engine")


def learner(machine: Machine, spec: CausalLM) -> Learner:
    found = Learner(spec, SFT(), Cache(machine.folder / "cache"), seed=0)
    need(found.snapshot().has_engine, "vLLM is not used here: it needs a CUDA GPU")
    return found


CHECKS: dict[str, Check] = {"vllm": by_vllm}
