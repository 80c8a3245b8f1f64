"""python -m tests.bench.bench_contamination [ROWS] [FILE]: what looking for evaluated texts takes.

ROWS rows (250,000) of a Parquet file of examples, or of made ones with words of the questions, against GSM8K's 1,319
test questions, or as many made ones where they are not at hand.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from dsel.contamination import Evaluated

GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k_test.jsonl"


def questions() -> list[str]:
    if GSM8K.exists():
        return [json.loads(line)["question"] for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    words, rng = [f"w{i}" for i in range(4000)], np.random.default_rng(0)
    return [" ".join(rng.choice(words, 45).tolist()) for _ in range(1319)]


def examples(rows: int, asked: Sequence[str], file: str | None) -> Iterator[list[str]]:
    if file is None:
        words, rng = sorted({word for text in asked for word in text.split()}), np.random.default_rng(1)
        some = [" ".join(rng.choice(words, 90).tolist()) for _ in range(2000)]
        yield from ([some[i % 2000], some[i * 7 % 2000]] for i in range(rows))
        return
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches(4096):
        columns = [column.to_pylist() for column in batch.columns if str(column.type) == "string"]
        for row in zip(*columns, strict=True):
            yield [text or "" for text in row]
            rows -= 1
            if not rows:
                return


def main() -> None:
    rows, file = int(sys.argv[1]) if len(sys.argv) > 1 else 250_000, sys.argv[2] if len(sys.argv) > 2 else None
    asked = questions()
    start = time.process_time()
    evaluated = Evaluated(asked)
    index, characters, hits, looking = time.process_time() - start, 0, 0, 0.0
    many = examples(rows, asked, file)
    while block := list(islice(many, 20_000)):
        start = time.process_time()
        hits += int(evaluated.look(block).hit.sum())
        looking += time.process_time() - start
        characters += sum(len(turn) for turns in block for turn in turns)
    print(f"{len(asked):,} texts, {len(evaluated.texts):,} looked for: {index:.2f} s of one core to index")
    each = looking / characters * 1e9
    print(f"{rows:,} rows of {characters / rows:,.0f} characters: {looking:.1f} s, {each:.0f} ns a character")
    print(f"{hits} have some of them")


if __name__ == "__main__":
    main()
