"""The table at the end of a run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from rich.console import Console

from dsel.evaluator.base import Metric
from dsel.record.reader import RunFolder
from dsel.record.writer import Record
from dsel.selector.base import Selection
from dsel.summary import show, show_sweep
from tests.conftest import make_pool


def shown(folder: Path) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show(RunFolder.read(folder), console)
    return console.export_text()


def test_the_summary_shows_metrics_with_errors_and_where_the_record_is(tmp_path: Path) -> None:
    pool, run = make_pool(10), Record(tmp_path, {"seed": 0}, {"selector": "random", "model": "tiny", "trainer": "full"})
    run.pool(pool, 4)
    run.metrics({"task": Metric(0.5, 0.1, "acc"), "part": Metric(0.25, 0.2, "acc", detail=True)})
    with run.stage("train") as stage:
        stage.items = 4
    run.finish("finished")
    text = shown(tmp_path)
    assert "4 of 10 examples (40.0%)" in text
    assert "0.5000 ± 0.1000" in text
    assert "0.2500" not in text
    assert str(tmp_path / "record.json") in text


def test_a_sweep_is_a_row_for_each_run(tmp_path: Path) -> None:
    runs = []
    for seed, selector in enumerate(["random", "kmq"]):
        folder = tmp_path / selector
        folder.mkdir()
        run = Record(folder, {"seed": seed}, {"selector": selector})
        run.facts["overrides"] = [f"selector={selector}", f"seed={seed}", "budget=4", "model=tiny"]
        run.pool(make_pool(10), 4)
        run.metrics({"task": Metric(0.5 + seed / 4, 0.1, "acc"), "part": Metric(0.1, 0.2, "acc", detail=True)})
        run.facts["tracker"] = {"mode": "offline", "folder": "offline-run-1"}
        run.finish("finished")
        runs.append(RunFolder.read(folder))
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show_sweep(runs, console)
    lines = [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]
    assert "random 4 0 0.5000 ± 0.1000 0 s" in lines and "kmq 4 1 0.7500 ± 0.1000 0 s" in lines
    head = next(line for line in lines if "method" in line)
    assert "seed" in head and "model" not in head and "part" not in head
    assert sum("wandb sync" in line for line in lines) == 1
    assert any(f"wandb sync {tmp_path}/*/wandb/offline-run-*" in line for line in lines)
    assert lines[-3:] == [
        f"chosen: {tmp_path}/kmq/selected.jsonl",
        f"look: python -m dsel show {tmp_path}/kmq",
        f"compare: python -m dsel.compare {tmp_path}/random {tmp_path}/kmq",
    ]


def test_a_selection_alone_names_no_model(tmp_path: Path) -> None:
    choices = {"selector": "random", "model": "llama2_7b", "trainer": "none", "data": "local"}
    pool, run = make_pool(10), Record(tmp_path, {"seed": 3}, choices)
    run.pool(pool, 4)
    run.round(Selection(np.arange(4)), pool)
    run.finish("finished")
    text = shown(tmp_path)
    assert "llama2_7b" not in text and "loss" not in text
    assert f"chosen: {tmp_path}/selected.jsonl" in text


def test_the_training_loss_of_each_round(tmp_path: Path) -> None:
    pool, run = make_pool(10), Record(tmp_path, {"seed": 0}, {"selector": "kmq", "model": "tiny", "trainer": "full"})
    run.pool(pool, 4)
    for start, loss in ((0, 1.5), (4, 0.25)):
        run.round(Selection(np.arange(start, start + 4)), pool)
        run.training({"loss": loss, "examples": 4})
    run.finish("finished")
    assert "1.5000, 0.2500" in shown(tmp_path)
