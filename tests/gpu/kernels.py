"""The kernels that cluster and choose: the same choice as on the processor, and how fast where there is much.

Operations are those of the matrix products that torch was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any
from unittest.mock import patch

import numpy as np

from dsel.clusterer import kmeans
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.selector import coverage, facility_location, kcenter, qdit
from tests.gpu.checking import Check, Machine, Row, need

Floats = Any
Choose = Callable[[Floats, int, str], np.ndarray]
"""(points, budget, device) → what is chosen."""


@lru_cache(maxsize=1)
def points(n: int, d: int, seed: int = 0) -> Floats:
    """Vectors like embeddings: groups of different sizes, and spread that falls from axis to axis. float32[n, d]."""
    rng = np.random.default_rng(seed)
    spread = np.arange(1, d + 1, dtype=np.float32) ** -0.5
    centres = rng.normal(size=(max(2, n // 200), d)).astype(np.float32) * spread
    x = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 2**16):
        part = x[start : start + 2**16]
        own = (rng.power(0.5, len(part)) * len(centres)).astype(int)
        part[:] = centres[own] + 0.5 * spread * rng.standard_normal(part.shape, dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def counted(machine: Machine, work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `work` gives, its seconds, and its share of the peak, of float32 or of halves: by the products asked for.

    torch's own counter looks at all that is asked for, which takes longer than many small kernels do.
    """
    import torch

    peak, ideal = machine.peak, 0.0  # seconds of these products at the peak

    def counting(method: Any, at: int) -> Any:
        def product(*args: Any, **more: Any) -> Any:
            nonlocal ideal
            a, b = args[at : at + 2]
            rate = peak.bfloat16 if a.dtype == torch.float16 else peak.float32
            ideal += 2.0 * a.numel() * (b.shape[-1] if b.ndim > 1 else 1) / rate
            return method(*args, **more)

        return product

    with ExitStack() as patches:
        for of, name, at in ((torch.Tensor, "__matmul__", 0), (torch.Tensor, "addmm_", 1), (torch, "addmm", 1)):
            patches.enter_context(patch.object(of, name, counting(getattr(of, name), at)))
        result, seconds = machine.timed(work)
    return result, seconds, ideal / seconds


def clusters(machine: Machine) -> Iterator[Row]:
    import torch

    sizes, where = machine.sizes, torch.device(machine.device)
    few, k = points(sizes.few, sizes.dimensions), max(2, sizes.clusters // 8)
    options: dict[str, Any] = {"niter": 20, "nredo": 1}
    here, there = (kmeans.fit(few, k, **options, device=device) for device in (None, where))
    same = 100 * float(np.mean(here[0] == there[0]))
    yield Row(f"{len(few):,} points, k={k}: labels against the processor's", same, "% the same")
    ratio = float(there[2].sum() / here[2].sum())
    if abs(ratio - 1) > 0.01:
        raise ValueError(f"the inertia is {ratio:.4f} of the processor's")
    x = points(sizes.points, sizes.dimensions)
    _, seconds, share = counted(machine, lambda: kmeans.fit(x, sizes.clusters, **options, device=where))
    what = f"{len(x):,} × {x.shape[1]}, k={sizes.clusters}, one start of up to 20 iterations"
    yield Row(what, seconds, "s", share)


def by_faiss(machine: Machine) -> Iterator[Row]:
    import faiss

    there = getattr(faiss, "get_num_gpus", lambda: 0)()
    need(there > 0 or not machine.cuda, "faiss sees no GPU: faiss-gpu is not installed (dsel[faiss-gpu])")
    sizes = machine.sizes
    x, options = points(sizes.points // 4, sizes.dimensions), {"k": sizes.clusters, "niter": 20, "nredo": 1, "tol": 0}
    found, seconds = machine.timed(lambda: FaissKMeans(backend="faiss", **options).cluster(x))
    done = 2.0 * len(x) * sizes.clusters * x.shape[1] * 21
    what = f"{len(x):,} × {x.shape[1]}, k={sizes.clusters}, 20 iterations, {there} GPUs"
    yield Row(what, seconds, "s", done / seconds / machine.peak.float32 / max(1, there))
    ours = FaissKMeans(backend="exact", device=machine.device if machine.cuda else "cpu", **options).cluster(x)
    yield Row("its inertia, of our own kernel's", found.inertia / ours.inertia, "times")


def chosen(machine: Machine, choose: Choose, n: int, budget: int) -> Iterator[Row]:
    """The same choice as on the processor, then that of many points: of as many as the time allows."""
    sizes = machine.sizes
    few = points(sizes.few, sizes.dimensions)
    asked = max(2, len(few) // 20)
    here = choose(few, asked, "cpu")
    with by_torch(machine):
        there = choose(few, asked, machine.device)
    same = 100 * float(np.mean(here == there))
    yield Row(f"{asked:,} of {len(few):,}: the choice against the processor's", same, "% the same")
    if same < 100 and set(here.tolist()) != set(there.tolist()):
        at = int(np.flatnonzero(here != there)[0])
        raise ValueError(f"pick {at + 1} is {there[at]}, and {here[at]} on the processor")
    while True:
        x = points(n, sizes.dimensions)
        start = time.perf_counter()
        with by_torch(machine):
            _, seconds, share = counted(machine, partial(choose, x, budget, machine.device))
        yield Row(f"{budget:,} of {n:,} × {x.shape[1]}", seconds, "s", share)
        growth = sizes.points / n
        if growth <= 1 or (time.perf_counter() - start) * growth**2 > sizes.seconds:
            return
        n = sizes.points


@contextmanager
def by_torch(machine: Machine) -> Iterator[None]:
    """Inside, selectors compute with torch, also on a processor, where they would not."""
    import torch

    if machine.cuda:
        yield
        return
    with ExitStack() as patches:
        for module in (kcenter, coverage):
            patches.enter_context(patch.object(module, "torch_device", lambda name: torch.device(name)))
        yield


def centres(machine: Machine) -> Iterator[Row]:
    def choose(x: Floats, budget: int, device: str) -> np.ndarray:
        return kcenter.farthest_first(x, budget, start=0, device=device)

    sizes = machine.sizes
    yield from chosen(machine, choose, sizes.points, max(2, sizes.points // 1000))


def facilities(machine: Machine) -> Iterator[Row]:
    def choose(x: Floats, budget: int, device: str) -> np.ndarray:
        return facility_location.greedy(x, budget, device=device)

    sizes = machine.sizes
    yield from chosen(machine, choose, sizes.pairs, max(2, sizes.pairs // 100))


def quality(machine: Machine) -> Iterator[Row]:
    def choose(x: Floats, budget: int, device: str) -> np.ndarray:
        scores = np.random.default_rng(1).random(len(x))
        return qdit.greedy(x, scores, budget, device=device)

    sizes = machine.sizes
    yield from chosen(machine, choose, sizes.pairs, max(2, sizes.pairs // 100))


CHECKS: dict[str, Check] = {
    "kmeans": clusters,
    "faiss": by_faiss,
    "kcenter": centres,
    "facility": facilities,
    "qdit": quality,
}
