"""A disk that is full, folders that cannot be written, no HOME: one line, and an equal run once that has passed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.faults.kills import Pipeline, left
from tests.faults.launch import Ended
from tests.faults.outcome import Outcome, Trial


def may_mount() -> bool:
    """Whether this process can make file systems of its own (root, or a namespace that lets it)."""
    try:
        with disk(Path("/tmp") / f"dsel-mount-{os.getpid()}", "size=64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at `folder`, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def again(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True)


def full_disks(pipeline: Pipeline, shares: list[float]) -> Iterator[Trial]:
    """The cache, and the folder of runs, on a disk that is too small by more or less."""
    for name in ("cache", "runs"):
        for share in shares:
            yield partial(_full, pipeline, name, share)


def _full(pipeline: Pipeline, name: str, share: float) -> Outcome:
    needed = sum(p.stat().st_blocks * 512 for p in (pipeline.folder / "calm" / name).rglob("*") if p.is_file())
    needed *= 4 if name == "cache" else 1  # trained weights and checkpoints have gone by now
    folder = pipeline.folder / f"full-{name}-{share}"
    with disk(folder / name, f"size={max(8192, int(needed * share))}"):
        first = pipeline.run(folder)
        again(folder / name, "size=1g")
        return judged(pipeline, folder, first, "disk full", f"{name}, room for {share:.0%}", fails=share < 0.2)


def read_only(pipeline: Pipeline) -> Iterator[Trial]:
    """Folders on a disk that cannot be written."""
    for name in ("cache", "runs", "home"):
        yield partial(_read_only, pipeline, name)


def _read_only(pipeline: Pipeline, name: str) -> Outcome:
    folder = pipeline.folder / f"read-only-{name}"
    with disk(folder / name, "size=1g"):
        again(folder / name, "ro")
        first = pipeline.run(folder)
        again(folder / name, "rw")
        return judged(pipeline, folder, first, "read-only", name, fails=name != "home")


def no_home(pipeline: Pipeline) -> Iterator[Trial]:
    """HOME that is nowhere, is a file, or is not set at all."""
    (pipeline.folder / "a-file").write_text("")
    for name, home in (("missing", "/nowhere/home"), ("a file", str(pipeline.folder / "a-file")), ("unset", "")):
        yield partial(_no_home, pipeline, name, home)


def _no_home(pipeline: Pipeline, name: str, home: str) -> Outcome:
    folder = pipeline.folder / f"home-{name.replace(' ', '-')}"
    return judged(pipeline, folder, pipeline.run(folder, environment={"HOME": home}), "no HOME", name, fails=False)


PLACES = {
    "embeddings": ["dsel.npy:Rows.write */embeddings/*"],
    "clusters": ["dsel.clusterer.base:Clustering.save */clusterings/*"],
    "scores": ["numpy:save */scores/*"],
    "the selection": ["dsel.record.writer:write_selection"],
    "a checkpoint": ["dsel.trainer.sft:tokenized", "dsel.trainer.checkpoints:save_state"],
    "trained weights": ["dsel.trainer.job:save"],
    "the record": ["dsel.record.writer:Record.metrics"],
    "the tracker": ["dsel.tracker.wandb:Wandb.finish"],
    "the note of a finished run": ["dsel.sweep:remember"],
}


def errors(pipeline: Pipeline) -> Iterator[Trial]:
    """Errors of a disk at the moment something is written, one place after the other."""
    for where in PLACES:
        for fault in ("ENOSPC", "EIO", "EACCES"):
            yield partial(_error, pipeline, where, fault)


def _error(pipeline: Pipeline, where: str, fault: str) -> Outcome:
    folder = pipeline.folder / f"{fault}-{where.replace(' ', '-')}"
    first = pipeline.run(folder, point=PLACES[where], fault=fault)
    return judged(pipeline, folder, first, fault, where, fails=True)


def judged(pipeline: Pipeline, folder: Path, first: Ended, fault: str, where: str, *, fails: bool) -> Outcome:
    """What a launch under a fault, and one after it, came to."""
    wrong = []
    if first.traceback:
        wrong.append("traceback")
    if fails and first.code == 0:
        wrong.append("it ended as if nothing had been")
    if first.code not in (0, 1, 2):
        wrong.append(f"ended with {first.code}: {first.out[-300:]}")
    last = pipeline.run(folder)
    if last.code != 0:
        wrong.append(f"afterwards it ended with {last.code}: {last.out[-300:]}")
    elif left(folder / "runs") != pipeline.expected:
        wrong.append("another selection or other metrics afterwards")
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    lines = [line for line in first.out.splitlines() if "this run failed" in line or line.startswith("dsel: ")]
    if first.code and not lines:
        wrong.append("no line says why")
    return Outcome(fault, where, "one line, and equal afterwards" if first.code else "no matter", "; ".join(wrong))
