"""What several workers gain over one in reading a pool: texts a second, and where the processor's time goes.

    python -m tests.bench.bench_maps                         # MiniLM, two workers of one thread, procedural texts
    python -m tests.bench.bench_maps --pool pool.parquet --texts 20000 --workers 2 --threads 1

One worker is this process, with as many threads as each of several. Workers take seconds to start, once a map;
`running` is without that, from a map of half of the texts beside one of all. CPU seconds are those of this process and
of its workers; `apart` is the gain that they allow, running, where each worker has processors for itself. Both have to
give the same vectors, to the last bit.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MODEL = Path("~/.cache/dsel-models/all-minilm-l6-v2").expanduser()


@dataclass
class Took:
    """Seconds: on the wall, and of processors here and in workers."""

    wall: float
    here: float
    workers: float

    def __sub__(self, other: Took) -> Took:
        return Took(self.wall - other.wall, self.here - other.here, self.workers - other.workers)


def embedded(embedder: Any, conversations: Sequence[Any], workers: int) -> tuple[np.ndarray, Took]:
    from dsel.engine.local import Local

    with tempfile.TemporaryDirectory() as folder:
        before, start, here = _of_workers(), time.perf_counter(), time.process_time()
        found = np.array(embedder.embed(conversations, Path(folder), Local(workers)))
        return found, Took(time.perf_counter() - start, time.process_time() - here, _of_workers() - before)


def _of_workers() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--model", default=str(MODEL), help="a sentence-transformers folder")
    parser.add_argument("--pool", help="a file (procedural texts)")
    parser.add_argument("--texts", type=int, default=16_384)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--repeats", type=int, default=2, help="in turns; the best counts")
    o = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(o.threads), "RAYON_NUM_THREADS": str(o.threads)}

    import torch

    from dsel.data.local import Local as File
    from dsel.data.procedural import Procedural
    from dsel.embedder.sentence_transformer import SentenceTransformer

    torch.set_num_threads(o.threads)
    pool = File(path=o.pool).load() if o.pool else Procedural(size=o.texts).load()
    conversations = list(pool.take(range(min(o.texts, len(pool)))).messages)
    embedder = SentenceTransformer(hub="", path=o.model)
    parts = [conversations[::2], conversations]
    best: dict[tuple[int, int], Took] = {}
    for _ in range(o.repeats):
        for part in parts:
            vectors = []
            for workers in (1, o.workers):
                found, took = embedded(embedder, part, workers)
                vectors.append(found)
                key = workers, len(part)
                best[key] = min(best.get(key, took), took, key=lambda each: each.wall)
            assert np.array_equal(*vectors), "the vectors differ"
    n, few = len(conversations), len(parts[0])
    running = {w: best[w, n] - best[w, few] for w in (1, o.workers)}
    print(f"{n:,} texts, {o.threads} threads a worker")
    print(f"{'workers':>8}{'seconds':>9}{'texts/s':>9}{'running':>9}{'CPU here':>10}{'CPU workers':>13}")
    for workers in (1, o.workers):
        took = best[workers, n]
        rates = f"{n / took.wall:9.0f}{(n - few) / running[workers].wall:9.0f}"
        print(f"{workers:8}{took.wall:9.1f}{rates}{took.here:10.1f}{took.workers:13.1f}")
    one, several = running[1], running[o.workers]
    apart = one.here / max(several.here, several.workers / o.workers)
    whole = best[1, n].wall / best[o.workers, n].wall
    print(f"gain {whole:.2f}, running {one.wall / several.wall:.2f}, apart {apart:.2f}")


if __name__ == "__main__":
    main()
