"""A damaged file is an error, whatever it does to the process that reads it."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsel import guard
from dsel.errors import ConfigError
from dsel.guard import read_parquet

TABLE = pa.table({"a": list(range(100)), "s": [f"text {i}" for i in range(100)], "l": [[{"x": i}] for i in range(100)]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_a_sound_table_is_what_was_written(file: Path) -> None:
    assert read_parquet(file).equals(TABLE)
    assert read_parquet(file, ["s"]).equals(TABLE.select(["s"]))
    assert read_parquet(file, rows=False).schema == TABLE.schema


def test_a_reader_that_died_is_replaced(file: Path) -> None:
    read_parquet(file)
    os.kill(guard._idle[-1].pid, signal.SIGKILL)
    guard._idle[-1].wait()
    assert read_parquet(file).equals(TABLE)


def test_a_crash_is_told_by_its_signal(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SERVE", "import os, sys; sys.stdin.buffer.readline(); os.kill(os.getpid(), 11)")
    guard._stop_all()
    with pytest.raises(ConfigError, match=r"not a readable Parquet file \(it ends the process .*: signal 11\)"):
        read_parquet(file)
    monkeypatch.undo()
    assert read_parquet(file).equals(TABLE)


def test_damage_anywhere_is_an_error_or_changes_no_more_than_values(file: Path, tmp_path: Path) -> None:
    data, rng, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 3, 30])):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "d.parquet").write_bytes(bytes(damaged[: rng.choice([len(data), rng.randrange(len(data))])]))
        try:
            read_parquet(tmp_path / "d.parquet").validate(full=True)
        except ConfigError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "gone"):
        with pytest.raises(ConfigError, match="not a file"):
            read_parquet(tmp_path / name)
