"""What choosing for targets takes of a large pool, by vectors: RDS+'s round robin and TSDS.

    python -m tests.bench.bench_targets                          # a million vectors, 500 targets, a budget of 10,000
    python -m tests.bench.bench_targets --vectors embeddings.npy # rows of a file instead of a mixture, drawn with noise

The pool is a file of float32 vectors of length one, memory-mapped, as a study has it. Seconds are of the choosing
alone; memory is what the process holds that no file does, at its most and before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dsel.retrieval import cosines
from dsel.selector import nearest, tsds
from dsel.targets.base import Target
from tests.bench.measuring import measured
from tests.conftest import make_pool

BLOCK = 2**16
CENTRES = 2000


def drawn(rng: np.random.Generator, n: int, d: int, vectors: Path | None) -> np.ndarray:
    """float32[n, d] of length one: around centres of unequal weight, or around rows of a file."""
    if vectors is None:
        centres = np.random.default_rng(7).normal(size=(CENTRES, d)).astype(np.float32)
        share = 1 / np.arange(1, CENTRES + 1) ** 0.7
        rows, noise = centres[rng.choice(CENTRES, n, p=share / share.sum())], 0.8
    else:
        rows, noise = np.load(vectors, mmap_mode="r"), 0.3
        rows = rows[np.sort(rng.integers(len(rows), size=n))] * np.float32(d**0.5)
    found = rows + np.float32(noise) * rng.standard_normal((n, d), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("methods", nargs="*", help="rds, rds-tasks, tsds, tsds-uniform, tsds-ivf (all)")
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--targets", type=int, default=500)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--vectors", type=Path, help="an NPY file")
    o = parser.parse_args()
    rng = np.random.default_rng(0)
    d = o.dimensions if o.vectors is None else np.load(o.vectors, mmap_mode="r").shape[1]
    wanted = drawn(rng, o.targets, d, o.vectors)
    pool = make_pool(o.targets)

    def rds(target: Target) -> Any:
        return nearest.choose(
            lambda: cosines(x, wanted), target, len(x), o.budget, rule="round_robin", on_taken="skip"
        )[0]

    def transported(**options: Any) -> Any:
        found = tsds.probabilities(x, wanted, **options)
        return tsds.draw(*found, o.budget, np.random.default_rng(0)), np.count_nonzero(found[0])

    one = Target(pool, ["all"] * o.targets, ["all"] * o.targets)
    methods: dict[str, Callable[[], Any]] = {
        "rds": lambda: rds(one),
        "rds-tasks": lambda: rds(Target(pool, [str(i % 5) for i in range(o.targets)], ["all"] * o.targets)),
        "tsds": transported,
        "tsds-uniform": lambda: transported(sigma=0.0),
        "tsds-ivf": lambda: transported(neighbours="ivf"),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pool.npy")
        whole = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(o.n, d))
        for start in range(0, o.n, BLOCK):
            whole[start : start + BLOCK] = drawn(rng, min(BLOCK, o.n - start), d, o.vectors)
        del whole
        x = np.load(file, mmap_mode="r")
        print(f"{'method':14}{'s':>8}{'CPU s':>8}{'MB':>8}{'before':>8}   chosen")
        for name in o.methods or methods:
            found = measured(methods[name])
            chosen, *more = found.result if isinstance(found.result, tuple) else (found.result,)
            distinct = len(np.unique(chosen))
            line = (
                f"{name:14}{found.seconds:8.1f}{found.cpu_seconds:8.1f}{found.peak / 1e6:8.0f}{found.before / 1e6:8.0f}"
            )
            print(line + f"   {distinct}" + "".join(f", of {count} with a probability" for count in more))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
