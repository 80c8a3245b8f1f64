"""k-means of pools of up to ten million rows: seconds, memory, and what a sample costs.

    python -m tests.bench.bench_kmeans                            # 0.25, 1, 4 and 10 million rows, made where TMPDIR is
    python -m tests.bench.bench_kmeans 1e6 --dtype float32 --data diffuse

Rows are written block by block to a file and mapped. Memory is the peak of the process's anonymous resident set
(RssAnon of /proc/self/status, looked at every 20 ms): what the kernels hold, without the page cache of the mapped file.
With at most `--whole` rows, the inertia of a training on a quarter of them (k smaller, `--sample` rows a cluster as
before) is compared with that of a training on all.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.clusterer.base import Clustering
from dsel.clusterer.faiss_kmeans import FaissKMeans
from tests.bench.measuring import measured

KINDS = {"groups": (400, 0.6), "diffuse": (400, 1.5), "tight": (1000, 0.3), "decaying": (300, 0.0)}
BLOCK = 50_000


def made(path: Path, n: int, d: int, kind: str, dtype: str) -> npt.NDArray[Any]:
    """Rows of length one in a file: about centres (their number, and the noise), or of a decaying spectrum as
    embeddings have it, which takes k-means most iterations."""
    rng = np.random.default_rng(0)
    count, noise = KINDS[kind]
    spread = np.arange(1, d + 1, dtype=np.float32) ** (-0.5 if kind == "decaying" else 0)
    centres = rng.standard_normal((count, d), dtype=np.float32) * spread * np.float32(1 if noise else 0.8)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n, d))
    for lo in range(0, n, BLOCK):
        size = min(BLOCK, n - lo)
        rows = rng.standard_normal((size, d), dtype=np.float32) * spread * np.float32(noise or 1)
        rows += centres[rng.integers(0, count, size)]
        x[lo : lo + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    x.flush()
    del x
    return np.load(path, mmap_mode="r")


def measure(work: Callable[[], Clustering]) -> tuple[Clustering, dict[str, float]]:
    """What `work` finds, its wall and CPU seconds, and the peak of anonymous memory: in all, and above that before."""
    took = measured(work)
    return took.result, {
        "seconds": took.seconds,
        "cpu_seconds": took.cpu_seconds,
        "peak_gb": took.peak / 2**30,
        "above_gb": (took.peak - took.before) / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", nargs="*", type=float, default=[250_000, 1e6, 4e6, 1e7])
    parser.add_argument("--d", type=int, default=384)
    parser.add_argument("--k", type=int, default=1024)
    parser.add_argument("--nredo", type=int, default=5)
    parser.add_argument("--sample", type=int, default=256, help="rows for each cluster")
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--data", default="decaying", choices=tuple(KINDS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--spherical", action="store_true")
    parser.add_argument("--whole", type=float, default=250_000, help="train on all of so many rows as well")
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    results = []
    for n in map(int, o.n):
        with tempfile.TemporaryDirectory() as folder:
            row = bench(made(Path(folder) / "x.npy", n, o.d, o.data, o.dtype), o)
        results.append(row)
        logging.info("%s", ", ".join(f"{name} {value:.5g}" for name, value in row.items()))
        if o.json:
            o.json.write_text(json.dumps({"options": {**vars(o), "json": None}, "rows": results}, indent=1))


def bench(x: npt.NDArray[Any], o: argparse.Namespace) -> dict[str, float]:
    options = {"nredo": o.nredo, "backend": "exact", "device": o.device, "spherical": o.spherical}
    clusterer = FaissKMeans(k=o.k, sample_per_cluster=o.sample, **options)
    found, facts = measure(partial(clusterer.cluster, x))
    row = {"n": len(x), "k": o.k, **facts, "inertia": found.inertia}
    if len(x) <= o.whole:
        few = replace(clusterer, k=len(x) // (4 * o.sample))
        part, whole = (measure(partial(each.cluster, x)) for each in (few, replace(few, sample_per_cluster=None)))
        row |= {"quarter_k": few.k, "quarter_cpu": part[1]["cpu_seconds"], "whole_cpu": whole[1]["cpu_seconds"]}
        row["quarter_excess_percent"] = 100 * (part[0].inertia / whole[0].inertia - 1)
    return row


if __name__ == "__main__":
    main()
