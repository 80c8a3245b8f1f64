"""Large pools to measure with: P3 repeated, each time with other prefixes, as Parquet or as JSON lines.

    python -m tests.bench.make_pool 1000000 /tmp/pool.parquet
    python -m tests.bench.make_pool 1000000 /tmp/pool.jsonl --bad 0.01

Written piece by piece: memory does not grow with the number of rows. `--bad` spoils that share of the rows, each in one
of several ways, so that none of them can be used.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import shared

P3 = "data/p3_55k.parquet"
BROKEN = b"caf\xe9"  # not UTF-8
KINDS = ("no answer", "blank answer", "no question", "broken UTF-8")
ALSO_JSON = (b"{broken", b"[1, 2]", b'{"prompt": "p", "completion": {"a": 1}, "template": "t", "dataset": "d"}')


def tables(n: int, seed: int = 0) -> Iterator[pa.Table]:
    """The rows of P3 until there are n, a number before each prompt, so that no two are the same."""
    import pyarrow.compute as pc

    table = pq.read_table(shared(P3))
    table = table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
    order = np.random.default_rng(seed).permutation(len(table))
    table = table.take(order).combine_chunks()
    for start in range(0, n, len(table)):
        part = table.slice(0, n - start)
        numbers = pc.cast(pa.array(np.arange(start, start + len(part))), pa.string())
        prompts = pc.binary_join_element_wise("No. ", numbers, ": ", part.column("prompt").combine_chunks(), "")
        yield part.set_column(part.schema.get_field_index("prompt"), "prompt", prompts)


def spoilt(table: pa.Table, share: float, start: int) -> tuple[pa.Table, np.ndarray]:
    """The table with a share of its rows made unusable, and which they are."""
    rng = np.random.default_rng(start)
    bad = np.flatnonzero(rng.random(len(table)) < share)
    prompts = table.column("prompt").to_pylist()
    answers: list[object] = [text.encode() for text in table.column("completion").to_pylist()]
    for place, row in enumerate(bad):
        kind = KINDS[place % len(KINDS)]
        if kind == "no question":
            prompts[row] = None
        else:
            answers[row] = {"no answer": None, "blank answer": b" \n", "broken UTF-8": BROKEN}[kind]
    broken = pa.array(answers, pa.binary()).view(pa.string())  # unchecked
    changed = {"prompt": pa.array(prompts, pa.string()), "completion": broken}
    return pa.table({name: changed.get(name, table.column(name)) for name in table.column_names}), bad


def lines(table: pa.Table, bad: np.ndarray) -> Iterator[bytes]:
    rows = table.set_column(table.schema.get_field_index("completion"), "completion", as_bytes(table)).to_pylist()
    odd = {int(row): ALSO_JSON[place % len(ALSO_JSON)] for place, row in enumerate(bad) if place % 2}
    for number, row in enumerate(rows):
        answer = row["completion"]
        row["completion"] = None if answer is None else answer.decode("utf-8", "surrogateescape")
        text = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape")
        yield odd.get(number, text) + b"\n"


def as_bytes(table: pa.Table) -> pa.Array:
    return table.column("completion").combine_chunks().view(pa.binary())


def make(n: int, path: Path, bad: float = 0.0, group: int | None = None) -> int:
    """Write n rows, of which about a share is `bad`; returns how many are. group: rows of a Parquet row group."""
    count, start, writer = 0, 0, None
    with path.open("wb") as file:
        for table in tables(n):
            part, spoiled = spoilt(table, bad, start) if bad else (table, np.empty(0, int))
            count, start = count + len(spoiled), start + len(table)
            if path.suffix == ".parquet":
                writer = writer or pq.ParquetWriter(file, part.schema)
                writer.write_table(part, row_group_size=group)
            else:
                file.writelines(lines(part, spoiled))
        if writer is not None:
            writer.close()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--bad", type=float, default=0.0)
    parser.add_argument("--group", type=int, help="rows of a Parquet row group (by default 55,185)")
    given = parser.parse_args()
    bad = make(given.rows, given.path, given.bad, given.group)
    print(f"{given.path}: {given.rows:,} rows, {bad:,} of them bad, {given.path.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
