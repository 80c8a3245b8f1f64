"""Whole runs whose trainings are shared by two workers, beside those of one, and what a kill costs them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import QUICK, ROOT, offline, until
from tests.engine.test_launch import gone
from tests.faults import inject
from tests.faults.kills import SHARDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STRATEGIES = ["ddp", "fsdp2", *(["zero3"] if importlib.util.find_spec("deepspeed") else [])]
LORA = ["trainer=lora", "trainer.lora={rank: 4, alpha: 8, dropout: 0.0}", "trainer.learning_rate=5e-3"]
ROUNDS = ["selector=iterative_perplexity", "selector.rounds=2", "selector.max_new_tokens=8", "scorer=column"]
KINDS = {
    "full": ["budget=49"],
    "lora": ["budget=49", *LORA],
    "iterit": ["selector=iterit", "selector.epochs=3", "data.size=200"],
    "iterit-lora": ["selector=iterit", "selector.epochs=3", "data.size=200", *LORA],
    "iterative": [*ROUNDS, "scorer.name=rating"],
}
TOY = ["trainer.batch_size=16", "trainer.micro_batch_size=4", "trainer.log_every=1", "tracker=none"]

BACKWARD = {"full": 6, "lora": 6, "iterit": 6, "iterative": 7}
"""The micro batch, of all that the first worker computes, at which a run is killed: the last of a step, of the second
training where there are several; every step before it has left a checkpoint."""

MAPS = {"iterit": "ifd", "iterative": "answers"}
"""What the model is asked between trainings; its shards are so small that two workers share them."""

# a worker, the first, that gets stuck at a micro batch; its number is a line for each before it, in a file
STUCK = """
import os, time
if os.environ.get("RANK") == "0" and "STUCK" in os.environ:
    from accelerate import Accelerator
    file, last = os.environ["STUCK"].split(":")
    backward = Accelerator.backward
    def stuck(*args, **kwargs):
        with open(file, "a+") as lines:
            print(os.getpid(), file=lines, flush=True)
            lines.seek(0)
            if len(lines.readlines()) == int(last):
                time.sleep(900)
        return backward(*args, **kwargs)
    Accelerator.backward = stuck
"""

# a worker, the second, that ends at its third checkpoint
DYING = """
import os
if os.environ.get("RANK") == "1" and "DIES" in os.environ:
    import dsel.trainer.checkpoints as checkpoints
    save, calls = checkpoints.save_state, []
    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3 and os.environ["DIES"] == "killed":
            os.kill(os.getpid(), 9)
        if len(calls) == 3:
            raise RuntimeError("this one is out of luck")
        return save(*args, **kwargs)
    checkpoints.save_state = dies
"""


class Runs:
    """Runs of one configuration in folders beside each other."""

    def __init__(self, folder: Path, model: Path, kind: str):
        self.folder = folder
        self.small = SHARDS if kind in MAPS else {}
        self.options = [*QUICK, *TOY, *KINDS[kind], f"model.path={model}", "evaluator.per_kind=2"]

    def start(self, name: str, *more: str, **how: Any) -> tuple[int, str]:
        """The exit code and what was said; a cache for each name."""
        with self.begin(name, *more, **how) as process:
            try:
                _, said = process.communicate(timeout=900)
            finally:
                process.kill()
        return process.returncode, said

    def begin(self, name: str, *more: str, flags: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
        path = os.pathsep.join(
            [str(self.folder), *os.environ.get("PYTHONPATH", str(ROOT)).split(os.pathsep), str(ROOT)]
        )
        small, asked = {inject.SMALL: json.dumps(self.small)}, [f"runs={self.folder / name / 'runs'}", *more]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.inject", *flags, *self.options, *asked],
            cwd=ROOT, env=offline(self.folder / name, OMP_NUM_THREADS="1", PYTHONPATH=path, **small, **environment),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def saved(self, name: str) -> Path:
        """The model that a run has saved."""
        (folder,) = (self.folder / name).glob("runs/*/model")
        return folder

    def left(self, name: str) -> dict[str, Any]:
        """What the finished run of a name has chosen, learnt and scored."""
        for file in sorted((self.folder / name).glob("runs/*/record.json")):
            record = json.loads(file.read_text())
            if record["status"] == "finished":
                trainings = [part["training"] for part in record["rounds"]]
                log = (file.parent / "run.log").read_text()
                losses = [float(line.split("loss ")[1].split(",")[0]) for line in log.splitlines() if ": loss " in line]
                rows = pq.read_table(file.parent / "selection.parquet").to_pylist()
                selection = [(row["round"], row["id"]) for row in rows]
                return {"losses": losses, "trainings": trainings, "metrics": record["metrics"], "selection": selection}
        raise AssertionError(f"{name}: no finished run")


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses to 1e-4 (the log has four digits), and the rest as it is."""
    assert len(found["losses"]) == len(expected["losses"]) > 0
    np.testing.assert_allclose(found["losses"], expected["losses"], atol=2e-4)
    assert found["metrics"] == expected["metrics"]
    assert found["selection"] == expected["selection"]
    for mine, theirs in zip(found["trainings"], expected["trainings"], strict=True):
        assert abs(mine.pop("loss") - theirs["loss"]) < 1e-4
        mine.pop("cached", None)
        assert mine == {name: value for name, value in theirs.items() if name != "loss"}


