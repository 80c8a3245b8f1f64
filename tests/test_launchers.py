"""Sweeps by the presets in conf/hydra/launcher, on a real Slurm that the test starts."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import dsel.run  # noqa: F401  # its resolvers
from tests import slurm
from tests.conftest import QUICK, ROOT, offline
from tests.test_sweep import report

STEPS = 600
ONCE = ("model", "embed", "cluster")  # what the jobs of the grid share
LONG = [
    *QUICK, "trainer.epochs=60", "trainer.batch_size=4", "trainer.micro_batch_size=4", "evaluator.per_kind=1",
    "tracker=none",
]  # fmt: skip
SMALL_JOBS = [
    "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
]  # fmt: skip
GRID = ["-m", *SMALL_JOBS, *LONG, "selector=random,kmeans_uniform", "seed=0,1"]


class Sweep:
    """`python -m dsel.run` in a shell that knows the daemons, while it waits for its jobs."""

    def __init__(self, folder: Path, known: Mapping[str, str], arguments: list[str]):
        self.runs = folder / "runs"
        self.environment = {**offline(folder, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)), **known}
        self.output = folder / "output.txt"
        with self.output.open("w") as out:
            command = [sys.executable, "-m", "dsel.run", *arguments, f"runs={self.runs}"]
            self.process = subprocess.Popen(command, env=self.environment, cwd=folder, stdout=out, stderr=out)

    def asks(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self, task: int) -> str:
        """What a job of the array has said, in all its starts."""
        return "".join(path.read_text() for path in self.runs.glob(f".submitit/*_{task}/*.out"))

    def until(self, happens: Callable[[], Any]) -> None:
        wait_until(happens, lambda: self.output.read_text() + "\n".join(self.log(task)[-1500:] for task in range(4)))


def wait_until(happens: Callable[[], Any], log: Callable[[], str]) -> None:
    end = time.monotonic() + 900
    while not happens():
        assert time.monotonic() < end, log()
        time.sleep(0.5)


@pytest.fixture
def known(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which a Slurm is found that runs as long as the test."""
    if missing := slurm.missing():
        pytest.skip(f"needs Slurm: no {', '.join(missing)}")
    with slurm.daemons(tmp_path / "slurm") as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sweep_whose_jobs_are_preempted_ends_complete(tmp_path: Path, known: dict[str, str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs dsel[slurm]")
    sweep = Sweep(tmp_path, known, GRID)
    for task, end in enumerate([_by_a_better_job, _by_the_operator, _by_the_clock]):
        sweep.until(lambda task=task: "step 10/" in sweep.log(task))
        end(sweep, task)
    for task in range(3):
        sweep.until(lambda task=task: "DUE TO JOB REQUEUE" in sweep.log(task))
        sweep.asks("scontrol", "update", f"JobId={_job(sweep, task)}", "StartTime=now")  # not in two minutes
    assert sweep.process.wait(900) == 0, sweep.output.read_text()

    records = [json.loads(path.read_text()) for path in sweep.runs.glob("*/record.json")]
    assert Counter(record["status"] for record in records) == {"finished": 4, "interrupted": 3}
    computed = Counter(s["name"] for r in records for s in r["stages"] if not s["cached"] and s["name"] in ONCE)
    assert computed == dict.fromkeys(ONCE, 1)  # by whichever came first, and by nobody again
    for task in range(4):
        log = sweep.log(task)
        assert log.count("- Starting with") == (2 if task < 3 else 1)
        assert "Traceback" not in log
        steps = [int(number) for number in re.findall(r"step (\d+)/\d+: loss", log)]
        assert steps == sorted(set(steps)) and steps[-1] == STEPS  # each once
        if task < 3:
            (ended,) = re.findall(r"training: told to end, and goes on after step (\d+) of", log)
            assert re.findall(r"training: goes on from checkpoint-(\d+)", log) == [ended]
    assert "4 runs of this sweep" in sweep.output.read_text()
    table = report(sweep.runs, tmp_path / "report", "local", "quickstart")
    found = {row["row"]: row["mean"] for row in table if row["column"] == "accuracy"}
    assert found["random"] != "" and found["kmeans_uniform"] != "", table


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_script_that_heeds_the_exit_code_goes_on(tmp_path: Path, known: dict[str, str]) -> None:
    """The one in docs/scale.md, with less to ask for."""
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^#!/bin/bash\n#SBATCH.*?(?=^```)", page, flags=re.DOTALL | re.MULTILINE)
    asked = script.splitlines()[1]
    command = shlex.join([sys.executable, "-m", "dsel.run", *LONG, "selector=random", "runs=runs"])
    script = re.sub(r"python -m dsel.run.*", command, script.replace(asked, "").replace("=64", "=1"))
    (tmp_path / "job.sh").write_text(script)
    environment = {**offline(tmp_path, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)), **known}

    def asks(*command: str) -> str:
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
        ).stdout

    def log() -> str:
        return "".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))

    (job,) = re.findall(r"\d+", asks("sbatch", "job.sh"))
    wait_until(lambda: "step 10/" in log(), log)
    asks("scancel", "--signal=USR1", job)
    wait_until(lambda: asks("squeue", "-h", "-o%T").strip() == "PENDING", log)
    asks("scontrol", "update", f"JobId={job}", "StartTime=now")
    wait_until(lambda: not asks("squeue", "-h").strip(), log)
    assert "SIGUSR1, interrupted: the same command goes on" in log() and "Traceback" not in log()
    (ended,) = re.findall(r"training: told to end, and goes on after step (\d+) of", log())
    assert re.findall(r"training: goes on from checkpoint-(\d+)", log()) == [ended]
    found = sorted(json.loads(path.read_text())["status"] for path in tmp_path.glob("runs/*/record.json"))
    assert found == ["finished", "interrupted"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_on_several_nodes_has_a_cluster_of_its_own(tmp_path: Path, known: dict[str, str]) -> None:
    """Ray is on each node while it runs, no longer, and every node has a part in maps and trainings."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs dsel[slurm]")
    pytest.importorskip("ray", reason="needs dsel[ray]")
    path = os.pathsep.join([str(Path(sys.executable).parent), known["PATH"]])  # where `ray` is
    nodes = ["-m", *SMALL_JOBS, "hydra/launcher=slurm_ray", "engine=ray", "trainer.strategy=ddp"]
    shards = ["evaluator.per_kind=2", "evaluator.batch_size=1"]
    own = {"PATH": path, "HOME": str(tmp_path)}  # where no token of Ray's lies
    before = _of_ray()
    sweep = Sweep(tmp_path, {**known, **own}, [*nodes, *QUICK, *shards, "tracker=none"])
    assert sweep.process.wait(900) == 0, sweep.output.read_text()
    (log,) = sweep.runs.glob(".submitit/*/*.out")
    said = log.read_text()
    (record,) = sweep.runs.glob("*/record.json")
    assert json.loads(record.read_text())["status"] == "finished"
    for each in ("evaluating: 2 workers", "2 workers (ddp)"):
        assert each in said, said
    wait_until(lambda: _of_ray() <= before, lambda: str(_of_ray() - before))


@pytest.mark.parametrize(
    ("preset", "asked"),
    [
        ("slurm", ["--array=0-3%4", "--gpus-per-node=1", "--mem=64GB", "--signal=USR2@180", "--requeue"]),
        ("slurm_node", ["--nodes=1", "--gpus-per-node=8", "--mem=0GB", "--exclusive", "--requeue"]),
        ("slurm_ray", ["--nodes=2", "--gpus-per-node=8", "--exclusive", "--ntasks-per-node=1", "--requeue"]),
    ],
)
def test_each_preset_asks_slurm_for_what_it_says(preset: str, asked: list[str]) -> None:
    pytest.importorskip("submitit", reason="needs dsel[slurm]")
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [f"hydra/launcher={preset}", "runs=r"], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    options: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    folder = options.pop("submitit_folder")
    for name in ("_target_", "max_num_timeout"):
        del options[name]
    options = {SlurmExecutor._equivalence_dict().get(name, name): value for name, value in options.items()}
    options["mem"] = f"{options['mem']}GB"
    script = _make_sbatch_string(command="python -m it", folder=folder, map_count=4, **options)
    lines = script.splitlines()
    for each in asked:
        assert f"#SBATCH {each}" in lines, script
    (started,) = (line for line in lines if line.endswith("python -m it"))
    assert f"--cpus-per-task={options['cpus_per_task']}" in started
    assert ("--overlap --nodes=1 --ntasks=1" in started) == (preset == "slurm_ray")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def _of_ray() -> set[str]:
    """What runs of Ray on this machine."""
    done = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True)
    return {line for line in done.stdout.splitlines() if any(n in line for n in ("/raylet ", "/gcs_server ", "ray::"))}


def _by_a_better_job(sweep: Sweep, task: int) -> None:
    """Of a partition that preempts the one of the sweep, on the node where the job is."""
    (node,) = re.findall(rf"^\d+_{task} (\w+)$", sweep.asks("squeue", "-h", "-o", "%i %N"), flags=re.MULTILINE)
    sweep.asks("sbatch", "--partition=high", f"--nodelist={node}", "--output=/dev/null", "--wrap=sleep 1")


def _by_the_operator(sweep: Sweep, task: int) -> None:
    sweep.asks("scontrol", "requeue", _job(sweep, task))


def _by_the_clock(sweep: Sweep, task: int) -> None:
    """As Slurm tells a job that its time is nearly up."""
    sweep.asks("scancel", "--signal=USR2", _job(sweep, task))


def _job(sweep: Sweep, task: int) -> str:
    (found,) = re.findall(rf"^(\d+_{task})$", sweep.asks("squeue", "-h", "-o", "%i"), flags=re.MULTILINE)
    return str(found)
