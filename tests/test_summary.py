"""The table at the end of a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dsel.evaluator.base import Metric
from dsel.record.reader import RunFolder
from dsel.record.writer import Record
from dsel.summary import show
from tests.conftest import make_pool


def test_the_summary_shows_metrics_with_errors_and_where_the_record_is(tmp_path: Path) -> None:
    pool, run = make_pool(10), Record(tmp_path, {"seed": 0}, {"selector": "random", "model": "tiny", "trainer": "full"})
    run.pool(pool, 4)
    run.metrics({"task": Metric(0.5, 0.1, "acc"), "part": Metric(0.25, 0.2, "acc", detail=True)})
    with run.stage("train") as stage:
        stage.items = 4
    run.finish("finished")
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show(RunFolder.read(tmp_path), console)
    text = console.export_text()
    assert "4 of 10 examples (40.0%)" in text
    assert "0.5000 ± 0.1000" in text
    assert "0.2500" not in text
    assert str(tmp_path / "record.json") in text
