"""Runs that choose for targets, killed in the middle of each of their stages, and launched again: they choose the same.

    python -m tests.bench.bench_targets_kills                                   # 300 examples of P3, 8 of GSM8K, tiny
    python -m tests.bench.bench_targets_kills less --n 2000 --targets 24 --budget 96 --model smollm2_135m model.path=…

Each method runs once in peace. Once more, with a cache of its own, it gets SIGKILL in the middle of each stage that it
has beside those of a pool: of LESS the warm-up (when it has a checkpoint), the gradients of half of the pool, and of
half of the targets; of RDS+ the vectors of half of the pool, and those of the targets, when they are begun. Launched
once more it has to choose what the first did, byte for byte. TSDS chooses from the same vectors.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.bench.bench_kills import finished, killed
from tests.conftest import ROOT, SHARED

LESS = [
    "selector=less", "selector.checkpoints=2", "selector.warmup=0.1", "selector.dimensions=512", "selector.memory=0.02",
    "trainer=lora", "trainer.lora.rank=4", "trainer.batch_size=8", "trainer.epochs=1",
    "trainer.checkpoint_minutes=1e-4",
]  # fmt: skip
RDS = ["embedder=rds", "trainer=none"]
METHODS = {"less": LESS, "rds": [*RDS, "selector=nearest"], "tsds": [*RDS, "selector=tsds"]}


def warming_up(cache: Path, _: int) -> bool:
    """Whether a training has left a checkpoint."""
    return any(cache.glob("fits/*.partial/checkpoints/checkpoint-*"))


def half(kind: str) -> Callable[[Path, int], bool]:
    """What says whether there are results of half of some rows, or of nearly all where a shard has more."""

    def reached(cache: Path, rows: int) -> bool:
        for journal in cache.glob(f"{kind}/*.partial/shard-*.jsonl"):
            whole = next(journal.parent.glob("*.npy"), None)
            spans = re.findall(r'"shard": "[^"]*?(\d+)-(\d+)[^"]*"', journal.read_text())
            done = sum(int(end) - int(start) for start, end in spans)
            if whole is not None and done >= rows / 2 and len(np.load(whole, mmap_mode="r")) == rows:
                return True
        return False

    return reached


def begun(kind: str, others: int) -> Callable[[Path, int], bool]:
    """What says whether an artifact of a kind is being made when so many others are there."""

    def reached(cache: Path, _: int) -> bool:
        there = [folder for folder in cache.glob(f"{kind}/*/") if not folder.name.endswith(".partial")]
        return len(there) >= others and any(cache.glob(f"{kind}/*.partial"))

    return reached


def stages(n: int, targets: int) -> dict[str, list[tuple[str, Callable[[Path, int], bool], int]]]:
    """Where each method is killed, in order: a name, and what says that it is there of a cache and how many rows."""
    return {
        "less": [
            ("the warm-up", warming_up, n),
            ("the gradients of the pool", half("gradients"), n),
            ("the gradients of the targets", half("gradients"), targets),
        ],
        "rds": [
            ("the vectors of the pool", half("embeddings"), n),
            ("the vectors of the targets", begun("embeddings", 1), targets),
        ],
        "tsds": [("the vectors of the pool", half("embeddings"), n)],
    }


def launch(given: argparse.Namespace, method: str, folder: Path) -> subprocess.Popen[bytes]:
    small = ["model.steps=40", "model.hidden=64", "model.layers=1"] if given.model == "tiny" else []
    command = [
        sys.executable, "-m", "dsel.run", "-q", "data=local", f"data.path={given.path}", f"data.sample={given.n}",
        "targets=local", f"targets.path={given.wanted}", f"targets.limit={given.targets}", f"model={given.model}",
        "evaluator=none", "tracker=none", f"budget={given.budget}", f"cache={folder / 'cache'}",
        f"runs={folder / 'runs'}", *METHODS[method], *small, *given.more,
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL)


def chosen(folder: Path) -> bytes:
    """The selection of the one finished run."""
    (selection,) = folder.glob("runs/*/selection.parquet")
    return selection.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"{', '.join(METHODS)} (all); and options, selector.checkpoints=4 …")
    parser.add_argument("--path", type=Path, default=SHARED / "data" / "p3_55k.parquet")
    parser.add_argument("--wanted", type=Path, default=SHARED / "data" / "gsm8k_train.jsonl")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--budget", type=int, default=30)
    parser.add_argument("--model", default="tiny")
    given = parser.parse_intermixed_args()
    given.more = [word for word in given.methods if "=" in word]
    methods = [word for word in given.methods if "=" not in word] or list(METHODS)
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            calm, harmed = Path(folder) / method / "calm", Path(folder) / method / "harmed"
            print(f"{method}, in peace: {finished(launch(given, method, calm)):.0f} s", flush=True)
            for stage, reached, rows in stages(given.n, given.targets)[method]:
                start = time.perf_counter()
                killed(launch(given, method, harmed), partial(reached, harmed / "cache", rows))
                print(f"  killed in {stage} after {time.perf_counter() - start:.0f} s", flush=True)
            print(f"  and ended: {finished(launch(given, method, harmed)):.0f} s", flush=True)
            if chosen(calm) != chosen(harmed):
                raise SystemExit(f"{method} has not ended the same")
            print("  the same selection", flush=True)


if __name__ == "__main__":
    main()
