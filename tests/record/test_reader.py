"""One reader of runs: what it says of a folder as runs leave it, and of one that is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsel.clusterer.base import Clustering
from dsel.computed import note_computed
from dsel.evaluator.base import Metric
from dsel.files import read_json, unsealed, write_sealed
from dsel.record.facts import FORMAT, OddRecord
from dsel.record.reader import RunFolder
from dsel.record.writer import Record
from dsel.selector.base import Selection
from dsel.spent import Spent
from tests.conftest import make_pool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two clusters of ten examples, of which two are chosen."""
    pool = make_pool(10)
    run = Record(tmp_path, {"seed": 3, "scorer": {"name": "length"}, "trainer": None}, {"selector": "kmq"})
    run.pool(pool, 2)
    with run.stage("select") as stage:
        stage.items = 10
    run.round(Selection(np.array([7, 2])), pool)
    labels = np.array([0] * 4 + [1] * 6)
    clustering = Clustering(labels, np.zeros((2, 2), dtype=np.float32), np.ones(10, dtype=np.float32), None)
    note_computed(run, {"clustering": clustering, "quality": np.arange(10, dtype=np.float32)}, pool, low_quality=0.3)
    run.metrics({"part": Metric(0.25, 0.1, "acc", detail=True), "task": Metric(0.5, float("nan"), "acc")})
    run.finish("finished")
    return tmp_path


def test_a_run_as_it_was_written(folder: Path) -> None:
    run = RunFolder.read(folder)
    assert (run.where, run.folder, run.status) == (str(folder / "record.json"), folder, "finished")
    assert (run.seed, run.choice("selector"), run.choice("model")) == (3, "kmq", None)
    assert run.part("scorer") == {"name": "length"} and run.part("trainer") == {}
    assert run.fingerprint == make_pool(10).fingerprint
    assert (run.value("task"), run.value("pool.examples"), run.value("choices.selector")) == (0.5, 10.0, None)
    assert (run.test_error("part"), run.test_error("task"), run.tasks) == (0.1, None, ("task",))
    assert run.objective == 0.5
    assert [(s.name, s.items, s.cached) for s in run.stages] == [("select", 10, False)]
    assert run.quality == {f"e{i}": float(i) for i in range(10)}
    assert run.clusters is not None and run.clusters["size"].to_pylist() == [4, 6]
    assert run.sources == {"even": 5, "odd": 5}
    assert not run.odd


def test_what_is_not_there_is_nothing(folder: Path) -> None:
    for name in ("scores.parquet", "clusters.parquet"):
        (folder / name).unlink()
    run = RunFolder.read(folder)
    assert run.quality is None and run.clusters is None and run.sources is None and not run.odd
    alone = RunFolder(run.facts, "https://example.org/run")
    assert alone.quality is None and alone.seed == 3


def test_an_odd_table_is_left_out_and_named(folder: Path) -> None:
    pq.write_table(pa.table({"id": ["e0", None], "score": [1.0, 2.0]}), folder / "scores.parquet")
    (folder / "clusters.parquet").write_bytes(b"PAR1")
    run = RunFolder.read(folder)
    assert run.quality is None and run.clusters is None
    assert [line.split(": ")[0] for line in run.odd] == [
        str(folder / "scores.parquet"), str(folder / "clusters.parquet"),
    ]  # fmt: skip


@pytest.mark.parametrize("sealed", [True, False])
def test_a_later_format_is_one_line(folder: Path, sealed: bool) -> None:
    path = folder / "record.json"
    later = {**unsealed(read_json(path)), "format": FORMAT + 1, "rounds": "elsewhere"}
    if sealed:
        write_sealed(path, later)
    else:
        path.write_text(json.dumps(later))
    with pytest.raises(OddRecord, match=f"^of format {FORMAT + 1}, and this dsel reads up to format {FORMAT}: "):
        RunFolder.read(folder)


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", None, True, [1]])
def test_a_format_is_a_number(folder: Path, value: Any) -> None:
    path = folder / "record.json"
    write_sealed(path, {**unsealed(read_json(path)), "format": value})
    with pytest.raises(OddRecord, match="^format is "):
        RunFolder.read(folder)


def test_a_record_that_was_changed_is_none(folder: Path) -> None:
    path = folder / "record.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(OddRecord, match="damaged or changed"):
        RunFolder.read(folder)


@pytest.mark.parametrize(
    ("process", "status"),
    [
        ({}, "running"),
        ({"since": 1}, "killed"),  # its number is another process's now
        ({"pid": 2**22 + 1}, "killed"),
        ({"host": "elsewhere", "pid": 2**22 + 1}, "running"),  # nothing is known of it
        ({"pid": "1"}, "running"),
        ({"pid": -1}, "running"),
    ],
)
def test_a_run_whose_process_is_gone_is_not_running(tmp_path: Path, process: dict[str, Any], status: str) -> None:
    run = Record(tmp_path, {"seed": 0}, {})
    run.facts["process"] |= process
    run.save()
    assert RunFolder.read(tmp_path).status == status
    run.finish("finished")
    assert RunFolder.read(tmp_path).status == "finished"


def test_a_run_that_was_killed_says_so(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path; from dsel.record.writer import Record; Record(Path({str(tmp_path)!r}), {{}}, {{}})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert RunFolder.read(tmp_path).facts["status"] == "running"
    assert RunFolder.read(tmp_path).status == "killed"


def test_more_operations_than_64_bits_count_are_read(tmp_path: Path) -> None:
    run = Record(tmp_path, {"seed": 0}, {})
    with run.stage("train") as stage:
        stage.artifact, stage.spent = "fits/a", Spent(3.0, 4.2e21, 10**12)
    run.finish("finished")
    found = RunFolder.read(tmp_path)
    assert found.cost.training is not None and found.cost.training.flops == 4.2e21
    assert found.value("cost.training.flops") == 4.2e21
    for spent in ({"seconds": -1}, {"flops": "1"}, {"flops": 1e300}, [1], {"tokens": True}):
        path = tmp_path / "record.json"
        facts = unsealed(read_json(path))
        facts["stages"][0]["spent"] = spent
        path.write_text(json.dumps({k: v for k, v in facts.items() if k not in ("format", "digest")}))
        with pytest.raises(OddRecord):
            RunFolder.read(tmp_path)
        write_sealed(path, facts)
