"""Files that are whole or not there, and known again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from dsel import files
from dsel.files import (
    content_digest,
    damage,
    digest_of,
    piece,
    read_json,
    remove,
    replacing,
    save_piece,
    seal,
    write_json,
)


def test_a_file_is_replaced_when_all_of_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = files.sync

    def note(path: Path) -> None:
        synced.append(path.name)
        sync(path)

    monkeypatch.setattr(files, "sync", note)
    path = tmp_path / "a.json"
    write_json(path, {"x": "ü"})
    assert json.loads(path.read_text()) == {"x": "ü"}
    assert synced == [f".{os.getpid()}-a.json", tmp_path.name]
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"x": "ü"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_digest_is_that_of_the_bytes_and_follows_them(tmp_path: Path) -> None:
    path = tmp_path / "big"
    data = np.random.default_rng(0).bytes(2 * files.BLOCK + 17)
    path.write_bytes(data)
    assert digest_of(path) == xxhash.xxh3_128_hexdigest(data)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert digest_of(path) == xxhash.xxh3_128_hexdigest(path.read_bytes()) != xxhash.xxh3_128_hexdigest(data)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "longer", "lost", "other"])
def test_any_change_of_a_sealed_folder_is_found(tmp_path: Path, harm: str) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.npy", "sub/b.json"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    sealed = json.loads(json.dumps(seal(tmp_path)))
    assert sorted(sealed) == ["a.npy", "sub/b.json"]
    assert damage(tmp_path, sealed) is None
    for name in sealed:
        path = tmp_path / name
        before = path.read_bytes()
        harmed = bytearray(before)
        harmed[50] ^= 4
        changes = {
            "flip": bytes(harmed),
            "cut": before[:-3],
            "empty": b"",
            "longer": before + b"\0",
            "other": before[::-1],
        }
        if harm == "lost":
            path.unlink()
        else:
            path.write_bytes(changes[harm])
        assert name in str(damage(tmp_path, sealed))
        path.write_bytes(before)
        assert damage(tmp_path, sealed) is None


def test_a_piece_that_is_damaged_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "shard-0.npy"

    def made() -> bool:
        """Whether it had to be made."""
        if piece(path) is not None:
            return False
        save_piece(path, lambda file: np.save(file, np.arange(5.0)))
        return True

    for expected in (True, False):
        assert made() == expected
        np.testing.assert_array_equal(np.load(path), np.arange(5.0))
    assert not caplog.text
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert made()
    np.testing.assert_array_equal(np.load(path), np.arange(5.0))
    assert "shard-0.npy is damaged" in caplog.text
    path.with_name("shard-0.npy.xxh3").unlink()
    assert made()


def test_a_kill_between_a_piece_and_its_digest_costs_the_piece(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    with pytest.raises(RuntimeError):
        save_piece(path, lambda file: _fails())
    assert piece(path) is None
    save_piece(path, lambda file: file.write_text("old"))
    path.with_name("shard.xxh3").write_text('"' + xxhash.xxh3_128_hexdigest(b"new") + '"')  # killed before the rename
    assert piece(path) is None


def _fails() -> None:
    raise RuntimeError


def test_a_json_nested_too_deeply_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError):
        read_json(tmp_path / "deep.json")


def test_what_is_removed_first_loses_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "fit"
    folder.mkdir()
    (folder / "weights").write_text("w")
    monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: None)  # killed here
    remove(folder)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("fit.gone-")
    remove(folder)  # nothing there any more


def test_digests_of_large_files_are_remembered_and_follow_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE", 100)
    monkeypatch.setattr(files, "_memory", [tmp_path / "digests"])
    read: list[str] = []
    hashed, started = files.hashed, files.started

    def counted(path: Path, new: Any) -> str:
        read.append(path.name)
        return hashed(path, new)

    monkeypatch.setattr(files, "hashed", counted)
    big, small = tmp_path / "big", tmp_path / "small"

    def write(byte: bytes, seconds_ago: float) -> None:
        for path in (big, small):
            path.write_bytes(byte * (200 if path == big else 50))
            then = time.time() - seconds_ago
            os.utime(path, (then, then))

    def again() -> list[str]:
        monkeypatch.setattr(files, "_known", {})  # another process
        read.clear()
        for path in (big, small):
            assert content_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest_of(path) == xxhash.xxh3_128_hexdigest(path.read_bytes())
        return read

    write(b"a", 60)
    assert again() == ["big", "big", "small", "small"]
    assert again() == ["small", "small"]
    write(b"b", 50)
    assert again() == ["big", "big", "small", "small"]
    assert again() == ["small", "small"]
    monkeypatch.setattr(files, "DAY", 0)  # whether the disk has damaged it is looked at again, who has edited it is not
    assert again() == ["big", "small", "small"]
    monkeypatch.setattr(files, "DAY", 86400)
    assert again() == ["small", "small"]
    monkeypatch.setattr(files, "started", lambda: "the next day")  # what the disk had not got yet is lost
    assert again() == ["big", "small", "small"]
    monkeypatch.setattr(files, "started", started)  # and of two machines that share a disk, both may remember
    assert again() == ["small", "small"]
    for note in (tmp_path / "digests").iterdir():
        note.write_text("{}")
    assert again() == ["big", "big", "small", "small"]
    write(b"c", 0)
    assert again() == again() == ["big", "big", "small", "small"]  # written to a moment ago, and perhaps again
