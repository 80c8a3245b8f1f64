"""Pools out of large files: the same however many processes read them, sampled, limited, and after a kill."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsel.cache import Cache
from dsel.data import parts, units, workers
from dsel.data.local import Local
from dsel.errors import ConfigError
from dsel.pool import Pool
from dsel.stored import Writer
from tests.bench.make_pool import make
from tests.conftest import ROOT

N = 700


def row(i: int) -> dict[str, Any]:
    extra: dict[str, Any] = {"id": f"x{i % 50}" if i % 7 else None, "score": i / 4 if i % 5 else None}
    extra |= {"grade": str(i % 9), "note": f"words on {i}" if i % 3 else "", "source": ["web", "", None][i % 3]}
    return {"prompt": f"question {i}", "completion": "" if i % 97 == 5 else f"answer {i}", **extra}


def content(name: str) -> bytes:
    rows = [row(i) for i in range(N)]
    lines = [json.dumps(each).encode() for each in rows]
    lines[33], lines[34], lines[35] = b"{broken", b'{"prompt": "caf\xe9", "completion": "x"}', b'{"no": "format"}'
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=300)
        return sink.getvalue().to_pybytes()
    text = b"\n\n".join(lines) + b"\n"
    return gzip.compress(text) if name.endswith(".gz") else text


FILES = ("a.parquet", "b.jsonl", "c.jsonl.gz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_bytes(content(name))
    return tmp_path


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """All files are large now, and cut into small units; the list says how many processes there are."""
    count = [2]
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(parts, "FEW_ROWS", 0)
    monkeypatch.setattr(units, "CUT_ROWS", 90)
    monkeypatch.setattr(units, "CUT_LINES", 9_000)
    monkeypatch.setattr(parts, "processors", lambda: count[0])
    yield count


def loaded(caplog: pytest.LogCaptureFixture, **options: Any) -> tuple[Pool, list[str], list[Any]]:
    """A pool, what the log says of it, and the rows that were not used."""
    caplog.clear()
    cache = options.pop("cache", None)
    with caplog.at_level(logging.INFO, "dsel.data"):
        pool = Local(**options).load(cache)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("dsel.data")]
    found = [] if cache is None else sorted(cache.folder.glob("pools/*/reported.parquet"))
    return pool, lines, pq.read_table(found[0]).to_pylist() if found else []


def equal(one: Pool, two: Pool) -> None:
    assert one.fingerprint == two.fingerprint
    assert (one.ids, one.messages, one.sources, one.skipped) == (two.ids, two.messages, two.sources, two.skipped)
    assert list(one.originals["json"]) == list(two.originals["json"])
    assert one.score_columns == two.score_columns


@pytest.mark.parametrize("limit", [None, 610])
def test_the_number_of_processes_changes_nothing(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    limit: int | None,
) -> None:
    options: dict[str, Any] = {"path": [folder / name for name in FILES], "limit": limit}
    here, said, _ = loaded(caplog, **options)
    count = request.getfixturevalue("processes")
    for count[0] in (3,):
        cache = Cache(folder / f"cache-{count[0]}")
        there, lines, reported = loaded(caplog, cache=cache, **options)
        equal(here, there)
        assert lines == said
        assert len(reported) == sum(there.skipped.values())
        if limit is None:
            assert len(there) + len(reported) == 3 * N
            assert {"file": str(folder / "b.jsonl"), "row": 34, "reason": "not JSON"} in reported


def test_the_first_bad_row_is_the_error_whoever_reads_it(folder: Path, processes: list[int]) -> None:
    for name in FILES:
        with pytest.raises(ConfigError, match=rf"{name} row 6: empty response .data.on_bad_row=skip"):
            Local(path=folder / name, on_bad_row="error").load()


def test_a_file_of_no_format_is_an_error_whoever_reads_it(tmp_path: Path, processes: list[int]) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 2000)
    with pytest.raises(ConfigError, match="no instruction format has the columns text"):
        Local(path=tmp_path / "a.jsonl").load()


def test_a_damaged_file_is_one_line_whoever_reads_it(folder: Path, processes: list[int]) -> None:
    for name in ("a.parquet", "c.jsonl.gz"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ConfigError, match=str(folder / name)):
            Local(path=folder / name).load()
    whole = content("a.parquet")
    (folder / "a.parquet").write_bytes(whole[:9000] + b"\xff" * 200 + whole[9200:])
    with pytest.raises(ConfigError, match="a.parquet: not a readable Parquet file"):
        Local(path=folder / "a.parquet").load()


def test_a_process_that_dies_is_one_line(folder: Path, processes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SERVE", "import os, sys; sys.stdin.buffer.readline(); os.kill(os.getpid(), 11)")
    with pytest.raises(ConfigError, match="a.parquet: not a readable Parquet file .*signal 11"):
        Local(path=folder / "a.parquet").load()


def test_an_error_of_ours_is_no_error_of_the_file(
    folder: Path, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = "import dsel.data.units as u, dsel.data.workers as w; u.convert = None; w.serve()"
    monkeypatch.setattr(workers, "SERVE", spoilt)
    with pytest.raises(RuntimeError, match="not callable"):
        Local(path=folder / "b.jsonl").load()


# --- samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, "array.json"])
def test_a_sample_is_rows_of_the_whole(tmp_path: Path, name: str) -> None:
    plain = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(N)]
    path = tmp_path / name
    if name == "array.json":
        path.write_text(json.dumps(plain))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(plain), path, row_group_size=100)
    else:
        text = "".join(json.dumps(each) + "\n" for each in plain).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    whole = Local(path=path).load()
    known = dict(zip(whole.ids, whole.texts, strict=True))
    for sample, size in ((10, 10), (0.25, 175), (N, N)):
        found = Local(path=path, sample=sample).load()
        assert len(found) == size and all(known[i] == t for i, t in zip(found.ids, found.texts, strict=True))
        assert sorted(found.ids, key=lambda i: int(i.rpartition("/")[2])) == list(found.ids)
    seeds = [set(Local(path=path, sample=50, sample_seed=seed).load().ids) for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    with pytest.raises(ConfigError, match=r"data\.sample=701: there are 700 rows"):
        Local(path=path, sample=N + 1).load()


def test_a_sample_is_the_same_whoever_draws_it(
    folder: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    options: dict[str, Any] = {"path": [folder / name for name in FILES], "sample": 0.3}
    here, said, _ = loaded(caplog, **options)
    request.getfixturevalue("processes")
    there, lines, reported = loaded(caplog, cache=Cache(folder / "cache"), **options)
    equal(here, there)
    assert lines == said and len(there) + len(reported) == round(0.3 * 3 * N)
    assert len(Local(**options, limit=20).load()) == 20


def test_row_groups_without_a_row_of_the_sample_are_not_read(
    tmp_path: Path, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(N)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=10)
    asked = []

    def batches(unit: units.Unit) -> Iterator[units.Batch]:
        asked.append(unit.only)
        return units.batches(unit)

    monkeypatch.setattr(parts, "batches", batches)
    monkeypatch.setattr(parts, "LARGE", 2**30)
    assert len(Local(path=tmp_path / "a.parquet", sample=5).load()) == 5
    assert sum(bool(only) for only in asked) <= 5 < len(asked)


# --- kills --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 9])
def test_after_a_kill_it_goes_on_and_ends_the_same(
    folder: Path,
    processes: list[int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    options: dict[str, Any] = {"path": [folder / name for name in FILES]}
    whole, said, reported = loaded(caplog, cache=Cache(folder / "whole"), **options)
    cache, plain, written = Cache(folder / "cache"), Writer.write, [0]

    def write(writer: Writer, *batches: Any) -> None:
        written[0] += 1
        plain(writer, *batches)
        if written[0] == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", write)
        with pytest.raises(KeyboardInterrupt):
            Local(**options).load(cache)
    (partial,) = cache.folder.glob("pools/*.partial")
    assert (partial / "rows.arrow").exists()
    again, lines, also = loaded(caplog, cache=cache, **options)
    equal(whole, again)
    assert [line for line in lines if "read before this run" not in line] == said and also == reported
    assert (at == 1) != any("read before this run" in line for line in lines)
    (final,) = (path for path in cache.folder.glob("pools/*") if path.is_dir())
    (other,) = (path for path in (folder / "whole").glob("pools/*") if path.is_dir())
    assert sorted(p.name for p in final.iterdir()) == sorted(p.name for p in other.iterdir())


def test_what_a_kill_has_left_is_not_believed_when_it_is_damaged(
    folder: Path, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    test_path = folder / "b.jsonl"
    whole, cache, plain, written = Local(path=test_path).load(), Cache(folder / "cache"), Writer.write, [0]

    def write(writer: Writer, *batches: Any) -> None:
        written[0] += 1
        plain(writer, *batches)
        if written[0] == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", write)
        with pytest.raises(KeyboardInterrupt):
            Local(path=test_path).load(cache)
    (file,) = cache.folder.glob("pools/*.partial/originals.arrow")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = b"\0" * 50
    file.write_bytes(content)
    equal(whole, Local(path=test_path).load(cache))


# --- many rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bad.parquet", "bad.jsonl"])
def test_rows_in_are_rows_kept_and_rows_reported(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant, value in (("CUT_ROWS", 2**14), ("CUT_LINES", 2**22)):
        monkeypatch.setattr(units, constant, value)
    bad = make(20_000, tmp_path / name, bad=0.01)
    pool, _, reported = loaded(caplog, path=tmp_path / name, cache=Cache(tmp_path / "cache"))
    assert (len(pool), len(reported), sum(pool.skipped.values())) == (20_000 - bad, bad, bad)
    assert len({(each["file"], each["row"]) for each in reported}) == bad


# --- several processes --------------------------------------------------------------------------------------

LOAD = """
import sys, time
from pathlib import Path
from dsel.cache import Cache
from dsel.data.local import Local
from dsel.stored import Writer
finish = Writer.finish
def slowly(*args, **more):
    Path(sys.argv[2]).open("a").write("made\\n")
    time.sleep(1)  # the other one is here by now, and waits
    return finish(*args, **more)
Writer.finish = slowly
pool = Local(path=sys.argv[1]).load(Cache(sys.argv[3]))
print(pool.found, pool.fingerprint, len(pool))
"""


def test_two_processes_that_want_the_same_new_pool_make_it_once(folder: Path) -> None:
    command = [sys.executable, "-c", LOAD, str(folder / "b.jsonl"), str(folder / "made"), str(folder / "cache")]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found, fingerprints, counts = zip(*(process.communicate()[0].split() for process in both), strict=True)
    assert sorted(found) == ["False", "True"] and (folder / "made").read_text() == "made\n"
    here = Local(path=folder / "b.jsonl").load()
    assert set(fingerprints) == {here.fingerprint} and set(counts) == {str(len(here))}
