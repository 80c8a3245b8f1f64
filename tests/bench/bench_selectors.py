"""Our selection functions and clustering kernels against plain references, in one process.

    python -m tests.bench.bench_selectors --embeddings pool.npy          # all of it, at the size of the pool
    python -m tests.bench.bench_selectors kcenter silhouette --n 20000   # some of it, on made-up groups

Each reference is written from the definition, with BLAS where a competent person would use it. Memory is the
peak of the process above what it held when the function was called, the embeddings not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dsel.clusterer import kmeans, silhouette
from dsel.selector import deita, facility_location, kcenter, qdit, sampling
from tests.bench.measuring import measured


@dataclass
class Run:
    seconds: float
    cpu_seconds: float
    peak_mb: float
    result: Any


@dataclass
class Row:
    work: str
    seconds: float
    peak_mb: float
    reference: str
    reference_seconds: float
    reference_mb: float
    agreement: str


def measure(function: Callable[[], Any]) -> Run:
    """One call: wall and CPU seconds, and the peak of resident memory, looked at every five milliseconds."""
    process = psutil.Process()
    took = measured(function, lambda: process.memory_info().rss, every=0.005)
    return Run(took.seconds, took.cpu_seconds, (took.peak - took.before) / 2**20, took.result)


def row(work: str, ours: Run, reference: str, theirs: Run, agreement: str) -> Row:
    return Row(work, ours.seconds, ours.peak_mb, reference, theirs.seconds, theirs.peak_mb, agreement)


def same(ours: np.ndarray, theirs: np.ndarray) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} chosen against {len(theirs)}"
    return f"{(ours == theirs).mean():.2%} in place, {np.isin(ours, theirs).mean():.2%} as a set"


def plain_kcenter(x: np.ndarray, budget: int, start: int) -> np.ndarray:
    squares = np.einsum("nd,nd->n", x, x)
    gap, chosen = np.full(len(x), np.inf, dtype=np.float32), [start]
    while len(chosen) < budget:
        i = chosen[-1]
        np.minimum(gap, squares + squares[i] - 2 * (x @ x[i]), out=gap)
        gap[i] = -1
        chosen.append(int(gap.argmax()))
    return np.array(chosen)


def bench_kcenter(x: np.ndarray, o: argparse.Namespace) -> Iterator[Row]:
    budget = min(o.budget, len(x))
    kcenter.farthest_first(x[:1000], 5)  # compiled before the clock starts
    theirs = measure(lambda: plain_kcenter(x, budget, 0))
    ours = measure(lambda: kcenter.farthest_first(x, budget, start=0))
    yield row(f"k-center, budget {budget}", ours, "one product per pick", theirs,
              same(ours.result, theirs.result))  # fmt: skip


def plain_greedy(x: np.ndarray, bonus: np.ndarray, weight: float, budget: int) -> np.ndarray:
    """Every gain anew for every pick, from the whole n x n matrix in float64; ties as ours."""
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarities = np.minimum(unit @ unit.T, 1)
    best, chosen, gains = np.full(len(x), -1.0), [], np.empty(len(x))
    for _ in range(budget):
        for lo in range(0, len(x), 256):
            over = similarities[lo : lo + 256] - best
            gains[lo : lo + 256] = np.maximum(over, 0, out=over).sum(axis=1)
        values = np.round(weight * gains + bonus, 9)
        values[chosen] = -np.inf
        chosen.append(int(values.argmax()))
        best = np.maximum(best, similarities[chosen[-1]])
    return np.array(chosen)


def one_plain_pick(x: np.ndarray) -> None:
    """What one pick costs without the matrix: all similarities, computed in blocks and compared."""
    best = np.zeros(len(x), dtype=np.float32)
    for lo in range(0, len(x), 1024):
        over = x[lo : lo + 1024] @ x.T
        over -= best
        np.maximum(over, 0, out=over).sum(axis=1)


def bench_greedy(x: np.ndarray, o: argparse.Namespace) -> Iterator[Row]:
    small, budget = x[: o.check], min(o.greedy_budget, len(x))
    quality = np.random.default_rng(0).random(len(x))
    few = max(1, len(small) // 20)
    for name, weight, bonus, greedy in (
        ("facility location", 1.0, 0 * quality, lambda x, b: facility_location.greedy(x, b)),
        ("QDIT", 0.5, 0.5 * quality, lambda x, b: qdit.greedy(x, quality[: len(x)], b)),
    ):
        theirs = measure(lambda w=weight, q=bonus: plain_greedy(small, q[: len(small)], w, few))
        ours = measure(lambda greedy=greedy: greedy(small, few))
        yield row(f"{name}, {len(small)} points, budget {few}", ours, "every gain, every pick", theirs,
                  same(ours.result, theirs.result))  # fmt: skip
    pick = measure(lambda: one_plain_pick(x))
    pick.seconds *= budget
    for name, function in (
        ("facility location", lambda: facility_location.greedy(x, budget)),
        ("QDIT", lambda: qdit.greedy(x, quality, budget)),
    ):
        yield row(f"{name}, budget {budget}", measure(function), f"{budget} x one plain pick", pick, "-")


def plain_deita(x: np.ndarray, quality: np.ndarray, budget: int, threshold: float) -> np.ndarray:
    kept, kept_x = [], np.empty((budget, x.shape[1]), dtype=np.float32)
    for i in np.argsort(-quality, kind="stable"):
        if not kept or (kept_x[: len(kept)] @ x[i]).max() <= threshold:
            kept_x[len(kept)] = x[i]
            kept.append(i)
            if len(kept) == budget:
                break
    return np.array(kept)


def faiss_deita(x: np.ndarray, quality: np.ndarray, budget: int, threshold: float) -> np.ndarray:
    import faiss

    kept, index = [], faiss.IndexFlatIP(x.shape[1])
    for i in np.argsort(-quality, kind="stable"):
        if not kept or index.search(x[i : i + 1], 1)[0][0, 0] <= threshold:
            index.add(x[i : i + 1])
            kept.append(i)
            if len(kept) == budget:
                break
    return np.array(kept)


def bench_deita(x: np.ndarray, o: argparse.Namespace) -> Iterator[Row]:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    quality, budget = np.random.default_rng(0).random(len(x)), min(o.budget, len(x))
    for threshold in (0.9, 0.5):
        ours = measure(lambda t=threshold: deita.filter_ranked(x, quality, budget, threshold=t))
        for name, plain in (("growing array", plain_deita), ("growing faiss index", faiss_deita)):
            theirs = measure(lambda t=threshold, plain=plain: plain(unit, quality, budget, t))
            yield row(f"Deita filter at {threshold}, {len(ours.result)} kept", ours, name, theirs,
                      same(ours.result, theirs.result))  # fmt: skip


def faiss_kmeans(x: np.ndarray, k: int, niter: int, nredo: int) -> float:
    import faiss

    model = faiss.Kmeans(x.shape[1], k, niter=niter, nredo=nredo, seed=42, max_points_per_centroid=len(x))
    model.train(x)
    return float(model.index.search(x, 1)[0].sum(dtype=np.float64))


def bench_kmeans(x: np.ndarray, o: argparse.Namespace) -> Iterator[Row]:
    ours = measure(lambda: kmeans.fit(x, o.k)[2].sum(dtype=np.float64))
    theirs = measure(lambda: faiss_kmeans(x, o.k, o.faiss_niter, o.faiss_nredo))
    yield row(f"k-means, k {o.k}", ours, f"faiss, niter {o.faiss_niter}, nredo {o.faiss_nredo}", theirs,
              f"inertia {ours.result / theirs.result - 1:+.2%}")  # fmt: skip


def bench_silhouette(x: np.ndarray, o: argparse.Namespace) -> Iterator[Row]:
    from sklearn.metrics import silhouette_samples

    labels, centroids, _ = kmeans.fit(x, o.k, nredo=1)
    ours = measure(lambda: silhouette.silhouette(x, labels))
    theirs = measure(lambda: silhouette_samples(x, labels))
    difference = np.abs(ours.result - theirs.result).max()
    yield row(f"silhouette, k {o.k}", ours, "scikit-learn", theirs, f"max difference {difference:.1e}")
    few = measure(lambda: silhouette.simplified(x, labels, centroids))
    correlation = np.corrcoef(few.result, ours.result)[0, 1]
    yield row(f"simplified silhouette, k {o.k}", few, "scikit-learn, exact form", theirs,
              f"correlation {correlation:.3f} with the exact form")  # fmt: skip


def plain_kmq(labels: np.ndarray, quality: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster by cluster, with numpy's own weighted draws without replacement."""
    quotas = sampling.allocate(budget, np.bincount(labels), np.bincount(labels))
    chosen = []
    for cluster, quota in enumerate(quotas):
        members = np.flatnonzero(labels == cluster)
        p = np.exp(quality[members] - quality[members].max())
        chosen.append(rng.choice(members, quota, replace=False, p=p / p.sum()))
    return np.concatenate(chosen)


