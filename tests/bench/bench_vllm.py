"""Greedy answers by vLLM beside those of our own loop: how many are the same, and what both take.

    python -m tests.bench.bench_vllm                     # SmolLM2, 64 prompts, 64 new tokens, float32
    python -m tests.bench.bench_vllm --rank 8            # adapters too, in an engine with room for them
    python -m tests.bench.bench_vllm --dtype bfloat16 --prompts 512

To be run where vLLM is installed: with a CUDA GPU, or its build for CPUs (docs/gpus.md). Both take turns; processor
seconds are those of this process and of the engine's, without the engine's start, which has a row of its own. Then
the same is asked of other weights, and of adapters, which are noise. Our model reads each of vLLM's answers as well: at
each token, how much less it thinks of it than of the best one.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from dsel.data.procedural import Procedural
from dsel.model import vllm
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import render
from dsel.model.generation import generate, prompt_ids, text_of_answer

MODEL = Path("~/.cache/dsel-models/smollm2-135m-instruct").expanduser()
NOISE = 0.02  # of other weights, in standard deviations of each tensor


def processor_seconds() -> float:
    """Of this process and of those that it has started and that are there."""
    here = psutil.Process()
    return float(sum(sum(each.cpu_times()[:2]) for each in (here, *here.children(recursive=True))))


@contextmanager
def row(name: str, tokens: list[int] | None = None) -> Iterator[None]:
    """Print what the block takes; `tokens` is how many were found in it, for each answer."""
    start, cpu = time.perf_counter(), processor_seconds()
    yield
    seconds, cpu = time.perf_counter() - start, processor_seconds() - cpu
    rates = f"  {sum(tokens) / seconds:7.1f} tokens/s  {sum(tokens) / cpu:7.1f} a processor second" if tokens else ""
    print(f"{name:32} {seconds:8.2f} s  {cpu:8.2f} s of a processor{rates}", flush=True)


def behind(model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[float]:
    """For each token of the answers, the logit of the model's best token less its own: 0 where it is the best."""
    import torch

    found: list[float] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        found += (logits.amax(dim=1) - logits.gather(1, ids[0, len(prompt) :, None])[:, 0]).tolist()
    return found


def compare(
    name: str, spec: CausalLM, model: Any, tokenizer: Any, texts: list[str], repeats: int, new: int, **folders: Path
) -> None:
    """Both answer, in turns; the model here stands for what is in `folders`."""
    prompts = prompt_ids(tokenizer, texts, 2048)
    for _ in range(repeats):
        lengths: list[int] = []
        with row(f"vLLM, {name}", lengths):
            theirs = vllm.tokens_of_answers(spec, tokenizer, texts, max_new_tokens=new, **folders)
            lengths += map(len, theirs)
        lengths = []
        with row(f"ours, {name}", lengths):
            ours = generate(model, tokenizer, texts, max_new_tokens=new)
            lengths += map(len, tokenizer(ours, add_special_tokens=False)["input_ids"])
    words = [text_of_answer(tokenizer, answer, ()) for answer in theirs]
    gaps = behind(model, prompts, theirs)
    same = sum(one == other for one, other in zip(words, ours, strict=True))
    best = sum(gap == 0 for gap in gaps)
    print(
        f"{name}: {same} of {len(texts)} answers are the same ({spec.dtype}); {best} of {len(gaps)} of vLLM's tokens "
        f"are our best, the others at most {max(gaps, default=0):.2g} logits behind",
        flush=True,
    )


def other(model: Any, folder: Path) -> Any:
    """The model with noise on its weights, which is in `folder` then."""
    import torch

    torch.manual_seed(0)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for weight in changed.parameters():
            if weight.ndim > 1:
                weight += NOISE * weight.std() * torch.randn_like(weight)
    changed.save_pretrained(folder)
    return changed


def adapted(model: Any, rank: int, folder: Path) -> Any:
    """The model with random adapters, which are in `folder` then."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    settings = LoraConfig(r=rank, lora_alpha=1, target_modules="all-linear", init_lora_weights=False)
    changed = get_peft_model(copy.deepcopy(model), settings)
    changed.save_pretrained(str(folder))
    return changed.eval()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=MODEL, help="a folder")
    options.add_argument("--dtype", default="float32")
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--new", type=int, default=64, help="tokens of an answer, at most")
    options.add_argument("--repeats", type=int, default=2)
    options.add_argument("--rank", type=int, default=0, help="of adapters; 0 for none")
    given = options.parse_args()
    spec = CausalLM(hub="", path=str(given.model), dtype=given.dtype, vllm="always")
    tokenizer = spec.load_tokenizer()
    pool = Procedural(size=given.prompts).load()
    texts = [render(tokenizer, messages[:1], generation_prompt=True) for messages in pool.messages]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with row("ours: start"):
            model = spec.load(tokenizer).eval()
        asked = (tokenizer, texts, given.repeats, given.new)
        adapters = {"adapters": folder / "adapters"} if given.rank else {}
        changed = adapted(model, given.rank, folder / "adapters") if given.rank else None
        with row("vLLM: start"), vllm.engine(spec, **adapters):
            pass
        compare("the model", spec, model, *asked)
        if given.rank:
            compare("adapters", spec, changed, *asked, **adapters)
        changed = other(model, folder / "weights")
        with row("vLLM: other weights are read"), vllm.engine(spec, weights=folder / "weights"):
            pass
        compare("other weights", spec, changed, *asked, weights=folder / "weights")
        vllm.close()


if __name__ == "__main__":
    main()