def two(strategy: str) -> list[str]:
    return ["engine.workers=2", f"trainer.strategy={strategy}"]


def loss(folder: Path) -> float:
    """What a saved model, or its adapters, make of a text, loaded as anybody would."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)("The sum of 12 and 30 is 42.", return_tensors="pt")["input_ids"]
    return float(AutoModelForCausalLM.from_pretrained(folder)(ids, labels=ids).loss)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Callable[[str], Runs]:
    """Runs of a kind beside each other, of which `one` has been made by one worker."""

    @cache
    def made(kind: str) -> Runs:
        runs = Runs(tmp_path_factory.mktemp(kind), small_model, kind)
        code, said = runs.start("one", "trainer.save=true")
        assert code == 0, said
        return runs

    return made


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_runs_of_two_workers_are_runs_of_one(strategy: str, kind: str, alone: Callable[[str], Runs]) -> None:
    runs = alone(kind)
    code, said = runs.start(strategy, *two(strategy), "trainer.save=true")
    assert code == 0, said
    assert f"2 workers ({strategy})" in said
    same(runs.left(strategy), runs.left("one"))
    assert abs(loss(runs.saved(strategy)) - loss(runs.saved("one"))) < 1e-4


@pytest.mark.parametrize("kind", list(BACKWARD))
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_run_whose_leader_is_killed_goes_on(
    kind: str, strategy: str, tmp_path: Path, small_model: Path, alone: Callable[[str], Runs]
) -> None:
    """In the middle of a step; its workers end with it. The end is that of a run by one worker."""
    runs, often = Runs(tmp_path, small_model, kind), ["trainer.checkpoint_minutes=1e-9"]
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    file = tmp_path / "stuck"
    file.touch()
    with runs.begin("killed", *two(strategy), *often, STUCK=f"{file}:{BACKWARD[kind]}") as leader:
        try:
            until(lambda: len(file.read_text().splitlines()) == BACKWARD[kind] or leader.poll() is not None)
            assert leader.poll() is None, leader.communicate()
        finally:
            leader.kill()
        _, before = leader.communicate(timeout=60)
    assert kind not in MAPS or f"{MAPS[kind]}: 2 workers" in before, before
    until(lambda: all(gone(int(pid)) for pid in file.read_text().splitlines()))
    code, said = runs.start("killed", *two(strategy), *often)
    assert code == 0, said
    assert said.count("goes on from checkpoint-") == 1
    found, expected = runs.left("killed"), alone(kind).left("one")
    expected["losses"] = expected["losses"][-len(found["losses"]) :]
    same(found, expected)


@pytest.mark.parametrize(("how", "strategy"), [("raises", "ddp"), ("killed", "fsdp2")])
@pytest.mark.parametrize("sweep", [[], ["-m"]], ids=["run", "sweep"])
def test_a_worker_that_dies_ends_the_run_in_one_line(
    how: str, strategy: str, sweep: list[str], tmp_path: Path, small_model: Path
) -> None:
    """And the next run goes on from the checkpoint before, by another strategy and with another number of workers."""
    (tmp_path / "sitecustomize.py").write_text(DYING)
    runs, often = Runs(tmp_path, small_model, "full"), ["trainer.checkpoint_minutes=1e-9"]
    start = time.monotonic()
    code, said = runs.start("here", *two(strategy), *often, flags=sweep, DIES=how)
    assert time.monotonic() - start < 240
    assert code == (1 if sweep else 2), said
    reason = "failed: RuntimeError: this one is out of luck" if how == "raises" else "was killed by SIGKILL"
    beginning = "this run failed" if sweep else "dsel"
    assert f"{beginning}: worker 2 of 2 of the training {reason}" in said
    code, said = runs.start("here", *often)
    assert code == 0 and "goes on from checkpoint-2" in said, said
