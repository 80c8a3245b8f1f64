"""`python -m tests.faults [KIND …]`: put faults into real runs and write what happened into docs/faults.md."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path

from tests.conftest import ROOT
from tests.faults import corruptions, races, world
from tests.faults.kills import POINTS, SIGNALS, Pipeline
from tests.faults.launch import warm
from tests.faults.outcome import Trial, count, table

log = logging.getLogger("faults")

SOME = "--some"
TITLES = {
    "kills": "Killed at a point, launched again",
    "artifacts": "Cached artifacts damaged",
    "unfinished": "Unfinished work damaged: shards, checkpoints",
    "sweep": "A sweep's state damaged",
    "full": "Full disks",
    "readonly": "Folders that cannot be written",
    "home": "No HOME",
    "errors": "Errors of a disk while something is written",
    "races": "Many processes at once",
    "sweeps": "Sweeps at once",
}


def trials(kind: str, pipelines: Mapping[str, Pipeline]) -> Iterator[Trial]:
    """All faults of a kind."""
    kmq, iterative, iterit = (pipelines[name] for name in ("kmq", "iterative", "iterit"))
    if kind in ("full", "readonly") and not world.may_mount():
        log.warning("%s: left out, as this user may not mount file systems", TITLES[kind])
        return
    made: dict[str, Callable[[], Iterable[Trial]]] = {
        "kills": lambda: (partial(pipelines[name].killed, where, s) for name, where in POINTS for s in SIGNALS),
        "artifacts": lambda: corruptions.artifacts(iterative),
        "unfinished": lambda: chain(corruptions.unfinished(iterative), corruptions.unfinished(iterit)),
        "sweep": lambda: corruptions.sweep_state(kmq),
        "full": lambda: world.full_disks(kmq, [0.02, 0.1, 0.3, 0.5, 0.7]),
        "readonly": lambda: world.read_only(kmq),
        "home": lambda: world.no_home(kmq),
        "errors": lambda: world.errors(kmq),
        "races": lambda: races.equal_runs(iterit, 8, 5),
        "sweeps": lambda: [partial(races.equal_sweeps, iterit, 3)],
    }
    yield from made[kind]()


def some(pipelines: Mapping[str, Pipeline]) -> Iterator[Trial]:
    """A few faults of each kind: what `make test` runs."""
    kmq, iterative = pipelines["kmq"], pipelines["iterative"]
    yield partial(kmq.killed, "a checkpoint whole", "SIGUSR1")
    yield partial(kmq.killed, "evaluated", "SIGTERM")
    yield partial(kmq.killed, "tracker in its last second", "SIGKILL")
    yield partial(iterative.killed, "answers half generated", "SIGINT")
    yield from islice(corruptions.artifacts(iterative), 0, 40, 20)
    yield from islice(corruptions.unfinished(iterative), 1)
    yield from islice(corruptions.sweep_state(kmq), 0, 10, 6)
    yield from islice(world.errors(kmq), 12, 13)
    if world.may_mount():
        yield from islice(world.full_disks(kmq, [0.1]), 1)
    yield from races.equal_runs(iterative, 3, 1)


class Made(dict[str, Pipeline]):
    """Pipelines, each made and run once undisturbed when it is first wanted."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.model = folder, small_model(folder)

    def __missing__(self, name: str) -> Pipeline:
        self[name] = Pipeline(name, self.folder / name, self.model)
        return self[name]


def main(kinds: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    commit()  # before anything is written
    warm()
    folder = Path(tempfile.mkdtemp(prefix="dsel-faults-"))
    pipelines, bad = Made(folder), 0
    for kind in kinds or TITLES:
        start, found = time.monotonic(), []
        for trial in some(pipelines) if kind == SOME else trials(kind, pipelines):
            found.append(one := trial())
            log.info("%s %s: %s%s", *(one.fault, one.where, one.happened, f": WRONG {one.wrong}" if one.wrong else ""))
        title = TITLES.get(kind, kind)
        bad += sum(bool(one.wrong) for one in found)
        log.info("%s: %s in %.0f s", title, count(found), time.monotonic() - start)
        if kind in TITLES:
            write(title, [f"{count(found)}, at commit {commit()}.", "", *table(found)])
    if not bad:
        shutil.rmtree(folder, ignore_errors=True)
    return int(bad > 0)


HEAD = """# Faults

Made by `make faults`, which puts each of these into real runs at toy size (the quickstart with a smaller model),
launches the same command again, and compares selection, metrics and losses with those of an undisturbed run.
`make faults ARGS=kills` tries one kind again.
"""


def write(title: str, lines: Sequence[str]) -> None:
    """Put a kind's section into docs/faults.md, in place of the one that was there."""
    path = ROOT / "docs" / "faults.md"
    there = path.read_text(encoding="utf-8").split("\n## ")[1:] if path.exists() else []
    sections = {known: text for text in there for known in TITLES.values() if text.startswith(f"{known}\n")}
    sections[title] = "\n".join([title, "", *lines, ""])
    ordered = [f"\n## {sections[known].rstrip()}\n" for known in TITLES.values() if known in sections]
    path.write_text(HEAD + "".join(ordered), encoding="utf-8")


@cache
def commit() -> str:
    """The commit that is checked out, and whether files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"


def small_model(folder: Path) -> Path:
    """The model of the tests, made by a child: its threads shall not be in this process, which forks."""
    child = os.fork()
    if child == 0:
        from dsel.model.pretraining import pretrain

        pretrain(folder / "model", steps=20, hidden=64, layers=1)
        os._exit(0)
    os.waitpid(child, 0)
    return folder / "model"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
