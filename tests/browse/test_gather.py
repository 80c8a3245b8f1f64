"""What the page of a run is made of: facts of its folder, each of them checked against the pool they are about."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsel.browse import gather as module
from dsel.browse.gather import Shown, gather
from dsel.compare.subset import Subset, read_pool
from dsel.errors import ConfigError
from dsel.pool import Pool
from dsel.record.reader import RunFolder
from tests.browse.made import SOURCES, made_pool, made_run

N, BUDGET = 200, 60


@pytest.fixture(scope="module")
def pool() -> Pool:
    return made_pool(N)


@pytest.fixture
def folder(tmp_path: Path, pool: Pool) -> Path:
    return made_run(tmp_path / "run", pool, budget=BUDGET)


def shown(folder: Path, pool: Subset | None = None) -> Shown:
    return gather(RunFolder.read(folder), pool)


def strip(file: Path, *columns: str) -> None:
    pq.write_table(pq.read_table(file).drop_columns(list(columns)), file)


def test_each_example_is_there_with_what_it_was_chosen_by(folder: Path, pool: Pool) -> None:
    page = shown(folder)
    found, rows = page.examples, pq.read_table(folder / "selection.parquet").to_pylist()
    assert page.title == "iterative: 60 of 200 examples of made" and not page.notes
    assert (page.chosen, page.pool, page.per_round) == (BUDGET, N, [20, 20, 20])
    assert page.even == pytest.approx(1 / 12)
    assert sorted(found.id) == sorted(pool.ids) and found.id[:BUDGET] == [row["id"] for row in rows]
    assert found.round == [row["round"] for row in rows] and found.order == 3 * list(range(1, 21))
    assert found.cluster[:BUDGET] == [row["cluster"] for row in rows] and found.times == [1] * BUDGET
    assert found.weight == pytest.approx([row["weight"] for row in rows], rel=1e-5)
    quality = dict(zip(*pq.read_table(folder / "scores.parquet").to_pydict().values(), strict=True))
    assert found.score == pytest.approx([quality[name] for name in found.id], rel=1e-5)
    assert found.rank == [1 + sum(other > quality[name] for other in quality.values()) for name in found.id]
    texts = dict(zip(pool.ids, pool.messages, strict=True))
    for name, text, source in zip(found.id, found.text, found.source, strict=True):
        prompt, response = texts[name]
        assert text == f"{prompt['content']}\n→ {response['content']}"
        assert source is not None and page.sources[source] == pool.sources[pool.ids.index(name)]
    assert set(page.sources) == set(SOURCES)
    assert found.answer[0] == f"answer {rows[0]['index']} <i>of</i> the model" and found.feedback[0] is not None


def test_neighbours_are_those_of_the_map(folder: Path) -> None:
    page = shown(folder)
    xy = np.array([page.examples.x, page.examples.y], dtype=float).T
    assert np.abs(xy).max() == 1
    gaps = np.linalg.norm(xy[BUDGET:, None] - xy[None, :BUDGET], axis=2)
    assert page.examples.near == gaps.argmin(1).tolist()
    assert page.examples.gap == pytest.approx(gaps.min(1), abs=1e-5)


def test_clusters_have_their_members_weights_and_medoids(folder: Path) -> None:
    page, rows = shown(folder), pq.read_table(folder / "clusters.parquet").to_pylist()
    chosen = pq.read_table(folder / "selection.parquet")["cluster"].to_pylist()
    weights = pq.read_table(folder / "rounds" / "weights.parquet").to_pylist()
    assert [cluster.size for cluster in page.clusters] == sorted((row["size"] for row in rows), reverse=True)
    for cluster in page.clusters:
        row = rows[cluster.cluster]
        assert (cluster.size, cluster.chosen) == (row["size"], chosen.count(cluster.cluster))
        assert cluster.quality == pytest.approx(row["mean_quality"], rel=1e-5)
        assert cluster.medoid is not None and page.examples.id[cluster.medoid] == row["medoids"][0]
        assert cluster.source == f"{row['sources'][0][0]} ({row['sources'][0][1]:.0%})"
        told = [row["weight"] for row in weights if row["cluster"] == cluster.cluster]
        assert cluster.weights == pytest.approx(told, rel=1e-5)


def test_an_example_that_several_rounds_chose_is_there_once(folder: Path) -> None:
    table = pq.read_table(folder / "selection.parquet")
    again = table.slice(0, 1).set_column(0, "round", pa.array([3]))
    pq.write_table(pa.concat_tables([table, again]), folder / "selection.parquet")
    page = shown(folder)
    assert page.examples.times == [2] + [1] * (BUDGET - 1) and page.examples.round[0] == 1
    assert page.per_round == [20, 20, 21]


def test_the_map_of_an_older_run_has_no_texts(folder: Path) -> None:
    strip(folder / "map.parquet", "id", "source", "text")
    page = shown(folder)
    assert page.examples.text[0] is not None and set(page.examples.text[BUDGET:]) == {None}
    assert page.examples.id[-1].startswith("row ") and page.examples.near[0] is not None
    assert page.notes == ["The texts of what was not chosen are not in the run's folder: --pool FILE shows them."]


def test_a_run_without_embeddings_shows_its_choices(folder: Path) -> None:
    for name in ("map.parquet", "clusters.parquet", "scores.parquet"):
        (folder / name).unlink()
    page = shown(folder)
    assert len(page.examples.id) == BUDGET and set(page.examples.x) == {None} and set(page.examples.rank) == {None}
    assert {cluster.size for cluster in page.clusters} == {None}
    assert page.notes == [
        "There is no map: the run embedded nothing (map.parquet).",
        "What was not chosen is not in the run's folder: --pool FILE, the run's pool, shows it.",
    ]


def test_the_pool_brings_the_texts_of_all_others(folder: Path, pool: Pool, tmp_path: Path) -> None:
    (folder / "map.parquet").unlink()
    file = tmp_path / "pool.jsonl"
    file.write_text("\n".join(pool.originals["json"]))
    page = shown(folder, read_pool(file))
    assert len(page.examples.id) == N and None not in page.examples.text
    assert {text for text in page.examples.text if text} == {
        f"{m[0]['content']}\n→ {m[1]['content']}" for m in pool.messages
    }
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"instruction": "another", "output": "one"}) + "\n")
    with pytest.raises(ConfigError, match="not what this run chose from: 0 of its 60 chosen examples are in it"):
        shown(folder, read_pool(other))


def test_a_page_has_as_many_examples_as_a_browser_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    page = shown(folder)
    assert (page.chosen, len(page.examples.id)) == (50, 100)
    assert page.examples.order[:3] == [1, 2, 3] and page.title.startswith("iterative: 60 of 200")
    assert page.notes == [
        "50 of 60 chosen examples are on this page.",
        "50 of the examples that were not chosen are on this page.",
    ]


def test_texts_are_cut_to_what_a_page_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LETTERS", 0)
    monkeypatch.setattr(module, "SHORTEST", 20)
    texts = shown(folder).examples.text
    assert {len(text) for text in texts if text} == {20} and all(text.endswith("…") for text in texts if text)


BROKEN: dict[str, Any] = {
    "empty": b"",
    "text": b"not a table",
    "no rows' columns": pa.table({"z": [1]}),
    "words for numbers": pa.table({name: ["a"] for name in "index x y cluster chosen round weight rank size".split()}),
    "gaps": pa.table({name: pa.array([None], pa.int64()) for name in "index x y cluster chosen round weight".split()}),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("file", ["map", "clusters", "scores", "rounds/weights", "rounds/answers"])
def test_a_table_that_is_none_is_left_out_with_a_note(folder: Path, file: str, name: str) -> None:
    path = folder / f"{file}.parquet"
    if isinstance(BROKEN[name], bytes):
        path.write_bytes(BROKEN[name])
    else:
        pq.write_table(BROKEN[name], path)
    page = shown(folder)
    assert len(page.examples.round) == BUDGET
    (note,) = [note for note in page.notes if str(path) in note]
    assert note.startswith("Left out: ") and "\n" not in note


def test_points_without_a_place_are_no_map(folder: Path) -> None:
    table = pq.read_table(folder / "map.parquet")
    pq.write_table(table.set_column(1, "x", pa.array([float("inf")] * len(table))), folder / "map.parquet")
    assert any("points without a place" in note for note in shown(folder).notes)


def test_what_no_run_chose_is_one_line(folder: Path) -> None:
    (folder / "selection.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"selection\.parquet"):
        shown(folder)


def test_a_run_that_failed_says_so(folder: Path) -> None:
    run = RunFolder.read(folder)
    facts = {**run.facts, "status": "failed", "error": "the disk is full"}
    notes = gather(dataclasses.replace(run, facts=facts)).notes
    assert notes == ["The run is not finished (failed: the disk is full): this is what it has chosen so far."]
