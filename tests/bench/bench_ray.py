"""Embedding by `engine=ray` beside `engine=local`: shards, seconds, processor seconds, and what losses cost.

    python -m tests.bench.bench_ray --texts 20000 --model models/all-minilm-l6-v2
    python -m tests.bench.bench_ray --texts 2000 --losses

The cluster has two nodes on this machine, with a processor each; the other engine has two processes. Both compute with
one thread a worker, in turn, `--rounds` times. Processor seconds are those of all processes below this one, looked at
every 0.2 s. `--losses` kills a worker and ends a third node on the way, and counts shards that were given out again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dsel.data.procedural import Procedural
from dsel.embedder.sentence_transformer import SentenceTransformer
from dsel.engine.local import Local
from tests.engine.on_ray import Watched, given, losing, two_nodes

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 2 * 10**8}


def main() -> None:
    import ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--model", type=Path, default=Path("models/all-minilm-l6-v2"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--losses", action="store_true")
    asked = parser.parse_args()
    messages = Procedural(size=asked.texts).load().messages
    embedder = SentenceTransformer(hub="", path=str(asked.model.expanduser()), dtype="float32", device="cpu")
    cluster = two_nodes(NODE)
    print(f"{asked.texts:,} texts in shards of {embedder.shard_size:,}")
    print("engine          shards   given    seconds   processor seconds")
    try:
        engines: dict[str, Any] = {"local": Local(2), "ray": Watched(cluster.address)}
        rows = {name: [] for name in engines}
        for _ in range(asked.rounds):
            for name, engine in engines.items():
                rows[name].append(measure(name, engine, embedder, messages))
        for what, i in (("seconds", 0), ("processor seconds", 1)):
            local, other = (min(row[i] for row in rows[name]) for name in engines)
            print(f"overhead in {what}: {other / local - 1:+.1%} ({other:.1f} against {local:.1f})")
        assert all(np.allclose(row[2], rows["local"][0][2], atol=1e-5) for row in rows["ray"])
        if asked.losses:
            measure("ray, losses", losing(cluster, NODE, machine=2, worker=4), embedder, messages)
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure(name: str, engine: Any, embedder: Any, messages: Any) -> tuple[float, float, Any]:
    """One embedding: its seconds, the processors' seconds, and the vectors."""
    with tempfile.TemporaryDirectory() as folder, given() as sizes, processors() as used:
        start = time.perf_counter()
        found = np.array(embedder.embed(messages, Path(folder), engine))
        seconds = time.perf_counter() - start
    shards = -(-len(messages) // embedder.shard_size)
    print(f"{name:14} {shards:7,} {len(sizes) or shards:7,} {seconds:10.1f} {used[0]:19.1f}", flush=True)
    return seconds, used[0], found


@contextmanager
def processors() -> Iterator[list[float]]:
    """Processor seconds that this process and all below it use inside, in a list of one."""
    known, total, over = _times(), [0.0], threading.Event()
    latest = dict(known)

    def look() -> None:
        while not over.wait(0.2):
            latest.update(_times())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield total
    finally:
        over.set()
        watcher.join()
        latest.update(_times())
        total[0] = sum(seconds - known.get(process, 0.0) for process, seconds in latest.items())


def _times() -> dict[int, float]:
    found = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[process.pid] = times.user + times.system
    return found


if __name__ == "__main__":
    main()
