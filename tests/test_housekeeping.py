"""What is on the disk: listed by kind and age, and removed where nobody uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dsel import housekeeping
from dsel.cache import KEY, Cache, Lease
from dsel.errors import ConfigError
from dsel.evaluator.base import Metric
from dsel.housekeeping import artifacts, human, seconds
from dsel.record.writer import Record
from tests.conftest import make_pool

DAY = 86400.0

HOLDS = """
import sys
from pathlib import Path
from dsel.cache import Cache
cache = Cache(sys.argv[1])
def build(folder):
    (folder / "data").write_text("x")
    if sys.argv[2] == "computing":
        print("ready", flush=True)
        sys.stdin.read()
cache.artifact("things", "key", build, lease=True)
print("ready", flush=True)
sys.stdin.read()
"""


def said(command: str, *arguments: str) -> None:
    housekeeping.run([command, *arguments])


def made(cache: Cache, kind: str, key: str, *, age: float = 0, size: int = 1000) -> Path:
    folder, _ = cache.artifact(kind, key, lambda f: (f / "data").write_bytes(b"x" * size) and None)  # type: ignore[func-returns-value]
    for path in (folder / KEY, folder):
        os.utime(path, (time.time() - age,) * 2)
    return folder


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """First cell of each row → the others."""
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    return {first: others for first, *others in cells}


def test_nothing_yet_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSEL_CACHE", str(tmp_path / "cache"))
    said("runs")
    said("cache")
    assert capsys.readouterr().out.splitlines() == [
        "there are no runs here yet: dsel run makes each a folder in runs/",
        f"{tmp_path / 'cache'}: nothing yet",
    ]
    for wrong in (["runs", "gone"], ["cache", "--cache", "gone"]):
        with pytest.raises(ConfigError, match="no such file or folder"):
            said(*wrong)


def test_the_cache_by_kind_with_sizes(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    made(cache, "scores", "a", size=3000)
    made(cache, "embeddings", "a", size=5_000_000)
    made(cache, "embeddings", "b", age=40 * DAY)
    (cache.path("embeddings", "c").with_suffix(".partial")).mkdir()
    said("cache", "--cache", str(cache.folder))
    rows = shown(capsys)
    assert rows["embeddings"][:3] == ["2", "1", "5.0 MB"]
    assert rows["scores"][0] == "1" and rows["all"][:2] == ["3", "1"]


def test_what_is_old_goes_and_what_was_used_lately_stays(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    old, other = made(cache, "scores", "a", age=40 * DAY), made(cache, "scores", "b", age=40 * DAY)
    new = made(cache, "embeddings", "a", age=2 * DAY)
    assert cache.artifact("scores", "b", lambda folder: None) == (other, True)  # used again: that is what counts
    where = ("--cache", str(cache.folder))
    said("cache", *where, "--older-than", "30d")
    assert shown(capsys)["scores"][0] == "1"
    said("cache", *where, "--older-than", "30d", "--clear")
    assert "removed: 1 artifacts" in capsys.readouterr().out
    assert not old.exists() and other.exists() and new.exists()
    said("cache", "embeddings", *where, "--clear")
    assert other.exists() and not new.exists()
    with pytest.raises(ConfigError, match="embeddings: the cache has none of that kind; there are scores"):
        said("cache", "embeddings", *where)


def test_unfinished_and_damaged_work_goes_too(cache: Cache) -> None:
    final = made(cache, "things", "key")
    for suffix in (".partial", ".damaged"):
        final.with_suffix(suffix).mkdir()
    said("cache", "--cache", str(cache.folder), "--clear")
    assert not [path for path in final.parent.iterdir() if path.is_dir()]
    assert not list(artifacts(cache.folder))


@pytest.mark.parametrize("doing", ["using", "computing"])
def test_what_a_living_process_uses_or_computes_stays(
    cache: Cache, doing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(cache.folder), doing],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert held.stdout is not None and held.stdout.readline() == "ready\n"
    said("cache", "--cache", str(cache.folder), "--clear")
    assert "in use, and left: 1" in capsys.readouterr().out
    assert [each.name for each in artifacts(cache.folder)]
    held.kill()
    held.wait()
    said("cache", "--cache", str(cache.folder), "--clear")
    assert not list(artifacts(cache.folder))


def test_a_lease_that_is_taken_while_another_cache_is_there(cache: Cache) -> None:
    folder = made(cache, "things", "key")
    lease = Lease(folder)
    assert not cache.clear("things", folder.name) and folder.exists()
    del lease
    assert cache.clear("things", folder.name) and not folder.exists()


def run(runs: Path, name: str, *, status: str, age: float = 0, **process: Any) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    record = Record(folder, {"seed": 0}, {"selector": "kmq"})
    record.pool(make_pool(10), 4)
    record.metrics({"task": Metric(0.5, 0.1, "acc")})
    record.facts["process"] |= process
    record.facts["status"] = status
    record.save()
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - age,) * 2)
    return folder


def test_runs_and_how_they_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "a", status="finished")
    run(tmp_path, "b", status="running")
    run(tmp_path, "c", status="running", since=1)  # another process has its number now
    run(tmp_path, "d", status="running", host="elsewhere", pid=1)
    (tmp_path / "e" / ".hydra").mkdir(parents=True)
    (tmp_path / "no run").mkdir()
    said("runs", str(tmp_path))
    rows = shown(capsys)
    assert rows["a"][:4] == ["kmq", "4", "finished", "task 0.5000"]
    assert {name: cells[2] for name, cells in rows.items() if len(name) == 1} == {
        "a": "finished", "b": "running", "c": "killed", "d": "running", "e": "no record"
    }  # fmt: skip
    assert "no run" not in rows


def test_old_runs_go_and_running_ones_never(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (run(tmp_path, f"r{age}", status="finished", age=age * DAY) for age in (40, 1))
    running = run(tmp_path, "running", status="running", age=40 * DAY)
    failed = run(tmp_path, "failed", status="failed")
    with pytest.raises(ConfigError, match="say which runs"):
        said("runs", str(tmp_path), "--clear")
    said("runs", str(tmp_path), "--older-than", "30d", "--clear")
    out = capsys.readouterr().out
    assert "removed: 1 runs" in out and "running, and left: 1 runs" in out
    assert not old.exists() and new.exists() and running.exists() and failed.exists()
    said("runs", str(tmp_path), "--status", "failed", "--clear")
    assert not failed.exists() and new.exists()


def test_ages_and_sizes() -> None:
    assert [seconds(age) for age in ("90m", "12h", "30d", "2w")] == [5400, 43200, 30 * DAY, 14 * DAY]
    for wrong in ("30", "d", "-1d", "1.5d", "3 d"):
        with pytest.raises(ConfigError, match="--older-than"):
            seconds(wrong)
    assert [human(size) for size in (0, 999, 1000, 2_500_000, 7e12, 5e15)] == [
        "0 B", "999 B", "1.0 kB", "2.5 MB", "7.0 TB", "5,000.0 TB"
    ]  # fmt: skip
