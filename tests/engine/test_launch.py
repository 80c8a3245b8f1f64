"""Workers that are started, heard and ended; what they do here takes no library. Then trainings by real ones."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.engine import launch as launching
from dsel.engine.launch import launch
from dsel.engine.local import Local
from dsel.errors import ConfigError, LostWorker
from dsel.interrupt import Ended, ending
from dsel.model.causal_lm import CausalLM
from dsel.trainer.checkpoints import MOMENTS, moments
from dsel.trainer.job import Job, outcome_of
from dsel.trainer.sent import FOLDER
from dsel.trainer.sft import SFT
from tests.conftest import make_pool
from tests.trainer.small import fitted

JOB = Job(CausalLM(hub="none"), SFT(strategy="ddp"), "", 0)
BEGIN = """
import json, os, signal, sys, time
rank, folder = int(os.environ["RANK"]), sys.argv[1]
def say(*what):
    with open(f"{folder}/said_{rank}.jsonl", "a") as file:
        file.write(json.dumps(what) + "\\n")
"""


@dataclass
class Workers:
    """Starts processes that do as the text of a program says."""

    folder: Path
    steps: list[Any] = field(default_factory=list)

    def do(self, program: str, report: Any = None) -> None:
        file = self.folder / "worker.py"
        file.write_text(BEGIN + program)
        launching.WORKER = (str(file),)
        launch(JOB, make_pool(3), 2, self.folder / "fit", report or (lambda *step: self.steps.append(step)))

    @property
    def pids(self) -> list[int]:
        return [int(file.read_text()) for file in self.folder.glob("fit/pid-*")]


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(launching, "WORKER", launching.WORKER)
    monkeypatch.setattr(launching, "GRACE", 2)
    return Workers(tmp_path)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_the_first_worker_says_is_reported(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        workers.do(
            'assert len(open(f"{folder}/examples.jsonl").readlines()) == 3\n'
            'say("log", "dsel.other", 20, f"here is {rank}")\n'
            'say("advance", "training", 2, "steps", 0)\n'
            'for step in (1, 2): say("step", {"loss": 1 / step}, step); say("advance", "training", 2, "steps", 1)\n'
            'say("advance", "training", 2, "steps", None)\n'
        )
    assert workers.steps == [({"loss": 1.0}, 1), ({"loss": 0.5}, 2)]
    assert [r.message for r in caplog.records if r.name == "dsel.other"] == ["here is 0"]
    assert not (workers.folder / "fit" / FOLDER).exists()


def test_workers_that_start_are_said_to_until_they_say_something(
    workers: Workers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsel.progress.SILENT_FOR", 0.2)
    with caplog.at_level(logging.INFO):
        workers.do('time.sleep(0.6)\nif rank == 0: say("log", "dsel.other", 20, "here")\ntime.sleep(0.6)\n')
    said = [r.message.partition(":")[0] for r in caplog.records if r.name in ("dsel.progress", "dsel.other")]
    assert said == ["starting the workers of a training", "here"]


WAIT = 'open(f"{folder}/../pid-{rank}", "w").write(str(os.getpid()))\nif rank == 0: time.sleep(60)\ntime.sleep(0.5)\n'


@pytest.mark.parametrize(
    ("ending", "kind", "message"),
    [
        (
            'say("failure", time.time(), None, "RuntimeError: out of luck", "Traceback …"); sys.exit(1)',
            LostWorker,
            "worker 2 of 2 of the training failed: RuntimeError: out of luck",
        ),
        ('say("failure", time.time(), "config", "set x=1", ""); sys.exit(1)', ConfigError, "^set x=1$"),
        ("os.kill(os.getpid(), 9)", LostWorker, r"worker 2 of 2 .* was killed by SIGKILL: often .* no more memory"),
        ('sys.exit("Traceback … luck")', LostWorker, r"ended without a word \(exit codes: .*1: 1"),
    ],
    ids=["fails", "refuses", "killed", "silent"],
)
def test_when_one_ends_badly_so_do_the_others(
    workers: Workers, ending: str, kind: type[Exception], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    start = time.monotonic()
    with pytest.raises(kind, match=message):
        workers.do(WAIT + ending)
    assert time.monotonic() - start < 20
    assert len(workers.pids) == 2 and all(map(gone, workers.pids))
    assert ("Traceback …" in caplog.text) == ("luck" in ending)


def test_the_first_failure_is_told_and_not_what_follows_from_it(workers: Workers) -> None:
    program = 'if rank == 0: time.sleep(1)\nsay("failure", time.time(), None, f"error of {rank}", ""); sys.exit(1)'
    with pytest.raises(LostWorker, match="worker 2 of 2 of the training failed: error of 1"):
        workers.do(program)


def test_workers_end_when_this_process_cannot_go_on(workers: Workers) -> None:
    def report(metrics: dict[str, float], step: int) -> None:
        while len(workers.pids) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers.do(WAIT.replace("if rank == 0: ", 'say("step", {}, 1); '), report)
    assert len(workers.pids) == 2 and all(map(gone, workers.pids))


# Real ones


def test_two_workers_that_share_steps_are_one(spec: CausalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last step has one example, so that the second worker has nothing to learn from; its loss is not logged."""
    with caplog.at_level(logging.INFO):
        two, losses = fitted(spec, tmp_path / "two", Local(2), log_every=2)
    assert "at most 8 at once on a device; 2 workers (ddp)" in caplog.text
    one, expected = fitted(spec, tmp_path / "one", Local(1), log_every=2)
    assert len(losses) == 2
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    np.testing.assert_allclose(two.nll(make_pool(8).messages), one.nll(make_pool(8).messages), atol=1e-4)
    assert two.state == one.state
    outcomes = [outcome_of(learner.trainings.folder(learner.trainings.last)) for learner in (two, one)]
    assert outcomes[0] == pytest.approx(outcomes[1], abs=1e-4)


