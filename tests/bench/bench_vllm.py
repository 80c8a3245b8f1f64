"""Greedy answers by vLLM beside those of our own loop: how many are the same, and what both take.

    python -m tests.bench.bench_vllm                     # SmolLM2, 64 prompts, 64 new tokens, float32
    python -m tests.bench.bench_vllm --dtype bfloat16 --prompts 512

To be run where vLLM is installed: with a CUDA GPU, or its build for CPUs (docs/gpus.md). Both take turns; processor
seconds are those of this process and of the engine's, without the engine's start, which has a row of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dsel.cache import Cache
from dsel.data.procedural import Procedural
from dsel.learner import Learner
from dsel.model import vllm
from dsel.model.causal_lm import CausalLM
from dsel.trainer.sft import SFT

MODEL = Path("~/.cache/dsel-models/smollm2-135m-instruct").expanduser()


def processor_seconds() -> float:
    """Of this process and of those that it has started and that are there."""
    here = psutil.Process()
    return float(sum(sum(each.cpu_times()[:2]) for each in (here, *here.children(recursive=True))))


@contextmanager
def row(name: str, answers: int = 0) -> Iterator[None]:
    start, cpu = time.perf_counter(), processor_seconds()
    yield
    seconds, cpu = time.perf_counter() - start, processor_seconds() - cpu
    rate = (
        f"  {answers / seconds:7.2f} answers/s  {1000 * cpu / answers:7.1f} ms of a processor each" if answers else ""
    )
    print(f"{name:24} {seconds:8.1f} s  {cpu:8.1f} s of a processor{rate}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=MODEL, help="a folder")
    options.add_argument("--dtype", default="float32")
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--new", type=int, default=64, help="tokens of an answer, at most")
    options.add_argument("--repeats", type=int, default=2)
    given = options.parse_args()
    prompts = [messages[:1] for messages in Procedural(size=given.prompts).load().messages]
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = (
            Learner(
                CausalLM(hub="", path=str(given.model), dtype=given.dtype, vllm=which),
                SFT(),
                Cache(Path(folder) / "cache"),
                seed=0,
            )
            for which in ("always", "never")
        )
        with row("vLLM: start"), theirs.snapshot().engine():
            pass
        with row("ours: start"):
            ours.model.eval()
        for _ in range(given.repeats):
            with row("vLLM", len(prompts)):
                by_vllm = theirs.generate(prompts, max_new_tokens=given.new)
            with row("ours", len(prompts)):
                plain = ours.generate(prompts, max_new_tokens=given.new)
        same = sum(one == other for one, other in zip(by_vllm, plain, strict=True))
        print(f"{same} of {len(prompts)} answers are the same ({given.dtype})")
        vllm.close()


if __name__ == "__main__":
    main()
