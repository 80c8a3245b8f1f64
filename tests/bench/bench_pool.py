"""The first read of a large pool: time and memory, beside what `datasets` takes to load and map the same file.

    python -m tests.bench.make_pool 1000000 /tmp/pool.parquet
    python -m tests.bench.bench_pool /tmp/pool.parquet [/tmp/pool.jsonl …] [--bad 9876]

Each figure is of a process of its own, with all that it starts: seconds from its imports on, seconds of processors, and
the largest sum of memory that belongs to a process alone (RssAnon, without mapped files) and of its share of all (PSS),
looked at ten times a second. `datasets` converts the questions and answers into messages; ours checks, counts and keeps
each row as it stood besides. The same file is read by both in turn, as often as `--times` says.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

OURS = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
from dsel.cache import Cache
from dsel.data.local import Local
pool = Local(path=sys.argv[1]).load(Cache(sys.argv[2]))
seconds = time.perf_counter() - start
import pyarrow.parquet as pq
reported = sum(pq.ParquetFile(f).metadata.num_rows for f in Path(sys.argv[2]).glob("pools/*/reported.parquet"))
start = time.perf_counter()
found = Local(path=sys.argv[1]).load(Cache(sys.argv[2]))
again = time.perf_counter() - start
print(json.dumps({"rows": len(pool), "reported": reported, "seconds": seconds, "found again": again}))
"""
THEIRS = """
import json, sys, time
start = time.perf_counter()
from datasets import load_dataset
kind = "parquet" if sys.argv[1].endswith(".parquet") else "json"
def talk(rows):
    return {"messages": [[{"role": "user", "content": p or ""}, {"role": "assistant", "content": c or ""}]
                         for p, c in zip(rows["prompt"], rows["completion"])]}
found = load_dataset(kind, data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
found = found.map(talk, batched=True)
print(json.dumps({"rows": len(found), "seconds": time.perf_counter() - start}))
"""


def measured(code: str, path: Path) -> dict[str, Any]:
    """What the code says of the file, with the memory and the processors that it took."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        before = os.times()
        command = [sys.executable, "-c", code, str(path), folder]
        environment = {**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        peaks, over = {"RssAnon": 0, "Pss": 0}, threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                for name, value in memory(child.pid).items():
                    peaks[name] = max(peaks[name], value)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        said, _ = child.communicate()
        over.set()
        watcher.join()
        if child.returncode:
            raise SystemExit(f"it ended with {child.returncode}")
        after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {**json.loads(said.splitlines()[-1]), "processors": used, **peaks}


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process and all below it: what is theirs alone, and their shares of all."""
    found = {"RssAnon": 0, "Pss": 0}
    for each in tree(pid):
        for name, file in (("RssAnon", "status"), ("Pss", "smaps_rollup")):
            try:
                line = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{each}/{file}").read_text(), re.MULTILINE)
            except OSError:  # it has ended
                continue
            found[name] += 1024 * int(line[1]) if line else 0
    return found


def tree(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--bad", type=int, help="how many rows are bad, as make_pool said: it is checked")
    parser.add_argument("--ours", action="store_true", help="without datasets")
    given = parser.parse_args()
    print(f"{'':40} {'rows':>10} {'s':>7} {'CPU s':>7} {'RssAnon MB':>11} {'PSS MB':>8} {'again s':>8}")
    for path in given.paths:
        for _ in range(given.times):
            for name, code in (("dsel", OURS), ("datasets", THEIRS)):
                if name == "datasets" and (given.ours or given.bad):
                    continue
                start = time.perf_counter()
                found = measured(code, path)
                anon, pss = (found[key] / 2**20 for key in ("RssAnon", "Pss"))
                seconds, used = found["seconds"], found["processors"]
                again = f"{found['found again']:8.2f}" if "found again" in found else ""
                print(
                    f"{name + ' ' + path.name:40} {found['rows']:>10,} {seconds:7.1f} {used:7.1f} {anon:11,.0f} "
                    f"{pss:8,.0f} {again}",
                    flush=True,
                )
                if given.bad is not None and name == "dsel" and found["reported"] != given.bad:
                    raise SystemExit(f"{path}: {found['reported']} rows are reported, and {given.bad} are bad")
                time.sleep(max(0.0, min(2.0, time.perf_counter() - start)))


if __name__ == "__main__":
    main()