def bench_kmq(x: np.ndarray, o: argparse.Namespace) -> Iterator[Row]:
    n, k, rng = o.kmq_n, o.kmq_k, np.random.default_rng(0)
    labels, quality = rng.integers(0, k, n), rng.standard_normal(n)
    theirs = measure(lambda: plain_kmq(labels, quality, n // 20, np.random.default_rng(0)))
    ours = measure(lambda: sampling.sample(labels, quality, n // 20, np.random.default_rng(0)))
    equal = np.array_equal(np.bincount(labels[ours.result]), np.bincount(labels[theirs.result]))
    means = f"mean quality {quality[ours.result].mean():.3f}, {quality[theirs.result].mean():.3f}"
    yield row(f"kMQ, {n} examples, k {k}", ours, "a loop over clusters", theirs,
              f"{'same' if equal else 'other'} shares, {means}")  # fmt: skip


BENCHES = {
    "kcenter": bench_kcenter,
    "greedy": bench_greedy,
    "deita": bench_deita,
    "kmeans": bench_kmeans,
    "silhouette": bench_silhouette,
    "kmq": bench_kmq,
}


def made_up(n: int, d: int) -> np.ndarray:
    """Unit rows in groups of uneven size whose directions fade like those of a sentence encoder."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, d + 1) ** -0.3
    groups = rng.standard_normal((300, d)) * scale
    x = groups[(300 * rng.random(n) ** 2).astype(int)] + 0.9 * rng.standard_normal((n, d)) * scale
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("benches", nargs="*", metavar="bench", help=f"which of {', '.join(BENCHES)} (all)")
    parser.add_argument("--embeddings", type=Path, help="an .npy file, float32[n, d] (made up)")
    parser.add_argument("--n", type=int, default=None, help="rows to use (all; 55185 when made up)")
    parser.add_argument("--d", type=int, default=384, help="columns of made-up embeddings")
    parser.add_argument("--budget", type=int, default=5500, help="of k-center and Deita")
    parser.add_argument("--greedy-budget", type=int, default=2750, help="of facility location and QDIT")
    parser.add_argument("--check", type=int, default=5000, help="rows on which the plain greedy runs too")
    parser.add_argument("--k", type=int, default=1024, help="clusters")
    parser.add_argument("--faiss-niter", type=int, default=300)
    parser.add_argument("--faiss-nredo", type=int, default=5)
    parser.add_argument("--kmq-n", type=int, default=1_000_000)
    parser.add_argument("--kmq-k", type=int, default=4096)
    parser.add_argument("--json", type=Path, help="also append the rows to this file, one object a line")
    o = parser.parse_args()
    if unknown := set(o.benches) - set(BENCHES):
        parser.error(f"no bench called {', '.join(sorted(unknown))}: choose from {', '.join(BENCHES)}")
    x = np.load(o.embeddings)[: o.n] if o.embeddings else made_up(o.n or 55_185, o.d)
    print(f"{x.shape[0]} x {x.shape[1]} embeddings, {x.nbytes / 2**20:.0f} MB, {psutil.cpu_count()} cores")
    head = f"{'work':38}{'s':>8}{'MB':>7}   {'reference':30}{'s':>9}{'MB':>7}{'ratio':>8}   agreement"
    print(head + "\n" + "-" * len(head))
    for name in o.benches or BENCHES:
        for r in BENCHES[name](x, o):
            print(
                f"{r.work:38}{r.seconds:8.2f}{r.peak_mb:7.0f}   {r.reference:30}{r.reference_seconds:9.2f}"
                f"{r.reference_mb:7.0f}{r.reference_seconds / r.seconds:8.1f}   {r.agreement}"
            )
            sys.stdout.flush()
            if o.json:
                with o.json.open("a") as file:
                    file.write(json.dumps(asdict(r)) + "\n")


if __name__ == "__main__":
    main()
