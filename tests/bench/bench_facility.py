"""Facility location: the exact greedy, the one on a graph, and other packages' where they can be imported.

    python -m tests.bench.bench_facility                                   # all of it
    python -m tests.bench.bench_facility exact --embeddings pool.npy       # some of it, on one's own vectors
    python -m tests.bench.bench_facility others --python venv/bin/python   # apricot-select and submodlib-py are there
    python -m tests.bench.bench_facility million --n 1000000 --k 50        # made once in --folder: 0.8 GB of float16

exact: seconds beside those of one pass over all products, which each pick of a plain greedy takes; with --plain, beside
the plain greedy's choice on the first so many rows. others: they are given the similarities, whose computation counts,
shifted by one as apricot wants no negative ones; ours and theirs by turns, the best of --rounds. graph: seconds, and
the value of what it chooses beside the exact choice's and a random one's. Memory is the highest RssAnon of
/proc/self/status above what it was before, looked at every 20 ms: pages of mapped files are not in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dsel.arrays import unit_rows
from dsel.selector import facility_location, neighbours, qdit
from tests.bench.bench_selectors import made_up, plain_greedy, same
from tests.bench.measuring import measured

T = TypeVar("T")

THEIRS = """
import json, sys, time
import numpy as np
path, budget, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
x = np.load(path)
if name == "apricot":
    from apricot import FacilityLocationSelection
else:
    import submodlib
start, cpu = time.perf_counter(), time.process_time()
s = 1 + x @ x.T
if name == "apricot":
    chosen = FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy").fit(s).ranking
else:
    function = submodlib.FacilityLocationFunction(n=len(x), mode="dense", sijs=s, separate_rep=False)
    chosen = [i for i, _ in function.maximize(budget=budget, optimizer="LazyGreedy", show_progress=False)]