def test_two_workers_that_have_pieces_leave_what_one_leaves(spec: CausalLM, tmp_path: Path) -> None:
    """Weights and moments, by name and whole."""
    import torch
    from safetensors.torch import load_file

    two, losses = fitted(spec, tmp_path / "two", Local(2), parts=2, strategy="fsdp2", packing=True)
    one, expected = fitted(spec, tmp_path / "one", Local(1), parts=2, packing=True)
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    folders = [learner.trainings.folder(learner.trainings.last) for learner in (one, two)]
    names = [sorted(p.name for p in folder.iterdir()) for folder in folders]
    assert names[0] == names[1] and MOMENTS in names[0]
    ours, theirs = (load_file(folder / "model.safetensors") for folder in folders)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, atol=1e-3, rtol=0)
    mine, others = map(moments, folders)
    assert mine.keys() == others.keys()
    for name, known in mine.items():
        torch.testing.assert_close(others[name]["exp_avg"], known["exp_avg"], atol=1e-4, rtol=1e-3)
        assert others[name]["step"] == known["step"] == 5
    config = json.loads((folders[1] / "config.json").read_text())
    assert config == json.loads((folders[0] / "config.json").read_text())


def test_workers_are_told_to_end(workers: Workers) -> None:
    """Each saves what it has learnt: none is ended by the other's end."""
    program = (
        "from pathlib import Path\n"
        "from dsel.interrupt import hear, told\n"
        "hear()\n"
        'say("step", {"loss": 1.0}, 1)\n'
        "while not told(): time.sleep(0.01)\n"
        'Path(folder, f"told-{rank}").touch()\n'
        'while len(list(Path(folder).glob("told-*"))) < 2: time.sleep(0.01)\n'
        "sys.exit(1)\n"
    )
    with pytest.raises(Ended, match="SIGTERM"), ending():
        workers.do(program, lambda *step: signal.raise_signal(signal.SIGTERM))
    assert len(list(workers.folder.glob(f"fit/{FOLDER}/told-*"))) == 2
