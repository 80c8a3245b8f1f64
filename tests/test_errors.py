"""Errors of the world, in one line whoever raises them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from dsel.errors import WORLD, ConfigError, need_path, world


@pytest.mark.parametrize("number", WORLD)
def test_an_error_of_the_system_says_where_and_what_to_do(number: int) -> None:
    line = world(OSError(number, os.strerror(number), "/disk/a.npy"))
    assert line is not None and line.startswith("/disk/a.npy: ") and "\n" not in line


def test_what_a_library_made_of_it_is_known_again(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "the disk is full" in str(world(full))
    wrapped = RuntimeError("it failed")
    wrapped.__cause__ = OSError(errno.EROFS, "Read-only file system", "/ro/x")
    assert str(world(wrapped)).startswith("/ro/x: it cannot be written")


def test_memory_is_of_the_world_and_a_fault_of_ours_is_not() -> None:
    assert "out of memory" in str(world(MemoryError()))
    assert world(KeyError("x")) is None
    assert world(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_what_numpy_says_of_a_full_disk_is_known() -> None:
    with pytest.raises(OSError) as full, Path("/dev/full").open("wb") as file:
        np.save(file, np.zeros(100_000))
    assert "the disk is full" in str(world(full.value))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "Job (task=0) with path r.pkl has not produced any output (state: CANCELLED)\nErrors",
            "(state: CANCELLED): the",
        ),
        (
            "sbatch: error: it is\nsbatch: error: Invalid partition",
            "cannot be submitted: sbatch: error: Invalid partition",
        ),
    ],
)
def test_what_submitit_says_is_one_line(said: str, line: str) -> None:
    class FailedJobError(RuntimeError):
        pass

    found = world(FailedJobError(said))
    assert found is not None and line in found and "\n" not in found


@pytest.mark.parametrize(("path", "looked"), [("gone", "{cwd}/gone"), ("~/gone", "{home}/gone"), ("/gone/x", None)])
def test_a_path_with_nothing_there_is_said_as_it_was_looked_for(
    path: str, looked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home := tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    told = "" if looked is None else f" (looked for {looked.format(cwd=tmp_path, home=home)})"
    with pytest.raises(ConfigError) as said:
        need_path(path, option="data.path")
    assert str(said.value) == f"data.path={path}: no such file or folder{told}"