print(json.dumps([time.perf_counter() - start, time.process_time() - cpu, [int(i) for i in chosen]]))
"""


def timed(what: str, function: Callable[[], T]) -> tuple[T, float]:
    """One call: says its seconds, CPU seconds and memory, and returns its result and its seconds."""
    took = measured(function)
    seconds, cpu, memory = took.seconds, took.cpu_seconds, (took.peak - took.before) / 2**20
    print(f"{what:52}{seconds:8.2f} s{cpu:9.2f} s CPU{memory:8.0f} MB")
    sys.stdout.flush()
    return took.result, seconds


def one_pass(x: np.ndarray) -> None:
    for lo in range(0, len(x), 1024):
        np.maximum(x[lo : lo + 1024] @ x.T, 0).sum(axis=1)


def value(x: np.ndarray, chosen: np.ndarray) -> float:
    """d of the definition, of unit rows."""
    best = (np.asarray(x[lo : lo + 2048]) @ x[chosen].T for lo in range(0, len(x), 2048))
    return float(sum(block.max(axis=1).sum(dtype=np.float64) for block in best))


def exact(x: np.ndarray, o: argparse.Namespace) -> np.ndarray:
    name = f"{len(x)} x {x.shape[1]}, budget {o.budget}"
    _, once = timed("one pass over all products", lambda: one_pass(x))
    chosen, seconds = timed(
        f"facility location, {name}", lambda: facility_location.greedy(x, o.budget, device=o.device)
    )
    print(f"{'':52}{seconds / once:8.2f} passes")
    quality = np.random.default_rng(0).random(len(x))
    timed(f"QDIT, {name}", lambda: qdit.greedy(x, quality, o.budget, device=o.device))
    if o.plain:
        few, budget = x[: o.plain], max(1, o.plain // 20)
        ours = facility_location.greedy(few, budget, device=o.device)
        print(f"beside the plain greedy on {o.plain}: {same(ours, plain_greedy(few, np.zeros(len(few)), 1.0, budget))}")
    return chosen


def others(x: np.ndarray, o: argparse.Namespace) -> None:
    x = unit_rows(x[: o.small])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        np.save(path, x)
        best: dict[str, float] = {}
        for _ in range(o.rounds):
            ours, seconds = timed(f"ours, {len(x)}, budget {o.small_budget}",
                                     lambda: facility_location.greedy(x, o.small_budget))  # fmt: skip
            best["ours"] = min(seconds, best.get("ours", np.inf))
            for name in ("apricot", "submodlib"):
                command = [o.python, "-c", THEIRS, str(path), str(o.small_budget), name]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                    continue
                seconds, cpu, chosen = json.loads(done.stdout.splitlines()[-1])
                print(f"{name:52}{seconds:8.2f} s{cpu:9.2f} s CPU   {same(ours, np.array(chosen))}")
                best[name] = min(seconds, best.get(name, np.inf))
    for name, seconds in best.items():
        print(f"{name:20} best {seconds:6.2f} s, {seconds / best['ours']:.1f} x ours")


def graph(x: np.ndarray, o: argparse.Namespace, wanted: np.ndarray | None) -> None:
    with tempfile.TemporaryDirectory(dir=o.folder) as folder:
        timed(f"{o.k} neighbours of {len(x)}", lambda: neighbours.build(x, o.k, Path(folder), device=o.device))
        found = neighbours.Graph.load(Path(folder))
        chosen, _ = timed(f"facility location on them, budget {o.budget}",
                             lambda: neighbours.greedy(x, found, o.budget))  # fmt: skip
    drawn = np.random.default_rng(0).choice(len(x), o.budget, replace=False)
    if wanted is not None:
        best = value(x, wanted)
        print(
            f"value {value(x, chosen) / best:.4%} of the exact greedy's, a random choice's {value(x, drawn) / best:.2%}"
        )


def million(o: argparse.Namespace) -> None:
    path = Path(o.folder or tempfile.gettempdir(), f"facility-{o.n}.npy")
    if not path.exists():
        x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(o.n, o.d))
        rng = np.random.default_rng(0)
        scale = (np.arange(1, o.d + 1) ** -0.3).astype(np.float32)
        groups = rng.standard_normal((3000, o.d), dtype=np.float32) * scale
        for lo in range(0, o.n, 50_000):
            count = min(50_000, o.n - lo)
            noise = rng.standard_normal((count, o.d), dtype=np.float32) * scale
            x[lo : lo + count] = unit_rows(groups[(3000 * rng.random(count) ** 2).astype(int)] + 0.9 * noise)
        x.flush()
    large: Any = argparse.Namespace(**{**vars(o), "budget": o.large_budget})
    graph(np.load(path, mmap_mode="r"), large, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="*", metavar="bench", help="which of exact, others, graph, million (all)")
    parser.add_argument("--embeddings", type=Path, help="an .npy file, float32[n, d] (made up, 55185)")
    parser.add_argument("--d", type=int, default=384, help="columns of what is made up")
    parser.add_argument("--budget", type=int, default=2750)
    parser.add_argument("--plain", type=int, default=0, help="rows on which the plain greedy runs too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--k", type=int, default=50, help="neighbours in the graph")
    parser.add_argument("--small", type=int, default=10_000, help="rows for the other packages")
    parser.add_argument("--small-budget", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the other packages")
    parser.add_argument("--n", type=int, default=1_000_000, help="rows of the large graph")
    parser.add_argument("--large-budget", type=int, default=10_000)
    parser.add_argument("--folder", help="where large files are made (the system's for temporary ones)")
    o = parser.parse_args()
    benches = o.benches or ["exact", "others", "graph", "million"]
    if unknown := set(benches) - {"exact", "others", "graph", "million"}:
        parser.error(f"no bench called {', '.join(sorted(unknown))}")

    small = made_up(3000, o.d)  # compiled before the clock starts
    facility_location.greedy(small, 300)
    with tempfile.TemporaryDirectory() as folder:
        for x in (small, small.astype(np.float16)):
            neighbours.build(x, 5, Path(folder))
            neighbours.greedy(x, neighbours.Graph.load(Path(folder)), 20)
    if set(benches) != {"million"}:
        x = unit_rows(np.load(o.embeddings) if o.embeddings else made_up(55_185, o.d))
        chosen = None
        if "exact" in benches:
            chosen = exact(x, o)
        if "others" in benches:
            others(x, o)
        if "graph" in benches:
            graph(x, o, facility_location.greedy(x, o.budget, device=o.device) if chosen is None else chosen)
    if "million" in benches:
        million(o)


if __name__ == "__main__":
    main()
