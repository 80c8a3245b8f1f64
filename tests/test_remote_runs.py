"""Folders of runs at a URL: copied as they go, found by other machines, read by the commands."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import fsspec
import pytest

from dsel import sweep
from dsel.cache import Cache
from dsel.errors import ConfigError
from dsel.housekeeping import run as housekeeping
from dsel.record.reader import NAME, RunFolder
from dsel.record.writer import Record
from dsel.remote import Remote, Unreachable
from dsel.remote_runs import SCRATCH, Runs, here, need_here, original
from dsel.report.__main__ import make, parse

URL = "memory://bucket/runs"
KEY = "0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    yield
    fsspec.filesystem("memory").store.clear()


def there() -> list[str]:
    return sorted(Remote(URL, "runs").files())


def made(runs: Runs, name: str = "one", *, status: str = "finished", saved: bool = True) -> Path:
    """A run with its record, its results and weights, as `dsel.run` leaves it."""
    folder = runs.folder / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("budget: 1\n")
    record = Record(folder, {"seed": 0}, {"selector": "random"}, keep=lambda: runs.keep(folder))
    record.facts["key"] = KEY
    record.begun = True
    with record.stage("select"):
        for file in sweep.RESULTS:
            (folder / file).write_text(f"{file} of {name}")
    if saved:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("large")
    sweep.remember(runs.folder, KEY, folder)
    record.finish(status)
    return folder


def test_where_a_url_is_on_this_machine(tmp_path: Path) -> None:
    assert here("runs", "/s") == "runs"
    assert here("s3://bucket/a//b/", "/s") == "/s/runs/s3/bucket/a/b"
    for wrong in ("s3://", "s3://bucket/../x"):
        with pytest.raises(ConfigError, match="wants a bucket, or a folder in it"):
            here(wrong, "/s")
    for url in ("s3://bucket/a/b", "file:///a/b"):
        protocol, _, path = url.partition("://")
        assert original(tmp_path / "scratch" / "read" / protocol / path.strip("/")) == url
    assert original("/s/runs") == "/s/runs"


def test_a_run_is_there_after_each_stage_and_its_record_is_last(tmp_path: Path) -> None:
    runs = Runs(URL, str(tmp_path / "a"))
    runs.check()
    folder = runs.folder / "one"
    folder.mkdir(parents=True)
    record = Record(folder, {"seed": 0}, {}, keep=lambda: runs.keep(folder))
    with record.stage("data"):
        pass
    assert there() == [".dsel"]  # it may still be refused
    record.begun = True
    with record.stage("select"):
        (folder / "selected.jsonl").write_text("{}")
        (folder / ".123-selection.parquet").write_text("half")
        (folder / "link").symlink_to(folder / "selected.jsonl")
    assert there() == [".dsel", f"one/{NAME}", "one/selected.jsonl"]
    record.finish("failed", error="out of memory")
    found = json.loads(Remote(URL, "runs").read(f"one/{NAME}") or b"")
    assert (found["status"], [stage["name"] for stage in found["stages"]]) == ("failed", ["data", "select"])


def test_only_what_has_changed_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    put = Remote.put

    def counted(self: Remote, files: dict[str, Path], title: str) -> None:
        sent.extend(files)
        put(self, files, title)

    monkeypatch.setattr(Remote, "put", counted)
    runs = Runs(URL, str(tmp_path / "a"))
    folder = made(runs)
    sent.clear()
    runs.keep(folder)
    assert sent == []
    (folder / "run.log").write_text("more")
    runs.keep(folder)
    assert sent == ["one/run.log"]


def test_a_finished_run_is_found_by_another_machine(tmp_path: Path) -> None:
    a, b = (Runs(URL, str(tmp_path / name)) for name in "ab")
    folder = made(a)
    assert not b.fetch(KEY)  # its entry is the last
    a.finish(folder, KEY)
    assert b.fetch(KEY)
    found = sweep.finished(b.folder, KEY)
    assert found == b.folder / "one"
    assert RunFolder.read(found).status == "finished"
    assert (found / "selected.jsonl").read_text() == "selected.jsonl of one"
    assert not (found / "model").exists() and "one/model/weights" in there()


def test_a_finished_run_that_is_damaged_there_runs_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a, b = (Runs(URL, str(tmp_path / name)) for name in "ab")
    a.finish(made(a), KEY)
    Remote(URL, "runs").write("one/selected.jsonl", b"something else")
    b.fetch(KEY)
    assert sweep.finished(b.folder, KEY) is None
    assert "a finished run is damaged and runs again" in caplog.text
    for content in (b"{}", b"what", b"\xff"):
        Remote(URL, "runs").write(f".finished/{KEY}.json", content)
        assert not b.fetch(KEY)


@pytest.mark.parametrize("folder", ["../../one", "/one", "", "."])
def test_an_entry_that_names_a_folder_elsewhere_is_none(folder: str, tmp_path: Path) -> None:
    from dsel.files import with_digest

    entry = with_digest({"folder": folder, "files": {}, "weights": []})
    Remote(URL, "runs").write(f".finished/{KEY}.json", json.dumps(entry).encode())
    assert not Runs(URL, str(tmp_path / "b")).fetch(KEY)


def test_a_copy_that_fails_is_said_and_at_the_end_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object) -> None:
        raise Unreachable("runs=memory://bucket/runs: it cannot be reached")

    runs = Runs(URL, str(tmp_path / "a"))
    with monkeypatch.context() as broken:
        broken.setattr(Remote, "put", fails)
        folder = made(runs)
        assert "one is not copied for now: runs=memory://bucket/runs: it cannot be reached" in caplog.text
        with pytest.raises(ConfigError, match=f"cannot be reached; the run is complete, in {folder} alone"):
            runs.finish(folder, KEY)
    assert there() == []
    runs.finish(folder, KEY)
    assert "one/selected.jsonl" in there()


def test_a_folder_of_this_machine_has_no_copies(tmp_path: Path) -> None:
    runs = Runs(str(tmp_path / "runs"), str(tmp_path / "scratch"))
    runs.check()
    runs.finish(made(runs), KEY)
    assert not runs.fetch(KEY) and runs.folder == tmp_path / "runs"
    assert not (tmp_path / "scratch").exists()


def test_what_commands_read_is_downloaded_once_and_follows_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[str] = []
    get = Remote.get

    def counted(self: Remote, files: dict[str, Path], title: str) -> None:
        got.extend(files)
        get(self, files, title)

    monkeypatch.setattr(Remote, "get", counted)
    with pytest.raises(ConfigError, match="runs=memory://bucket/runs: nothing is there"):
        need_here(URL, option="runs")
    runs = Runs(URL, str(tmp_path / "a"))
    runs.finish(made(runs), KEY)
    runs.finish(made(runs, "two"), KEY)
    folder = need_here(URL, option="runs")
    assert folder == tmp_path / "scratch" / "read" / "memory" / "bucket" / "runs"
    assert (folder / "one" / "selected.jsonl").exists() and not (folder / "one" / "model").exists()
    got.clear()
    assert need_here(URL, option="runs") == folder and got == []
    assert original(need_here(f"{URL}/two", option="RUN")) == f"{URL}/two"
    Remote(URL, "runs").remove("two")
    need_here(URL, option="runs")
    assert not (folder / "two" / NAME).exists() and (folder / "one" / NAME).exists()


def test_runs_at_a_url_are_listed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs(URL, str(tmp_path / "a"))
    for name, status in (("one", "finished"), ("two", "failed")):
        runs.finish(made(runs, name, status=status), KEY)
    housekeeping(["runs", URL])
    said = capsys.readouterr().out
    assert URL in said and "one" in said and "failed" in said
    housekeeping(["runs", URL, "--status", "failed", "--clear"])
    assert "removed: 1 runs" in capsys.readouterr().out
    assert not any(name.startswith("two/") for name in there()) and f"one/{NAME}" in there()


def test_a_cache_at_a_url_is_listed_and_removed_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no table is folded
    url = "memory://bucket/cache"
    cache = Cache(tmp_path / "scratch", Remote(url, "cache"))
    for kind in ("scores", "embeddings"):
        cache.artifact(kind, "key", lambda folder: (folder / "data").write_bytes(b"x" * 5000) and None)  # type: ignore[func-returns-value]
    Remote(url, "cache").write("embeddings/0123456789abcdef01234567.partial/shard", b"x")
    housekeeping(["cache", "--cache", url])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{url} has 3 artifacts, 10." in said and "--there shows those" in said and "not used since" in said
    housekeeping(["cache", "scores", "--cache", url, "--clear"])
    assert "removed: 1 artifacts" in capsys.readouterr().out
    assert not cache.path("scores", "key").exists() and cache.has("scores", "key")  # there it is
    housekeeping(["cache", "--cache", url, "--there"])
    said = capsys.readouterr().out
    assert "last upload" in said and "scores" in said
    housekeeping(["cache", "embeddings", "--cache", url, "--there", "--clear"])
    assert {name.partition("/")[0] for name in Remote(url, "cache").files()} == {"scores"}
    with pytest.raises(ConfigError, match="is no URL"):
        housekeeping(["cache", "--cache", str(tmp_path), "--there"])


def test_a_run_on_another_machine_computes_nothing_again(
    dsel_run: Callable[..., CompletedProcess[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = f"file://{tmp_path}/there"
    asked = ["-m", "experiments=quickstart", "selector=kmeans_uniform", "data.size=200", "clusterer.k=5"]
    asked += ["trainer=none", "evaluator=none", "tracker=none", f"cache={there}/cache", f"runs={there}/runs"]
    records = []
    for machine, rerun in (("a", "false"), ("b", "true")):
        done = dsel_run(*asked, f"rerun={rerun}", **{SCRATCH: str(tmp_path / machine)})
        assert done.returncode == 0, done.stderr
        (record,) = (tmp_path / machine / "runs").rglob(NAME)
        records.append(RunFolder.read(record.parent))
    stages = [
        {stage.name: stage.cached for stage in run.stages if stage.name in ("embed", "cluster")} for run in records
    ]
    assert stages == [{"embed": False, "cluster": False}, {"embed": True, "cluster": True}]
    assert records[0].folder is not None and records[1].folder is not None
    first, second = ((run.folder / "selected.jsonl").read_bytes() for run in records if run.folder)
    assert first == second
    caplog.set_level(logging.ERROR)
    report = make(parse(["experiments=quickstart", f"runs={there}/runs", "evaluator=none"]))
    assert any(f"run folders under {there}/runs" in note for note in report.notes)
    assert os.environ[SCRATCH]
