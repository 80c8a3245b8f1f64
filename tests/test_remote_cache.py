"""Artifacts at a URL: made once for all machines, whole or not there, whoever dies, races or damages them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from dsel import remote_cache
from dsel.cache import Cache, Lease
from dsel.component import digest
from dsel.errors import ConfigError
from dsel.files import DIGESTS, digest_of, piece, save_piece, seal, with_digest, write_json
from dsel.remote import Remote, Unreachable
from dsel.remote_cache import KEY, RemoteCache, finished_parts

NAME = f"things/{digest('key')}"


def fill(folder: Path) -> None:
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "data").write_text("whole")
    (folder / "deep" / "more").write_text("too")


def never(folder: Path) -> None:
    raise AssertionError("made again")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[str], Cache]]:
    """A cache of a machine, by its name, with the same URL behind it."""
    yield lambda name: Cache(tmp_path / name, Remote("memory://bucket/cache", "cache"))
    fsspec.filesystem("memory").store.clear()


def there() -> dict[str, bytes]:
    store = fsspec.filesystem("memory").store
    return {path.removeprefix("/bucket/cache/"): file.getvalue() for path, file in store.items()}


def test_what_one_machine_made_is_there_for_another(machine: Callable[[str], Cache]) -> None:
    folder, cached = machine("a").artifact("things", "key", fill)
    assert not cached
    other, cached = machine("b").artifact("things", "key", never)
    assert cached and other != folder
    assert {p.name: p.read_bytes() for p in other.rglob("*") if p.is_file()} == {
        p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }
    assert sorted(p.name for p in other.parent.iterdir() if p.is_dir()) == [other.name]
    assert machine("b").artifact("things", "key", never) == (other, True)


def test_a_half_upload_is_no_artifact(machine: Callable[[str], Cache]) -> None:
    machine("a").artifact("things", "key", fill)
    fsspec.filesystem("memory").rm(f"/bucket/cache/{NAME}/{KEY}")
    assert there()
    assert not machine("b").has("things", "key")
    assert machine("b").artifact("things", "key", fill)[1] is False
    assert machine("c").artifact("things", "key", never)[1] is True


@pytest.mark.parametrize("file", ["data", KEY])
def test_what_is_damaged_there_is_said_and_made_again(
    file: str, machine: Callable[[str], Cache], caplog: pytest.LogCaptureFixture
) -> None:
    machine("a").artifact("things", "key", fill)
    store = fsspec.filesystem("memory")
    (path,) = (path for path in store.find(f"/bucket/cache/{NAME}") if path.endswith(file))
    whole = store.cat_file(path)
    store.pipe_file(path, whole[:-1] + b"?")
    assert machine("b").artifact("things", "key", fill)[1] is False
    assert "is damaged" in caplog.text and "made again" in caplog.text
    assert store.cat_file(path) == whole
    assert machine("c").artifact("things", "key", never)[1] is True


def test_a_file_that_is_gone_there_is_made_again(
    machine: Callable[[str], Cache], caplog: pytest.LogCaptureFixture
) -> None:
    machine("a").artifact("things", "key", fill)
    store = fsspec.filesystem("memory")
    store.rm(next(path for path in store.find(f"/bucket/cache/{NAME}") if path.endswith("data")))
    assert machine("b").artifact("things", "key", fill)[1] is False
    assert "a file is missing" in caplog.text
    assert machine("c").artifact("things", "key", never)[1] is True


def test_a_manifest_that_names_files_elsewhere_is_none(
    machine: Callable[[str], Cache], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    content = with_digest({"key": "key", "files": {"../../../out": [1, "x"]}, "in": "f"})
    Remote("memory://bucket/cache", "cache").write(f"{NAME}/{KEY}", json.dumps(content).encode())
    assert machine("b").artifact("things", "key", fill)[1] is False
    assert "names files that are elsewhere" in caplog.text
    assert not list(tmp_path.rglob("out"))


def test_two_that_race_with_different_content_leave_no_mixture(machine: Callable[[str], Cache]) -> None:
    """As two kinds of processors may compute it: files of both, and one manifest."""

    def slow(folder: Path) -> None:
        machine("a").artifact("things", "key", fill)
        (folder / "data").write_text("other")
        (folder / "deep").mkdir()
        (folder / "deep" / "more").write_text("too")

    made, _ = machine("b").artifact("things", "key", slow)
    assert (made / "data").read_text() == "other"
    found, cached = machine("c").artifact("things", "key", never)
    assert cached and (found / "data").read_text() == "whole"  # the first is there already: nothing is uploaded twice
    a, b = (RemoteCache(Remote("memory://bucket/cache", "cache")) for _ in range(2))
    a._damaged.add(NAME)  # both have found it damaged, and upload
    b._damaged.add(NAME)
    a.upload(NAME, found)
    b.upload(NAME, made)
    assert (machine("d").artifact("things", "key", never)[0] / "data").read_text() == "other"


def test_what_was_here_before_is_uploaded_when_it_is_found(machine: Callable[[str], Cache], tmp_path: Path) -> None:
    Cache(tmp_path / "a").artifact("things", "key", fill)
    assert machine("a").artifact("things", "key", never)[1] is True
    assert machine("b").artifact("things", "key", never)[1] is True


def test_files_that_name_folders_stay_here(machine: Callable[[str], Cache]) -> None:
    machine("a").artifact("tasks", "key", fill)
    assert there() == {}


def test_a_url_that_fails_is_said_and_the_work_goes_on(
    machine: Callable[[str], Cache], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object) -> None:
        raise Unreachable("cache=memory://bucket/cache: it cannot be reached")

    with monkeypatch.context() as broken:
        for name in ("read", "put", "files"):
            broken.setattr(Remote, name, fails)
        folder, cached = machine("a").artifact("things", "key", fill)
        assert not cached and (folder / "data").read_text() == "whole"
    assert f"{NAME} is not downloaded, and made here: cache=memory://bucket/cache: it cannot be reached" in caplog.text
    assert f"{NAME} stays on this machine, until a run finds it there" in caplog.text
    machine("a").artifact("things", "key", never)
    assert machine("b").artifact("things", "key", never)[1] is True


def test_a_download_goes_on_where_it_was_interrupted(
    machine: Callable[[str], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("a").artifact("things", "key", fill)
    cache, got = machine("b"), []
    get = Remote.get

    def counted(self: Remote, files: dict[str, Path], title: str) -> None:
        got.append(sorted(path.name for path in files.values()))
        get(self, files, title)

    monkeypatch.setattr(Remote, "get", counted)
    fetched = cache.path("things", "key").with_suffix(".fetched")
    fetched.mkdir(parents=True)
    (fetched / "data").write_text("whole")
    (fetched / "strange").write_text("of another upload")
    folder, cached = cache.artifact("things", "key", never)
    assert cached and got == [["more"]] and not (folder / "strange").exists()


def test_a_file_that_was_dropped_here_comes_back(machine: Callable[[str], Cache]) -> None:
    cache = machine("a")
    folder, _ = cache.artifact("things", "key", fill)
    Lease(folder).drop("data")
    assert not (folder / "data").exists()
    assert cache.artifact("things", "key", never, needs=["data"]) == (folder, True)
    assert (folder / "data").read_text() == "whole"


def test_what_is_withdrawn_is_there_no_more(machine: Callable[[str], Cache]) -> None:
    cache = machine("a")
    folder, _ = cache.artifact("things", "key", fill)
    cache.withdraw("things", folder.name)
    assert there() == {} and folder.exists()
    Cache(folder.parent.parent).withdraw("things", folder.name)  # nothing to do


def test_a_build_that_fails_goes_on_on_another_machine(
    machine: Callable[[str], Cache], caplog: pytest.LogCaptureFixture
) -> None:
    def half(folder: Path) -> None:
        save_piece(folder / "shard-x-0.json", lambda file: file.write_text("[1]") and None)  # type: ignore[func-returns-value]
        (folder / "scribble").write_text("who knows")
        raise ConfigError("the machine goes")

    def rest(folder: Path) -> None:
        assert piece(folder / "shard-x-0.json") is not None
        assert not (folder / "scribble").exists()
        fill(folder)

    with pytest.raises(ConfigError, match="the machine goes"):
        machine("a").artifact("things", "key", half)
    assert sorted(there()) == [f"{NAME}.partial/shard-x-0.json", f"{NAME}.partial/shard-x-0.json.xxh3"]
    caplog.set_level(logging.INFO)
    machine("b").artifact("things", "key", rest)
    assert "going on from what is there (2 files)" in caplog.text
    assert not any(".partial" in name for name in there())


def test_what_is_finished_is_copied_now_and_then(
    machine: Callable[[str], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(remote_cache, "EVERY", 0.02)

    def waits(name: str, *, gone: bool = False) -> None:
        end = time.monotonic() + 20
        while any(each.endswith(name) for each in there()) == gone:
            assert time.monotonic() < end
            time.sleep(0.01)

    def build(folder: Path) -> None:
        save_piece(folder / "shard-x-0.npy", lambda file: np.save(file, np.arange(3)))
        waits("shard-x-0.npy")
        (folder / "shard-x-0.npy").unlink()
        waits("shard-x-0.npy", gone=True)

    machine("a").artifact("things", "key", build)


def test_finished_parts_are_what_can_be_verified_in_their_order(tmp_path: Path) -> None:
    save_piece(tmp_path / "shard-a-0.npy", lambda file: np.save(file, np.arange(3)))
    (tmp_path / "embeddings.npy").write_bytes(b"rows")
    (tmp_path / "shard-embed.jsonl").write_text("{}")
    (tmp_path / ".1-new.npy").write_bytes(b"half")
    (tmp_path / "rows.arrow").write_bytes(b"half")
    checkpoint = tmp_path / "checkpoints" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text("w")
    write_json(checkpoint / DIGESTS, seal(checkpoint))
    (tmp_path / "checkpoints" / "checkpoint-6").mkdir()
    (tmp_path / "checkpoints" / "checkpoint-6" / "weights").write_text("half")
    groups = [[path.relative_to(tmp_path).as_posix() for path in group] for group in finished_parts(tmp_path)]
    assert groups == [
        ["shard-a-0.npy.xxh3"],
        ["shard-a-0.npy"],
        ["shard-embed.jsonl"],
        ["embeddings.npy"],
        ["checkpoints/checkpoint-5/weights"],
        ["checkpoints/checkpoint-5/digests.json"],
    ]
    assert digest_of(checkpoint / "weights")
