"""What a run leaves behind."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from dsel.clusterer.base import Clustering
from dsel.clusterer.choice import Choice, Trial
from dsel.computed import note_computed, note_map
from dsel.evaluator.base import Metric, average
from dsel.files import finite
from dsel.record.writer import Record
from dsel.selector.base import Selection
from tests.conftest import make_pool


def record(folder: Path) -> Record:
    return Record(folder, {"seed": 0}, {"selector": "random", "model": "tiny", "trainer": "full"})


def read(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text())


def test_selection_has_a_row_for_each_example_and_the_originals(tmp_path: Path) -> None:
    pool, run = make_pool(10), record(tmp_path)
    run.round(Selection(np.array([7, 2]), clusters=np.array([1, 0]), weights=np.array([0.25, 0.75])), pool)
    run.round(Selection(np.array([4]), scores=np.float32([0.5])), pool)
    rows = pq.read_table(tmp_path / "selection.parquet").to_pylist()
    assert [r["round"] for r in rows] == [1, 1, 2]
    assert [r["index"] for r in rows] == [7, 2, 4]
    assert [r["id"] for r in rows] == ["e7", "e2", "e4"]
    assert [r["source"] for r in rows] == ["odd", "even", "even"]
    assert [r["cluster"] for r in rows] == [1, 0, None]
    assert [r["weight"] for r in rows] == [0.25, 0.75, None]
    assert [r["score"] for r in rows] == [None, None, 0.5]
    lines = [json.loads(line) for line in (tmp_path / "selected.jsonl").read_text().splitlines()]
    assert lines[0] == {"q": "Say the number 7.", "a": "number 7"}
    assert len(lines) == 3
    assert read(tmp_path)["rounds"][0]["sources"] == {"odd": 1, "even": 1}


def test_an_example_is_written_once_and_has_a_row_for_each_choice(tmp_path: Path) -> None:
    pool, run = make_pool(10), record(tmp_path)
    for indices, repeats in (([7, 2], False), ([2, 5, 5], True), ([7], False)):
        run.round(Selection(np.array(indices), repeats=repeats), pool)
    rows = pq.read_table(tmp_path / "selection.parquet").to_pylist()
    assert [(r["round"], r["index"]) for r in rows] == [(1, 7), (1, 2), (2, 2), (2, 5), (2, 5), (3, 7)]
    lines = [json.loads(line)["a"] for line in (tmp_path / "selected.jsonl").read_text().splitlines()]
    assert lines == ["number 7", "number 2", "number 5", "number 5"]  # twice in a round is on purpose
    assert [r["examples"] for r in read(tmp_path)["rounds"]] == [2, 3, 1]


def test_notes_gather_in_a_table_round_by_round(tmp_path: Path) -> None:
    run = record(tmp_path)
    run.note("weights", 1, {"cluster": np.arange(2), "weight": np.array([0.5, 0.5])})
    run.note("answers", 1, {"index": np.array([4, 1]), "answer": ["a", "ü\n" * 50], "feedback": [0.5, -1.0]})
    run.note("weights", 2, {"cluster": np.arange(2), "weight": np.array([0.25, np.nan])})
    run.note("answers", 2, {"index": np.array([3]), "answer": [""], "feedback": [2.0]})
    rows = pq.read_table(tmp_path / "rounds" / "weights.parquet").to_pylist()
    assert [(r["round"], r["cluster"]) for r in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [r["weight"] for r in rows[:3]] == [0.5, 0.5, 0.25] and np.isnan(rows[3]["weight"])
    rows = pq.read_table(tmp_path / "rounds" / "answers.parquet").to_pylist()
    assert [tuple(r.values()) for r in rows] == [(1, 4, "a", 0.5), (1, 1, "ü\n" * 50, -1.0), (2, 3, "", 2.0)]
    assert {p.name for p in (tmp_path / "rounds").iterdir()} == {"weights.parquet", "answers.parquet"}


@pytest.mark.parametrize("clustered", [True, False])
def test_the_map_spreads_points_as_widely_as_a_plane_can(tmp_path: Path, clustered: bool) -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(60, 8)).astype(np.float32) * np.arange(8, 0, -1), rng.integers(4, size=60)
    run = record(tmp_path)
    run.round(Selection(np.array([7, 2])), make_pool(60))
    known = {"clustering": SimpleNamespace(labels=labels, distances=np.zeros(60))} if clustered else {}
    note_map(run, {"embeddings": embeddings, **known}, make_pool(60))
    table = pq.read_table(tmp_path / "map.parquet").to_pydict()
    assert sorted(table["index"]) == list(range(60))
    assert [i for i, chosen in zip(table["index"], table["chosen"], strict=True) if chosen] == [2, 7]
    assert table["cluster"] == (labels[table["index"]].tolist() if clustered else [None] * 60)
    centred = embeddings - embeddings.mean(0)
    spread = np.linalg.svd(centred, compute_uv=False)[:2] ** 2
    assert np.square([table["x"], table["y"]]).sum(1) == pytest.approx(spread, rel=1e-3)


@pytest.mark.parametrize("choice", [None, Choice("exact", (Trial(2, 0.1, 60.0), Trial(3, 0.4, 45.0)))])
def test_what_was_computed_is_written_once_and_summed_up(tmp_path: Path, choice: Choice | None) -> None:
    labels, quality = np.array([0] * 5 + [2] * 3 + [1] * 2), np.linspace(0, 1, 10).astype(np.float32)
    clustering = Clustering(labels, np.zeros((3, 2), dtype=np.float32), np.arange(10, dtype=np.float32), choice)
    run = record(tmp_path)
    for _ in range(2):
        note_computed(run, {"clustering": clustering, "quality": quality}, make_pool(10), low_quality=0.3)
    rows = pq.read_table(tmp_path / "clusters.parquet").to_pylist()
    assert [row["medoids"] for row in rows] == [["e0", "e1", "e2"], ["e8", "e9"], ["e5", "e6", "e7"]]
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert scores["id"].to_pylist() == make_pool(10).ids and scores["score"].to_pylist() == quality.tolist()
    explained = {"k_selection.json", "k_selection.png"} if choice else set()
    assert {p.name for p in tmp_path.iterdir()} == {"record.json", "clusters.parquet", "scores.parquet"} | explained
    found = read(tmp_path)
    assert found["clustering"]["k"] == 3 and found["scores"]["highest"] == 1.0


def test_a_record_saved_inside_a_stage_has_no_time_below_zero(tmp_path: Path) -> None:
    run = record(tmp_path)
    with run.stage("select"):
        with run.stage("embed"):
            time.sleep(0.02)
        outer = read(tmp_path)["stages"][0]  # what a kill in this moment leaves
        assert outer["name"] == "select" and outer["seconds"] >= 0


def test_stages_count_their_own_time(tmp_path: Path) -> None:
    run = record(tmp_path)
    start = time.perf_counter()
    with run.stage("select") as outer:
        with run.stage("embed") as inner:
            time.sleep(0.05)
            inner.items = 10
        time.sleep(0.02)
    whole = time.perf_counter() - start
    assert inner.seconds >= 0.05
    assert 0.02 <= outer.seconds <= whole - inner.seconds + 1e-3
    embed = next(s for s in read(tmp_path)["stages"] if s["name"] == "embed")
    assert embed["items"] == 10
    assert embed["per_second"] == pytest.approx(10 / inner.seconds, rel=0.01)


def test_status_says_how_far_it_came(tmp_path: Path) -> None:
    run = record(tmp_path)
    assert read(tmp_path)["status"] == "running"
    run.finish("failed", error="no space left")
    assert read(tmp_path)["status"] == "failed"
    assert read(tmp_path)["error"] == "no space left"


def test_secrets_do_not_reach_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "abcdef123456")
    run = Record(tmp_path, {"url": "http://u:abcdef123456@host"}, {})
    run.finish("failed", error="401 for abcdef123456")
    assert "abcdef123456" not in (tmp_path / "record.json").read_text()


def test_what_json_cannot_hold_becomes_null() -> None:
    assert finite({"a": float("nan"), "b": [np.float32(1.5), np.int64(2)], "c": float("inf")}) == {
        "a": None, "b": [1.5, 2], "c": None,
    }  # fmt: skip


def test_average_of_independent_tasks() -> None:
    mean = average({"a": Metric(0.2, 0.03, "acc"), "b": Metric(0.6, 0.04, "acc")})
    assert mean.value == pytest.approx(0.4)
    assert mean.stderr == pytest.approx(0.025)
