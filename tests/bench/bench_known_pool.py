"""What a run on a large pool takes beside its method: `selector=random trainer=none`, when the pool is new and known.

    python -m tests.bench.make_pool 1000000 /tmp/pool.parquet
    python -m tests.bench.bench_known_pool /tmp/pool.parquet [--cache FOLDER] [--times 3]

Each run is a process of its own. Its memory is the largest RssAnon that /proc says of it, looked at a hundred times a
second: what belongs to the process, without the pages of mapped files that the system may drop. Then, in this process
and in seconds of its processor, what the parts of a known pool take.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dsel.batches import Distinct, Fingerprint
from dsel.cache import Cache
from dsel.data.local import Local
from dsel.lazy import fetched
from tests.bench.measuring import anonymous
from tests.conftest import ROOT


def run(path: Path, cache: Path, folder: Path, *overrides: str) -> str:
    command = [
        sys.executable, "-m", "dsel.run", "-q", "selector=random", "trainer=none", "evaluator=none", "tracker=none",
        "budget=10000", "data=local", f"data.path={path}", f"cache={cache}", f"runs={folder}", *overrides,
    ]  # fmt: skip
    before, start, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        peak = max(peak, anonymous(child.pid))
        time.sleep(0.01)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert child.returncode == 0
    return f"{seconds:6.1f} s, {processors:6.1f} s of processors, {peak / 1e9:5.2f} GB"


def parts(path: Path, cache: Path) -> None:
    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        found = work()
        print(f"  {name:40} {time.process_time() - start:7.2f} s", flush=True)
        return found

    pool = timed("found in the cache", lambda: Local(path=path).load(Cache(cache)))
    rng, n = np.random.default_rng(0), len(pool)
    size = sum(batch.nbytes for batch in pool.rows.batches) / 1e9
    fingerprint = Fingerprint()
    timed(f"fingerprint of {size:.1f} GB", lambda: list(map(fingerprint.add, pool.batches())))
    assert fingerprint.hexdigest() == pool.fingerprint
    distinct = Distinct()
    timed("ids told apart", lambda: [distinct(batch.column(0)) for batch in pool.batches(["id"])])
    timed("characters of all texts", lambda: pool.lengths)
    timed("all ids", lambda: sum(1 for _ in pool.ids))
    timed("all messages", lambda: sum(1 for _ in pool.messages))
    timed("sources as numbers", lambda: pool.rows.codes("source"))
    shards = [rng.integers(0, n, 128) for _ in range(100)]
    timed("100 shards of 128 rows anywhere", lambda: [fetched(pool.messages, shard) for shard in shards])
    some = pool.take(rng.permutation(n)[: n // 10])
    timed("a tenth of the originals, anywhere", lambda: sum(1 for _ in some.originals["json"]))
    timed("one per cent held out", lambda: pool.hold_out(0.01))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--cache", type=Path, help="keep the pool here")
    parser.add_argument("--times", type=int, default=3, help="runs on the known pool (default: 3)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.path.parent) as folder:
        cache, runs = asked.cache or Path(folder) / "cache", Path(folder) / "runs"
        for number in range(asked.times + 1):
            what = "known" if number else "new, unless --cache has it"
            print(f"{what}: {run(asked.path, cache, runs)}", flush=True)
        parts(asked.path, cache)


if __name__ == "__main__":
    main()
