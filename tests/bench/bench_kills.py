"""A run on a large pool that is killed in the middle of reading, of embedding and of clustering, and ends the same.

    python -m tests.bench.make_pool 1000000 /tmp/pool.parquet
    python -m tests.bench.bench_kills /tmp/pool.parquet [--k 1024] [--budget 10000] [clusterer.nredo=1 …]

One run is left in peace. Another one, with a cache of its own, gets SIGKILL when it has read half of the rows; launched
again, when it has embedded half of them; and again, when its k-means has first kept something. Launched once more it
has to choose what the first did, byte for byte, from a pool of the same fingerprint.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import ROOT

READ, EMBEDDED, CLUSTERED = "pools/*.partial/read.jsonl", "embeddings/*.partial/*.jsonl", "clusterings/*.partial/*.xxh3"


def half_read(cache: Path, n: int) -> bool:
    """Whether the journal has half of the rows."""
    counts = (re.findall(r'"count": (\d+)', path.read_text()) for path in cache.glob(READ))
    return sum(int(count) for found in counts for count in found) >= n / 2


def half_embedded(cache: Path, n: int) -> bool:
    """The same, of shards that are written where they belong."""
    names = (re.findall(r'"shard": "[^"]*?(\d+)-(\d+)[^"]*"', path.read_text()) for path in cache.glob(EMBEDDED))
    return sum(int(end) - int(start) for found in names for start, end in found) >= n / 2


def clustered(cache: Path, _: int) -> bool:
    """Whether a state of k-means is kept."""
    return any(cache.glob(CLUSTERED))


STAGES: dict[str, Callable[[Path, int], bool]] = {
    "reading": half_read,
    "embedding": half_embedded,
    "clustering": clustered,
}


def launch(given: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "dsel.run", "-q", "data=local", f"data.path={given.path}", "embedder=hashing",
        f"clusterer.k={given.k}", "selector=kmq", "trainer=none", "evaluator=none", "tracker=none",
        f"budget={given.budget}", f"cache={folder / 'cache'}", f"runs={folder / 'runs'}", *given.more,
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL)


def finished(run: subprocess.Popen[bytes]) -> float:
    start = time.perf_counter()
    if run.wait():
        raise SystemExit(f"a run ended with {run.returncode}")
    return time.perf_counter() - start


def killed(run: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    while not reached():
        if run.poll() is not None:
            raise SystemExit("the run has ended before it was killed: try a larger pool")
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()


def left(folder: Path) -> tuple[bytes, str]:
    """The selection of the one finished run, and the fingerprint of the one pool."""
    (selection,) = folder.glob("runs/*/selection.parquet")
    (facts,) = folder.glob("cache/pools/*/pool.json")
    return selection.read_bytes(), json.loads(facts.read_text())["fingerprint"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a Parquet file of 300,000 rows or more")
    parser.add_argument("--k", type=int, default=1024)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("more", nargs="*", help="other options, clusterer.nredo=1")
    given = parser.parse_intermixed_args()
    n = pq.ParquetFile(given.path).metadata.num_rows
    with tempfile.TemporaryDirectory(dir=given.path.parent) as folder:
        calm, harmed = Path(folder) / "calm", Path(folder) / "harmed"
        print(f"{n:,} rows, in peace: {finished(launch(given, calm)):.0f} s", flush=True)
        for stage, reached in STAGES.items():
            start = time.perf_counter()
            killed(launch(given, harmed), lambda reached=reached: reached(harmed / "cache", n))
            print(f"killed in {stage} after {time.perf_counter() - start:.0f} s", flush=True)
        print(f"and ended: {finished(launch(given, harmed)):.0f} s", flush=True)
        if left(calm) != left(harmed):
            raise SystemExit("it has not ended the same")
        print("the same selection, and the same pool")


if __name__ == "__main__":
    main()
