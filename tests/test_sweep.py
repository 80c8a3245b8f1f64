"""A grid interrupted and launched again, its failures, and the table from its logged runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from dsel import sweep
from dsel.cache import Cache, Lease
from dsel.data.local import Local
from dsel.files import write_sealed
from dsel.selector.random import Random
from dsel.trainer.sft import SFT
from tests.conftest import ROOT, SMALL, offline

GRID = [
    "-m", "experiments=laptop", "sweeps=budget_by_k", *SMALL, "data.size=300", "budget=0.1,0.2", "clusterer.k=4,8,16",
    "trainer.epochs=1", "evaluator.per_kind=1",
]  # fmt: skip


def facts(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(runs.glob("*/record.json"))]


def finished(runs: Path) -> list[str]:
    return sorted(r["started"] + r["key"] for r in facts(runs) if r["status"] == "finished")


def report(runs: Path, out: Path, source: str, experiment: str = "laptop") -> list[dict[str, str]]:
    command = [
        sys.executable,
        "-m",
        "dsel.report",
        f"experiments={experiment}",
        f"runs={runs}",
        f"out={out}",
        f"source={source}",
    ]
    done = subprocess.run(command, cwd=ROOT, env=offline(runs), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with (out / "report.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "runs"} for row in csv.DictReader(file)]


def test_an_interrupted_grid_goes_on_and_ends_in_a_table(tmp_path: Path) -> None:
    runs, environment = tmp_path / "runs", offline(tmp_path)
    command = [sys.executable, "-m", "dsel.run", *GRID, f"runs={runs}"]
    started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    give_up = time.monotonic() + 300
    while len(finished(runs)) < 2 and started.poll() is None and time.monotonic() < give_up:
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 1 and b"interrupted: the same command goes on" in errors
    before = finished(runs)
    assert 2 <= len(before) < 6

    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert set(before) < set(finished(runs))  # those that had finished are the same
    assert len(finished(runs)) == 6
    assert (again.stdout + again.stderr).count("finished before, not run again") == len(before)
    embedded = [s for r in facts(runs) for s in r["stages"] if s["name"] == "embed" and not s["cached"]]
    assert len(embedded) == 1

    table = report(runs, tmp_path / "local", "local")
    cells = {(row["row"], row["column"]): row["mean"] for row in table if row["table"].startswith("Budget")}
    assert {k for k, _ in cells} >= {"4", "8", "16"} and sum(mean != "" for mean in cells.values()) == 6
    assert report(runs, tmp_path / "logs", "wandb_offline") == table


def test_a_failed_run_does_not_stop_the_others(dsel_run: Callable[..., Any], tmp_path: Path) -> None:
    asked = ["-m", "experiments=quickstart", "data.size=100", "trainer=none", "evaluator=none", "tracker=none"]
    grid = [*asked, "selector=random", "budget=10,5000,20", f"runs={tmp_path}"]
    done = dsel_run(*grid)
    assert done.returncode == 1
    assert len(finished(tmp_path)) == 2
    table = done.stdout[done.stdout.index("2 runs of this sweep") :]
    assert [table.count(f"│ random │ {budget:>6} │") for budget in (10, 20)] == [1, 1]
    last = done.stderr.splitlines()[-3:]
    assert last[0] == "dsel: 1 run of this sweep failed"
    assert "budget=5000 is larger than the pool: it has 100 usable examples" in last[1]
    assert last[2].startswith("    again: python -m dsel.run ") and "budget=5000" in last[2]

    again = dsel_run(*grid)
    assert again.returncode == 1
    assert len(finished(tmp_path)) == 2  # they are not run again
    assert "2 runs of this sweep" in again.stdout  # of which they are
    dsel_run(*grid, "rerun=true")
    assert len(finished(tmp_path)) == 4


@pytest.mark.parametrize(("choice", "installs"), [("slurm", "'dsel[slurm]'"), ("ray_cluster", "hydra-ray-launcher")])
def test_a_launcher_that_is_not_installed_is_named(
    choice: str, installs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    launcher = OmegaConf.load(ROOT / "conf" / "hydra" / "launcher" / f"{choice}.yaml")
    chosen = {"launcher": launcher, "runtime": {"choices": {"hydra/launcher": choice}}, "mode": RunMode.MULTIRUN}
    with pytest.raises(SystemExit):
        sweep.Launcher().on_multirun_start(OmegaConf.create({"hydra": chosen}))
    assert f"hydra/launcher={choice} needs the package" in (said := capsys.readouterr().err)
    assert said.endswith(f"pip install {installs}\n")


def test_a_launcher_without_a_sweep_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It would run here, on the login node, without a word."""
    chosen = {"launcher": {"_target_": "a.Launcher"}, "runtime": {"choices": {"hydra/launcher": "slurm"}}}
    alone = OmegaConf.create({"hydra": {**chosen, "mode": RunMode.RUN}, "plan": False})
    with pytest.raises(SystemExit):
        sweep.Launcher().on_run_start(alone)
    assert capsys.readouterr().err.endswith(
        "hydra/launcher=slurm launches the runs of a sweep: add -m, also for one run\n"
    )
    sweep.Launcher().on_run_start(OmegaConf.merge(alone, {"plan": True}))


