"""A run killed at any moment, at each of its stages in turn, ends as one left alone: real processes, real SIGKILLs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, ROOT, offline
from tests.faults import inject
from tests.faults.kills import BEGINS, SAVES, SHARDS

ROUNDS = [
    "selector=iterative_perplexity", "selector.rounds=3", "selector.max_new_tokens=8", "scorer=column",
    "scorer.name=rating",
]  # fmt: skip
EPOCHS = ["selector=iterit", "selector.epochs=3", "data.size=200"]
TOY = [
    "trainer.batch_size=4", "trainer.micro_batch_size=4", "trainer.checkpoint_minutes=1e-9", "evaluator.per_kind=1",
    "tracker=none",
]  # fmt: skip

EMBEDDED = ["dsel.npy:Rows.write */embeddings/*"]
CLUSTERED = ["dsel.clusterer.base:Clustering.save"]
SCORED = ["numpy:save */scores/*"]
TRAINING = [BEGINS, SAVES, SAVES]  # in the middle of its second checkpoint
NEXT_TRAINING = [BEGINS, *TRAINING]  # the one after the one that goes on
TRAINED = ["dsel.trainer.job:save"]  # weights written, and nobody knows yet
GENERATING = ["pathlib:Path.replace */answers/*-00000005-*.json"]
JUDGING = ["pathlib:Path.replace */feedback/*-00000016-*.npy"]
MEASURING = ["pathlib:Path.replace */ifd/*-00000016-*.npy"]
EVALUATED = ["dsel.evaluator.procedural:Procedural.read"]

NEVER_CACHED = {"data", "decontaminate", "select", "model", "evaluate"}


class Runs:
    """Runs of one configuration, one after the other on one cache, each with what it had finished."""

    def __init__(self, folder: Path, model: Path, options: list[str]):
        folder.mkdir()
        self.folder = folder
        self.options = [*QUICK, *TOY, *options, f"model.path={model}"]
        self.finished: Counter[str] = Counter()  # stages, by name, that some run completed

    def start(self, *killed_at: str) -> tuple[Path, dict[str, Any], str]:
        """Run folder, record and log. Fails unless it ended as it should, having computed nothing a second time."""
        number = len(list(self.folder.glob("run-*")))
        runs = self.folder / f"run-{number}"
        told = {inject.SMALL: json.dumps(SHARDS), inject.SHARDS: str(self.folder / "shards.txt")}
        if killed_at:
            told[inject.FAULT] = json.dumps({"point": killed_at, "fault": "SIGKILL"})
            told[inject.STRUCK] = str(self.folder / f"struck-{number}")
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.inject", *self.options, f"runs={runs}"],
            cwd=ROOT, env=offline(self.folder, OMP_NUM_THREADS="1", **told),
            capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == (-9 if killed_at else 0), (killed_at, done.stderr[-3000:])
        (file,) = runs.glob("*/record.json")
        record = json.loads(file.read_text())
        assert record["status"] == ("running" if killed_at else "finished")
        stages: dict[str, list[bool]] = {}
        for stage in record["stages"]:
            stages.setdefault(stage["name"], []).append(stage["cached"])
        for name, cached in stages.items():
            if name not in NEVER_CACHED:
                known = min(len(cached), self.finished[name])
                assert cached == [True] * known + [False] * (len(cached) - known), (name, killed_at)
                self.finished[name] = max(self.finished[name], len(cached))
        return file.parent, record, done.stderr

    @property
    def shards(self) -> list[str]:
        """What was written in all runs, below the cache; not an evaluation's requests, in a folder of their own."""
        lines = (self.folder / "shards.txt").read_text().splitlines()
        return sorted(line.removeprefix(str(self.folder)) for line in lines if "/.requests-" not in line)


def compare(calm: tuple[Path, dict[str, Any], str], last: tuple[Path, dict[str, Any], str]) -> None:
    """Everything that a run says of its choices, its model and its score is the same."""
    for name in ("selection.parquet", "selected.jsonl", *(f"rounds/{p.name}" for p in calm[0].glob("rounds/*"))):
        assert (last[0] / name).read_bytes() == (calm[0] / name).read_bytes(), name
    assert last[1]["metrics"] == calm[1]["metrics"]
    for mine, theirs in zip(calm[1]["rounds"], last[1]["rounds"], strict=True):
        theirs["training"].pop("cached", None)
        assert theirs["training"].pop("loss") == pytest.approx(mine["training"].pop("loss"), rel=1e-6)
        assert theirs == mine


def chain(folder: Path, model: Path, options: list[str], kills: list[list[str]]) -> list[str]:
    """Kill the same command at one place after the other, then let it end: the logs of these runs."""
    calm, killed = Runs(folder / "calm", model, options), Runs(folder / "killed", model, options)
    with ThreadPoolExecutor() as threads:
        alone = threads.submit(calm.start)
        logs = [killed.start(*places)[2] for places in kills]
        last = killed.start()
    compare(alone.result(), last)
    assert killed.shards == calm.shards  # each once
    assert not [p for p in killed.folder.glob("cache/fits/*") if p.is_dir()]  # of the trainings only locks are left
    return [*logs, last[2]]


def goes_on(logs: list[str]) -> list[int]:
    """How many trainings of each run began with a checkpoint."""
    return [log.count("goes on from checkpoint-1") for log in logs]


def test_a_run_killed_four_times_ends_as_if_it_had_not_been(tmp_path: Path, small_model: Path) -> None:
    kills = [SCORED, TRAINING, GENERATING, NEXT_TRAINING]
    logs = chain(tmp_path, small_model, ROUNDS, kills)
    assert goes_on(logs) == [0, 0, 1, 0, 1]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rounds_killed_at_every_stage(tmp_path: Path, small_model: Path) -> None:
    kills = [
        EMBEDDED, CLUSTERED, SCORED, TRAINING, TRAINED, GENERATING, JUDGING, TRAINING, NEXT_TRAINING, TRAINED, EVALUATED
    ]  # fmt: skip
    chain(tmp_path, small_model, [*ROUNDS, "selector.temperature=0.7"], kills)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_epochs_of_one_training_killed_at_every_stage(tmp_path: Path, small_model: Path) -> None:
    kills = [MEASURING, TRAINING, [BEGINS, *MEASURING], TRAINING, NEXT_TRAINING, TRAINED, EVALUATED]
    chain(tmp_path, small_model, EPOCHS, kills)
