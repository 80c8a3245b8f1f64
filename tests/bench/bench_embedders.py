"""Embedders that need no accelerator, on large pools: texts a second, processor time, and memory.

    python -m tests.bench.make_pool 1000000 /tmp/pool.parquet
    python -m tests.bench.bench_embedders /tmp/pool.parquet --sizes 250000 1000000
    python -m tests.bench.bench_embedders /tmp/pool.parquet --embedders model2vec --model models/all-minilm-l6-v2

Each is measured in a process of its own, on a pool that is in the cache, through `embed`: from the stored pool to the
file of all vectors. Memory is the most that was anonymous (`RssAnon` of /proc/self/status, looked at every 20 ms): the
pages of mapped files are not counted. model2vec is a table of random vectors with the tokenizer of `--model`, which is
as fast as a trained one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dsel.cache import Cache
from dsel.data.local import Local
from dsel.embedder.base import Embedder
from dsel.embedder.hashing import Hashing
from dsel.embedder.model2vec import Model2Vec
from dsel.embedder.tfidf_svd import TfidfSvd
from tests.bench.measuring import measured
from tests.conftest import ROOT

MINILM = ROOT / "models" / "all-minilm-l6-v2"
NAMES = ("hashing", "model2vec", "tfidf_svd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--embedders", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--model", type=Path, default=MINILM, help="a folder with a tokenizer.json")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "bench-embedders")
    parser.add_argument("--store", choices=("float32", "float16"), default="float32")
    parser.add_argument("--alone", action="store_true", help="in this process: one embedder, one size")
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(measure(asked)))
        return
    Local(path=str(asked.pool)).load(Cache(asked.cache))
    print("embedder        texts  seconds      CPU   texts/s   memory   vectors")
    for name in asked.embedders:
        for size in asked.sizes:
            own = ["--embedders", name, "--sizes", str(size), "--model", str(asked.model), "--store", asked.store]
            command = [
                sys.executable,
                "-m",
                __spec__.name,
                str(asked.pool),
                *own,
                "--cache",
                str(asked.cache),
                "--alone",
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:10} {row['texts']:10,} {row['seconds']:8.1f} {row['cpu']:8.1f} {row['rate']:9,.0f} "
                f"{row['memory']:5.2f} GB  {row['shape']} {row['dtype']}, {row['file']:.2f} GB"
            )


def measure(asked: argparse.Namespace) -> dict[str, object]:
    """What one embedder takes for one size."""
    pool = Local(path=str(asked.pool)).load(Cache(asked.cache))
    size = min(asked.sizes[0], len(pool))
    messages = pool.take(np.arange(size)).messages if size < len(pool) else pool.messages
    with tempfile.TemporaryDirectory(dir=asked.cache) as folder:
        made = embedder(asked.embedders[0], asked.model, Path(folder) / "model", asked.store)
        made.encode(["compiled and loaded", "compiled and loaded"])
        (Path(folder) / "out").mkdir()
        took = measured(lambda: made.embed(messages, Path(folder) / "out"))
        vectors = took.result
        return {
            "texts": size, "seconds": took.seconds, "cpu": took.cpu_seconds, "rate": size / took.seconds,
            "memory": took.peak / 1e9,
            "shape": list(vectors.shape), "dtype": str(vectors.dtype), "file": vectors.nbytes / 1e9,
        }  # fmt: skip


def embedder(name: str, model: Path, folder: Path, store: str) -> Embedder:
    if name == "hashing":
        return Hashing(store=store)
    if name == "tfidf_svd":
        return TfidfSvd(store=store)
    from model2vec import StaticModel
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.expanduser() / "tokenizer.json"))
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 256)).astype(np.float32)
    StaticModel(vectors, tokenizer).save_pretrained(folder)
    return Model2Vec(hub="", path=str(folder), store=store)


if __name__ == "__main__":
    main()