def test_a_run_is_known_by_what_changes_its_result(tmp_path: Path) -> None:
    def key(seed: int = 0, **trainer: Any) -> str:
        parts = {"selector": Random(), "trainer": SFT(**trainer), "tracker": object()}
        return sweep.run_key(parts, {"budget": 10, "seed": seed})

    assert key() == key(micro_batch_size=1, log_every=3)
    assert len({key(), key(1), key(epochs=1)}) == 3
    folder = tmp_path / "a run"
    folder.mkdir()
    assert sweep.finished(tmp_path, key()) is None
    sweep.remember(tmp_path, key(), folder)
    assert sweep.finished(tmp_path, key()) is None  # its record is gone
    write_sealed(folder / "record.json", {"status": "failed", "key": key()})
    assert sweep.finished(tmp_path, key()) is None
    write_sealed(folder / "record.json", {"status": "finished", "key": key()})
    assert sweep.finished(tmp_path, key()) == folder
    assert sweep.finished(tmp_path, key(1)) is None


def test_a_run_on_an_edited_file_is_another_run(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"

    def key() -> str:
        return sweep.run_key({"data": Local(path=file), "selector": Random()}, {"budget": 1})

    file.write_text('{"prompt": "q", "completion": "a"}\n')
    before = key()
    os.utime(file, (1, 1))
    assert key() == before
    file.write_text('{"prompt": "q", "completion": "b"}\n')
    assert key() != before


HARMS = {
    "flip": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "of another kind": lambda data: b"[]",
    "deep": lambda data: b"[" * 100_000,
    "other figures": lambda data: data.replace(b"finished", b"finishee"),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["entry", "record.json", "selection.parquet", "selected.jsonl"])
def test_a_damaged_finished_run_counts_as_none(
    tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for file in ("selection.parquet", "selected.jsonl"):
        (folder / file).write_bytes(b"finished " * 20)
    sweep.remember(tmp_path, "k", folder)
    write_sealed(folder / "record.json", {"status": "finished", "key": "k", "metrics": {"a": {"value": 0.5}}})
    assert sweep.finished(tmp_path, "k") == folder
    path = tmp_path / ".finished" / "k.json" if name == "entry" else folder / name
    before = path.read_bytes()
    path.write_bytes(HARMS[harm](before))
    if path.read_bytes() != before:
        assert sweep.finished(tmp_path, "k") is None
        assert caplog.text.count("is damaged and runs again") == 1


def test_a_damaged_note_of_a_failure_is_said(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"overrides": ["a=1"], "error": "no"}\n{"overrides"\n\xff\n[]\n')
    found = sweep._readable(path)
    assert found[0] == {"overrides": ["a=1"], "error": "no"}
    assert [f["error"].endswith("is damaged") for f in found] == [False, True, True, True]


def test_one_of_two_equal_jobs_waits_for_the_other(tmp_path: Path) -> None:
    order: list[str] = []

    def job(name: str) -> None:
        with sweep.alone(tmp_path, "k"):
            order.append(name)
            time.sleep(0.3)
            order.append(name)

    threads = [threading.Thread(target=job, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order[0] == order[1] and order[2] == order[3]


def test_a_note_leads_nowhere_outside(tmp_path: Path) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for folder in (runs, elsewhere):
        folder.mkdir()
    write_sealed(elsewhere / "record.json", {"status": "finished", "key": "k"})
    for place in ("../elsewhere", str(elsewhere)):
        (runs / sweep.INDEX).mkdir(exist_ok=True)
        write_sealed(runs / sweep.INDEX / "k.json", {"folder": place, "files": {}})
        assert sweep.finished(runs, "k") is None


def test_weights_that_a_kill_left_go_when_the_run_is_found_finished(tmp_path: Path) -> None:
    cache, names = Cache(tmp_path / "cache"), ["0" * 24, "1" * 24, "2" * 24]
    folders = [cache.folder / "fits" / name for name in names]
    for folder in (folders[0], folders[1].with_name(f"{names[1]}.gone-ab"), folders[2], tmp_path / "other"):
        folder.mkdir(parents=True)
    used = Lease(folders[2])
    (tmp_path / "run").mkdir()
    for file in sweep.RESULTS:
        (tmp_path / "run" / file).write_text("")
    sweep.remember(tmp_path, "k", tmp_path / "run", [*names, "../../other"])
    sweep.tidy(tmp_path, "k", cache)
    assert [p.name for p in (cache.folder / "fits").iterdir() if p.is_dir()] == [names[2]]  # another run has it in use
    assert (tmp_path / "other").is_dir()
    del used
