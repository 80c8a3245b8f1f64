"""Data files of every kind, damaged in every way, and what becomes of one."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from dsel.data.local import Local
from dsel.errors import ConfigError

Row = dict[str, Any]

ROWS: list[Row] = [
    {"prompt": f"What is {i} and naïve?", "completion": f"It is {i * i}, 答え {i % 7}.", "quality": i / 8}
    for i in range(60)
]
CHATS: list[Row] = [
    {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
    for row in ROWS
]


@dataclass(frozen=True)
class Outcome:
    """What became of a file: usable rows and those reported, or the one line that refused it."""

    kept: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    line: str = ""
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        return self.kept + sum(self.skipped.values())


def outcome(path: Path, **options: Any) -> Outcome:
    """Read `path` as a run would. Anything but examples and counts, or one line, comes out as the exception it is."""
    start = time.perf_counter()
    data = Local(path=path, split=None, **options)
    try:
        data.check()
        pool = data.load()
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return Outcome(line=str(error), seconds=time.perf_counter() - start)
    return Outcome(len(pool.rows), pool.skipped, "", time.perf_counter() - start)


def as_json(rows: list[Row]) -> bytes:
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def as_lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_table(rows: list[Row], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[Row], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=25, **options)
    return sink.getvalue()


def as_arrow(rows: list[Row], *, stream: bool, compression: str | None = None) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=25)
    return sink.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "array.json": lambda: as_json(ROWS),
    "chat.json": lambda: as_json(CHATS),
    "lines.jsonl": lambda: as_lines(ROWS),
    "chat.jsonl": lambda: as_lines(CHATS),
    "wide.jsonl": lambda: as_lines(ROWS).decode().encode("utf-16"),
    "table.csv": lambda: as_table(ROWS),
    "table.tsv": lambda: as_table(ROWS, "\t"),
    "plain.parquet": lambda: as_parquet(ROWS, compression="none", use_dictionary=False),
    "snappy.parquet": lambda: as_parquet(ROWS),
    "zstd.parquet": lambda: as_parquet(CHATS, compression="zstd"),
    "stream.arrow": lambda: as_arrow(ROWS, stream=True),
    "file.arrow": lambda: as_arrow(CHATS, stream=False),
    "lz4.arrow": lambda: as_arrow(ROWS, stream=False, compression="lz4"),
    "zstd.arrow": lambda: as_arrow(CHATS, stream=True, compression="zstd"),
    "lines.jsonl.gz": lambda: gzip.compress(as_lines(ROWS)),
    "table.csv.zst": lambda: zstandard.compress(as_table(ROWS)),
    "lines.jsonl.bz2": lambda: bz2.compress(as_lines(ROWS)),
    "array.json.xz": lambda: lzma.compress(as_json(ROWS)),
}


def flipped(content: bytes, seed: int, bits: int = 1) -> bytes:
    changed, rng = bytearray(content), random.Random(seed)
    for _ in range(bits):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(16) + content[start + 16 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "last byte gone": lambda content: content[:-1],
    "last 12 bytes gone": lambda content: content[:-12],
    "first byte gone": lambda content: content[1:],
    "wrong magic": lambda content: b"XXXX" + content[4:],
    "zeros at its end": lambda content: content + bytes(64),
    "zeros in the middle": lambda content: content[: len(content) // 2] + bytes(64) + content[len(content) // 2 + 64 :],
    "zeros": lambda content: bytes(len(content)),
    "twice": lambda content: content * 2,
    "a page": lambda content: b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
    "a pointer": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n",
    **{f"a bit flipped, {seed}": lambda content, seed=seed: flipped(content, seed) for seed in range(4)},  # type: ignore[misc]
    **{f"many bits flipped, {seed}": lambda content, seed=seed: flipped(content, seed, 40) for seed in range(2)},  # type: ignore[misc]
    **{f"noise, {seed}": lambda content, seed=seed: overwritten(content, seed) for seed in range(4)},  # type: ignore[misc]
}
