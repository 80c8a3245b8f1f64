"""Scale, unit, decimals and direction come from the metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsel.record.reader import RunFolder
from dsel.record.writer import Record
from dsel.report.match import Composer
from dsel.report.spec import read
from dsel.report.tables import Report, Table, build
from dsel.report.writers import compared_title, document, latex, legend, terminal, to_csv
from dsel.show import plain
from tests.report.conftest import SECTION
from tests.report.made import made_record

LOSSES = {"random": (5.719, 5.731, 5.702), "kcenter": (5.402, 5.401, 5.39)}


def measured(folder: Path, *, loss: float, accuracy: float, old: bool = False, **options: Any) -> RunFolder:
    """A run of an accuracy and a held-out loss. old: of a record from before units were written."""
    selector, seed = options["selector"], options["seed"]
    record: Record = made_record(
        folder / f"{selector}{seed}", "experiments=quickstart", f"selector={selector}", seed=seed,
        values={"procedural": accuracy},
    )  # fmt: skip
    metrics = dict(record.facts["metrics"])
    metrics["heldout_loss"] = {
        "value": loss, "stderr": 0.02, "metric": "nats/token", "n": 100, "higher_is_better": False, "unit": "nats",
    }  # fmt: skip
    if old:
        for metric in metrics.values():
            metric.pop("unit")
    record.facts["metrics"] = metrics
    record.save()
    return RunFolder.read(record.folder)


def built(folder: Path, *, old: bool = False, **changes: Any) -> Table:
    runs = [
        measured(folder, selector=selector, seed=seed, loss=loss, accuracy=0.4 + seed / 100, old=old)
        for selector, losses in LOSSES.items()
        for seed, loss in enumerate(losses)
    ]
    columns = {"accuracy": "procedural", "loss": "heldout_loss"}
    section = {**SECTION, "published": {}, "columns": columns, **changes}
    return build(read(section).tables[0], runs, Composer(["experiments=quickstart"]))


@pytest.mark.parametrize("old", [False, True])
def test_a_loss_is_in_nats_and_lower_is_better(tmp_path: Path, old: bool) -> None:
    table = built(tmp_path, old=old)
    best, other = table.cells["k-Center", "loss"], table.cells["random", "loss"]
    assert table.show_value(other) == "5.717 ± 0.008"
    assert table.show_value(table.cells["random", "accuracy"]) == "41.0 ± 0.6"
    assert (best.rank, best.best, other.rank, other.best) == (1, True, 2, False)
    assert table.show_difference(best).startswith("−0.320 (−5.6 %) [−0.")
    assert compared_title(table).startswith("Difference to random, over the seeds that both have: points or nats, per")
    assert list(legend(table))[-2:] == ["In nats: loss.", "↓: lower is better."]
    assert "Standard error of one run over the examples" in table.notes[-1] and "loss 0.020" in table.notes[-1]


def test_every_form_marks_where_lower_is_better(tmp_path: Path) -> None:
    table = built(tmp_path)
    assert [plain(head) for head in terminal(table).header] == ["selector", "accuracy", "loss ↓"]
    assert "loss ↓ |" in document(Report("t", [table]), [], command="")
    assert r"loss $\downarrow$" in latex(table)
    rows = to_csv([table]).splitlines()
    assert rows[1].split(",")[3:6] == ["procedural", "%", "True"]
    assert [row.split(",")[3:6] for row in rows if ",loss," in row][0] == ["heldout_loss", "nats", "False"]


def test_the_experiments_file_may_say_otherwise(tmp_path: Path) -> None:
    table = built(tmp_path, scale={"heldout_loss": 100}, decimals=0)
    assert table.show_value(table.cells["random", "loss"]) == "572 ± 1"
    assert "In nats × 100: loss." in list(legend(table))


def test_numbers_that_are_no_metrics_are_as_they_are(tmp_path: Path) -> None:
    columns = {"accuracy": "procedural", "chosen": "budget", "size": "pool.examples"}
    table = built(tmp_path, columns=columns)
    assert table.show_value(table.cells["random", "size"]) == "6000 ± 0"
    assert table.show_value(table.cells["random", "chosen"]) == "600 ± 0"
    assert "size" in table.heading("size") and "↓" not in table.heading("size")


def test_a_unit_is_a_word(tmp_path: Path) -> None:
    run = measured(tmp_path, selector="random", seed=0, loss=5.0, accuracy=0.5)
    assert run.unit("heldout_loss") == "nats" and run.unit("procedural") == "share" and run.unit("budget") is None
    assert json.loads(Path(run.where).read_text())["metrics"]["procedural"]["unit"] == "share"
