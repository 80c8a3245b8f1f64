"""Selectors over millions of vectors on disk: seconds, and memory beside the files that are mapped.

    python -m tests.bench.bench_million                                # every selector, 0.25 and 1 million
    python -m tests.bench.bench_million kcenter --sizes 4e6 10e6       # some, larger: 10 million take 8 GB of disk
    python -m tests.bench.bench_million --kind tight deita             # where most of the pool is near-copies
    python -m tests.bench.bench_million kinds                          # k-center, 52,000 points, beside the plain loop

Vectors are rows of length one around centres, float16, made once in --folder. Clusters are the centres' own, and
quality is drawn: what is measured is the choice alone. Each line is a process of its own; its memory is the highest
RssAnon of /proc/self/status, looked at every 20 ms: pages of mapped files, which the system takes back as it needs,
are not in it.

`kinds` compares with the loop that measures every point from every pick: by products in float32, which is the time
given, and term by term, whose choice must be the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from dsel.clusterer.base import Clustering
from dsel.selector import kcenter, kernels
from dsel.selector.deita import Deita
from dsel.selector.kcenter import KCenter
from dsel.selector.kmeans_closest import KMeansClosest
from dsel.selector.kmeans_dynamic import KMeansDynamic
from dsel.selector.kmeans_median import KMeansMedian
from dsel.selector.kmeans_uniform import KMeansUniform
from dsel.selector.kmq import KMQ
from dsel.selector.quality import Quality
from dsel.selector.random import Random
from dsel.selector.semdedup import SemDedup
from tests.bench.bench_selectors import measure, plain_kcenter
from tests.bench.measuring import measured

D = 384
BLOCK = 65_536
KINDS = {"loose": (400, 0.6), "diffuse": (400, 1.5), "tight": (1000, 0.3)}  # centres, noise around them

SELECTORS: dict[str, Callable[[Any, str], Any]] = {
    "random": lambda study, device: Random().select(study),
    "quality": lambda study, device: Quality().select(study),
    "kmq": lambda study, device: KMQ().select(study),
    "kmeans_uniform": lambda study, device: KMeansUniform().select(study),
    "kmeans_closest": lambda study, device: KMeansClosest().select(study),
    "kmeans_median": lambda study, device: KMeansMedian().select(study),
    "kmeans_dynamic": lambda study, device: KMeansDynamic().select(study),
    "deita": lambda study, device: Deita(device=device).select(study),
    "semdedup": lambda study, device: SemDedup(then=Random(), device=device).kept(study),
    "kcenter": lambda study, device: KCenter(device=device).select(study),
}


@dataclass
class Problem:
    """What of a `Study` these selectors read."""

    embeddings: np.ndarray
    clustering: Clustering
    quality: np.ndarray
    budget: int
    rng: np.random.Generator

    @property
    def pool(self) -> range:
        return range(len(self.embeddings))

    def quality_or_fail(self) -> np.ndarray:
        return self.quality


def rows(kind: str, n: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """(slice, vectors, clusters, distances from the centres) of a pool, block by block."""
    groups, noise = KINDS[kind]
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, D), dtype=np.float32)
    for lo in range(0, n, BLOCK):
        size = min(BLOCK, n - lo)
        labels = rng.integers(0, groups, size)
        step = np.float32(noise) * rng.standard_normal((size, D), dtype=np.float32)
        x = centres[labels] + step
        yield (
            slice(lo, lo + size),
            x / np.linalg.norm(x, axis=1, keepdims=True),
            labels,
            np.linalg.norm(step, axis=1),
        )


def made(folder: Path, kind: str, n: int) -> Path:
    """The folder of a pool of this kind and size, made if need be."""
    place = folder / f"{kind}-{n}"
    if not (place / "done").exists():
        place.mkdir(parents=True, exist_ok=True)
        open_ = np.lib.format.open_memmap
        vectors = open_(place / "vectors.npy", mode="w+", dtype=np.float16, shape=(n, D))
        labels = open_(place / "labels.npy", mode="w+", dtype=np.int64, shape=(n,))
        distances = open_(place / "distances.npy", mode="w+", dtype=np.float32, shape=(n,))
        for part, x, groups, far in rows(kind, n):
            vectors[part], labels[part], distances[part] = x, groups, far
        (place / "done").touch()
    return place


def problem(place: Path, kind: str, budget: int) -> Problem:
    groups, _ = KINDS[kind]
    centroids = np.random.default_rng(0).standard_normal((groups, D), dtype=np.float32)
    clustering = Clustering(np.load(place / "labels.npy"), centroids, np.load(place / "distances.npy"))
    quality = np.random.default_rng(1).random(len(clustering.labels), dtype=np.float32)
    embeddings = np.load(place / "vectors.npy", mmap_mode="r")
    return Problem(embeddings, clustering, quality, budget, np.random.default_rng(2))


def one(name: str, place: Path, kind: str, budget: int, device: str) -> dict[str, float]:
    """Seconds, CPU seconds and peak of anonymous memory of one choice, in a process that has compiled what it needs."""
    study = problem(place, kind, budget)
    small = Problem(
        study.embeddings[:3000],
        Clustering(study.clustering.labels[:3000], study.clustering.centroids, study.clustering.distances[:3000]),
        study.quality[:3000],
        600,
        np.random.default_rng(0),
    )
    SELECTORS[name](small, device)
    took = measured(lambda: SELECTORS[name](study, device))
    return {"seconds": took.seconds, "cpu": took.cpu_seconds, "before": took.before, "peak": took.peak}


@njit(fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def roughly(a: np.ndarray, b: np.ndarray) -> float:
    """A squared distance summed in float64, in any order."""
    total = 0.0
    for j in range(len(a)):
        total += (np.float64(a[j]) - np.float64(b[j])) ** 2
    return total


@njit  # type: ignore[untyped-decorator]
def loop(x: np.ndarray, budget: int) -> np.ndarray:
    """The plain loop, from point 0, with every distance summed term by term."""
    gap, chosen = np.full(len(x), np.inf, dtype=np.float32), np.zeros(budget, dtype=np.int64)
    for count in range(budget - 1):
        centre, farthest = chosen[count], 0
        for i in range(len(x)):
            if roughly(x[i], x[centre]) < gap[i] * 1.000001:
                gap[i] = min(gap[i], kernels.distance(x[i], x[centre]))
        gap[centre] = -1
        for i in range(1, len(x)):
            if gap[i] > gap[farthest]:
                farthest = i
        chosen[count + 1] = farthest
    return chosen


def kinds(n: int = 52_000, budget: int = 5_200) -> None:
    print(f"k-center, {n:,} x {D} float32, {budget:,} chosen")
    print(f"{'kind':10}{'s':>8}{'CPU s':>8}{'plain s':>9}{'CPU s':>8}{'ratio':>7}{'CPU':>7}   choice", flush=True)
    for kind in KINDS:
        x = np.concatenate([block for _, block, _, _ in rows(kind, n)])
        kcenter.farthest_first(x[:1000], 50)
        ours = measure(lambda x=x: kcenter.farthest_first(x, budget, start=0))
        plain = measure(lambda x=x: plain_kcenter(x, budget, 0))
        same = "the same" if np.array_equal(ours.result, loop(x, budget)) else "NOT the same"
        also = np.isin(ours.result, plain.result).mean()
        print(
            f"{kind:10}{ours.seconds:8.2f}{ours.cpu_seconds:8.2f}{plain.seconds:9.1f}{plain.cpu_seconds:8.1f}"
            f"{plain.seconds / ours.seconds:7.1f}{plain.cpu_seconds / ours.cpu_seconds:7.1f}   {same}; "
            f"{also:.2%} in that by products",
            flush=True,
        )


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SELECTORS)}; or kinds")
    parser.add_argument("--sizes", nargs="*", type=float, default=[0.25e6, 1e6])
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--kind", choices=KINDS, default="loose")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dsel-million")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.one:
        print(json.dumps(one(o.names[0], o.one, o.kind, o.budget, o.device)))
        return
    if o.names == ["kinds"]:
        kinds()
        return
    if unknown := set(o.names) - set(SELECTORS):
        parser.error(f"no selector called {', '.join(sorted(unknown))}: choose from {', '.join(SELECTORS)}")
    print(f"{o.kind}, {D} columns, float16 on disk, {o.budget:,} chosen, {o.device}")
    print(f"{'selector':16}{'examples':>12}{'s':>9}{'CPU s':>9}{'peak MB':>9}{'of them before':>16}")
    for size in map(int, o.sizes):
        place = made(o.folder, o.kind, size)
        for name in o.names or SELECTORS:
            command = [sys.executable, "-m", "tests.bench.bench_million", name, "--one", str(place)]
            more = ["--kind", o.kind, "--budget", str(o.budget), "--device", o.device]
            done = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True)
            r = json.loads(done.stdout.splitlines()[-1])
            memory = f"{r['peak'] / 2**20:9.0f}{r['before'] / 2**20:16.0f}"
            print(f"{name:16}{size:12,}{r['seconds']:9.2f}{r['cpu']:9.2f}{memory}", flush=True)


if __name__ == "__main__":
    main()
