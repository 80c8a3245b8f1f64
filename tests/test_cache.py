"""The store of artifacts: computed once, whole or not there, whoever races and whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel import files
from dsel.cache import Cache, Lease
from dsel.component import digest
from dsel.files import write_json

ROOT = Path(__file__).resolve().parents[1]
KEY = {"pool": "abc", "embedder": {"class": "x", "path": Path("a") / "b"}}


def fill(folder: Path) -> None:
    (folder / "data").write_text("whole")


def test_what_a_power_cut_has_taken_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE", 4)
    cache, synced = Cache(tmp_path), list[str]()
    monkeypatch.setattr(files, "sync", lambda path: synced.append(path.name))
    folder, _ = cache.artifact("things", KEY, fill, wait=False)
    assert "data" not in synced and any(name.endswith("key.json") for name in synced)
    old = time.time() - 60
    os.utime(folder / "data", (old, old))
    files._known.clear()
    assert cache.artifact("things", KEY, fill, wait=False) == (folder, True)
    (folder / "data").write_text("\0" * 5)  # of its length, but never written
    os.utime(folder / "data", (old, old))
    files._known.clear()
    assert cache.artifact("things", KEY, fill, wait=False) == (folder, True)  # read a moment ago
    files._known.clear()
    monkeypatch.setattr(files, "started", lambda: "after it")
    assert cache.artifact("things", KEY, fill, wait=False) == (folder, False)
    assert (folder / "data").read_text() == "whole"


def test_an_artifact_is_built_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder, cached = cache.artifact("things", KEY, fill)
    assert not cached
    assert folder == cache.path("things", KEY) == tmp_path / "things" / digest(KEY)
    assert (folder / "data").read_text() == "whole"
    known = json.loads((folder / "key.json").read_text())
    assert known["key"] == {"pool": "abc", "embedder": {"class": "x", "path": "a/b"}}
    assert known["files"] == {"data": [5, xxhash.xxh3_128_hexdigest(b"whole")]}

    def never(folder: Path) -> None:
        raise AssertionError("built twice")

    assert Cache(str(tmp_path)).artifact("things", KEY, never) == (folder, True)
    assert sorted(p.name for p in folder.iterdir()) == ["data", "key.json"]


def test_kinds_and_keys_are_kept_apart(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folders = [cache.artifact(kind, key, fill) for kind in ("a", "b") for key in ("x", "y")]
    assert len({f for f, _ in folders}) == 4
    assert not any(cached for _, cached in folders)


def test_a_failed_build_leaves_no_artifact_and_is_continued(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fails(folder: Path) -> None:
        (folder / "first").write_text("half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        cache.artifact("things", KEY, fails)
    assert not cache.path("things", KEY).exists()

    def goes_on(folder: Path) -> None:
        assert (folder / "first").read_text() == "half"
        fill(folder)

    folder, cached = cache.artifact("things", KEY, goes_on)
    assert not cached
    assert {p.name for p in folder.iterdir()} == {"first", "data", "key.json"}


WORKER = """
import os, signal, sys, time
from pathlib import Path
from dsel import files
from dsel.cache import Cache, Lease

root, role = Path(sys.argv[1]), sys.argv[2]

def build(folder):
    with (root / "builds").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    if role == "dies":
        (folder / "first").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    (folder / "data").write_text("whole" if role == "races" else (folder / "first").read_text() + " whole")

if role == "races":
    (root / f"ready-{os.getpid()}").touch()
    while len(list(root.glob("ready-*"))) < 4:
        time.sleep(0.005)
folder, cached = Cache(root / "cache").artifact("things", "key", build)
print(cached, (folder / "data").read_text())
"""


def start(root: Path, role: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(root), role]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_of_racing_processes_one_builds_and_all_read(tmp_path: Path) -> None:
    workers = [start(tmp_path, "races") for _ in range(4)]
    said = sorted(worker.communicate(timeout=60)[0].strip() for worker in workers)
    assert said == ["False whole", "True whole", "True whole", "True whole"]
    assert len((tmp_path / "builds").read_text().split()) == 1


def test_a_killed_builder_blocks_nobody_and_its_work_is_continued(tmp_path: Path) -> None:
    killed = start(tmp_path, "dies")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    things = tmp_path / "cache" / "things"
    assert [p for p in things.iterdir() if p.is_dir() and p.suffix != ".partial"] == []
    assert start(tmp_path, "continues").communicate(timeout=60)[0].strip() == "False half whole"
    assert [p.suffix for p in things.iterdir() if p.is_dir()] == [""]


@settings(deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, stop = tmp_path / "record.json", threading.Event()
    write_json(path, {"n": 0, "items": []})
    seen: list[int] = []
    broken: list[Exception] = []

    def watch() -> None:
        while not stop.is_set():
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
                assert len(value["items"]) == value["n"]
            except Exception as error:
                broken.append(error)
                return
            seen.append(value["n"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(150):
        n = i * 37 % 2000
        write_json(path, {"n": n, "items": list(range(n))})
    stop.set()
    watcher.join()
    assert not broken
    assert len(set(seen)) > 1
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"old": True})
    with pytest.raises((TypeError, ValueError)):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"old": True}


@pytest.mark.parametrize(
    "harm", ["flip", "key flipped", "empty", "lost", "key lost", "key torn", "key of before", "key of another kind"]
)
def test_a_damaged_artifact_is_set_aside_and_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    cache = Cache(tmp_path)
    folder, _ = cache.artifact("things", KEY, fill)
    data, key = folder / "data", folder / "key.json"
    if harm == "lost":
        data.unlink()
    elif harm == "key flipped":  # where nobody looks
        key.write_text(key.read_text().replace("abc", "abd"))
    elif harm == "key lost":
        key.unlink()
    elif harm in ("flip", "empty"):
        data.write_text({"flip": "wholf", "empty": ""}[harm])
    else:
        key.write_text({"key torn": '{"key"', "key of before": '{"pool": "abc"}', "key of another kind": "[]"}[harm])
    for cached in (False, True):
        assert cache.artifact("things", KEY, fill) == (folder, cached)
        assert (folder / "data").read_text() == "whole"
    assert caplog.text.count("is damaged") == 1
    assert folder.with_suffix(".damaged").is_dir()


def test_a_leased_artifact_stays_and_the_last_lease_takes_it_away(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder = cache.path("things", KEY)
    one, two = Lease(folder), Lease(folder)
    cache.artifact("things", KEY, fill)
    one.remove()
    assert (folder / "data").exists()
    three = Lease(folder)
    del two  # a process that ended
    three.remove()
    assert not folder.exists()
    assert not list(folder.parent.glob("*gone*"))


def test_a_file_is_dropped_when_nobody_else_needs_it_and_made_again_for_who_does(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def both(folder: Path) -> None:
        fill(folder)
        (folder / "extra").write_text("e")

    folder, _ = cache.artifact("things", KEY, both)
    mine, other = Lease(folder), Lease(folder)
    mine.drop("extra")
    assert (folder / "extra").exists()
    del other
    mine.drop("extra")
    assert not (folder / "extra").exists()
    assert cache.artifact("things", KEY, both) == (folder, True)
    inode = (folder / "data").stat().st_ino
    assert cache.artifact("things", KEY, both, needs=["extra"]) == (folder, False)
    assert (folder / "data").stat().st_ino == inode  # whoever reads it is not disturbed
    assert cache.artifact("things", KEY, both, needs=["extra"]) == (folder, True)
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == [folder.name]
