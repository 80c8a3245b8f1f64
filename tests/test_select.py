"""Only the subset: as a command on a file, and as a function on what a program has at hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsel
from dsel.errors import ConfigError
from dsel.subset.describe import copies
from dsel.subset.rows import beside
from tests.conftest import ROOT, offline

FEW = ["clusterer.k=8"]
TOPICS = ("rivers", "planets", "bread", "chess", "violins", "tulips")

Select = Callable[..., "subprocess.CompletedProcess[str]"]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """120 rows of six topics; every tenth is a copy of the one before it, and two cannot be used."""
    made: list[Row] = []
    for i in range(120):
        topic = TOPICS[i % len(TOPICS)]
        asked = f"Tell me about {topic}, number {i}, and {TOPICS[i // 7 % 6]}."
        answer = f"All {topic} are {'very ' * (i % 5)}number {i}. " * (1 + i % 3)
        made.append({"instruction": asked, "input": "", "output": answer, "source": topic, "rating": float(i % 9)})
    for i in range(10, 120, 10):
        made[i] = dict(made[i - 1])
    made[5]["output"] = None
    made[77]["instruction"] = ""
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    path = tmp_path_factory.mktemp("mine") / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def select(file: Path) -> Select:
    """Starts `dsel select my.jsonl` in its folder."""

    def start(*arguments: str, given: str = "my.jsonl") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dsel", "select", given, *arguments]
        environment = {**offline(file.parent), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        return subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True, timeout=300)

    return start


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("DSEL_CACHE", str(file.parent / "cache"))


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_becomes_a_smaller_one_beside_it(select: Select, file: Path, rows: list[Row]) -> None:
    done = select("--budget", "30", "--set", FEW[0], "--picture", "seen.svg")
    assert done.returncode == 0, done.stderr
    chosen = read(file.with_name("my.selected.jsonl"))
    assert len(chosen) == 30 and all(row in rows for row in chosen)
    assert len({json.dumps(row) for row in chosen}) == 30  # near-duplicates are gone
    assert "written: my.selected.jsonl\n" in done.stdout and "written: seen.svg" in done.stdout
    for said in ("semdedup, then kmeans_uniform, of my.jsonl", "rivers", "words in response", "distinct words",
                 "clusters", "near-duplicates", "2 rows skipped"):  # fmt: skip
        assert said in done.stdout, said
    assert (file.parent / "seen.svg").read_text().lstrip().startswith("<?xml")
    assert not list(file.parent.glob("runs*")) and not list(file.parent.glob("outputs*"))


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ([], {}),
        (["--selector", "kmq", "--seed", "3"], {"selector": "kmq", "seed": 3}),
        (["--selector", "random"], {"selector": "random"}),
        (["--scorer", "column", "--selector", "quality", "--set", "scorer.name=rating"],
         {"scorer": "column", "selector": "quality", "overrides": ["scorer.name=rating"]}),
    ],
)  # fmt: skip
def test_a_dataset_a_frame_and_a_list_give_what_the_command_gives(
    select: Select, file: Path, rows: list[Row], flags: list[str], asked: dict[str, Any]
) -> None:
    import pandas as pd
    from datasets import Dataset

    out = file.with_name("wanted.jsonl")
    done = select("--budget", "25", "--set", FEW[0], "-o", "wanted.jsonl", *flags)
    assert done.returncode == 0, done.stderr
    wanted = read(out)
    asked = {**asked, "overrides": [*FEW, *asked.get("overrides", [])]}

    listed = dsel.select(rows, 25, **asked)
    assert listed == wanted and all(any(row is each for each in rows) for row in listed)
    frame = pd.DataFrame(rows, index=range(1000, 1000 + len(rows)))
    found = dsel.select(frame, 25, **asked)
    assert isinstance(found, pd.DataFrame) and found.index.min() >= 1000
    assert found.to_dict("records") == wanted
    data = Dataset.from_list(rows)
    part = dsel.select(data, 25, **asked)
    assert isinstance(part, Dataset) and part.to_list() == wanted and part.features == data.features


def test_for_a_target(select: Select, file: Path, rows: list[Row]) -> None:
    """Rows like some examples of what is wanted, in files and at hand."""
    from datasets import Dataset

    like = [
        {"prompt": f"Tell me about violins, number {i}, and violins.", "completion": "All violins."} for i in range(4)
    ]
    file.with_name("like.jsonl").write_text("".join(json.dumps(row) + "\n" for row in like))
    file.with_name("close.jsonl").write_text("an earlier choice")
    done = select("--budget", "10", "--target", "like.jsonl", "--set", FEW[0], "-o", "close.jsonl")
    assert done.returncode == 0, done.stderr
    assert "written: close.jsonl (in place of the file that was there)" in done.stdout
    wanted = read(file.with_name("close.jsonl"))
    assert sum("violins" in row["instruction"] for row in wanted) >= 9  # words have numbers too
    for said in ("semdedup, then nearest, of my.jsonl", "cosine to the nearest target", "4 targets"):
        assert said in done.stdout, said
    assert dsel.select(rows, 10, target=like, overrides=FEW) == wanted
    assert dsel.select(rows, 10, target=Dataset.from_list(like), overrides=FEW) == wanted
    done = select("--budget", "10", "--target", "like.jsonl", "--selector", "bm25", "-o", "words.jsonl")
    assert done.returncode == 0 and "index" not in done.stderr, done.stderr  # bm25s would say more
    assert dsel.select(rows, 10, target=like, selector="bm25") == read(file.with_name("words.jsonl"))
    planets = [{**row, "prompt": row["prompt"].replace("violins", "planets")} for row in like]
    found = dsel.select(rows, 10, target=planets, overrides=FEW)
    assert sum("planets" in row["instruction"] for row in found) >= 9


def test_conversations_of_every_kind_of_data_set(rows: list[Row], tmp_path: Path) -> None:
    import pandas as pd
    from datasets import Dataset

    chats = [
        {"messages": [{"role": "user", "content": r["instruction"] or "?"}, {"role": "assistant", "content": str(i)}]}
        for i, r in enumerate(rows)
    ]
    pd.DataFrame(chats).to_parquet(tmp_path / "chats.parquet")
    asked: dict[str, Any] = {"selector": "kmeans_uniform", "overrides": FEW}
    wanted = dsel.select(chats, 0.1, **asked)
    assert len(wanted) == 12
    frame = dsel.select(pd.read_parquet(tmp_path / "chats.parquet"), 0.1, **asked)
    assert [chats[i] for i in frame.index] == wanted
    assert dsel.select(Dataset.from_list(chats), 0.1, **asked).to_list() == wanted


def test_vectors_and_qualities_that_are_known(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("nothing was to be embedded or scored")

    monkeypatch.setattr("dsel.embedder.tfidf_svd.TfidfSvd.embed", never)
    monkeypatch.setattr("dsel.scorer.length.Length.score", never)
    vectors = np.zeros((len(rows), 2))
    vectors[:60, 0] = vectors[60:, 1] = 1
    vectors += np.random.default_rng(0).normal(scale=0.01, size=vectors.shape)
    quality = 1000.0 * np.arange(len(rows))  # differences that leave nothing to chance
    asked: dict[str, Any] = {"selector": "kmq", "overrides": ["clusterer.k=2", "selector.allocation=equal"]}
    chosen = [rows.index(row) for row in dsel.select(rows, 4, embeddings=vectors, quality=quality, **asked)]
    assert [rows[i] for i in sorted(chosen)] == [
        rows[i] for i in (58, 59, 118, 119)
    ]  # the best of each of two clusters
    other = dsel.select(rows, 4, embeddings=vectors[::-1], quality=quality[::-1].tolist(), **asked)
    assert [rows[i] for i in (0, 1, 60, 61)] == sorted(other, key=rows.index)


def test_what_does_not_fit_is_one_line(rows: list[Row]) -> None:
    vectors = np.ones((len(rows), 2))
    faults: dict[str, dict[str, Any]] = {
        "embeddings: 3 for 120 rows": {"embeddings": vectors[:3]},
        "a vector for each row": {"embeddings": vectors[:, 0]},
        "row 7 is not finite": {"embeddings": np.where(np.arange(120)[:, None] == 7, np.nan, vectors)},
        "quality: not an array of numbers": {"quality": ["good"] * len(rows)},
        "looks at a model in training": {"selector": "iterative"},
        "did you mean kmq": {"selector": "kmqq"},
        "larger than the pool: it has 118": {"budget": 119},
        "budget is an argument of its own": {"overrides": ["budget=3"]},
        "looks at no target": {"selector": "kmq", "target": rows[:3]},
        "the target has no rows": {"target": []},
        "targets: no usable example": {"target": [{"prompt": "Why?", "completion": ""}]},
        "selector=dsir chooses for a target": {"selector": "dsir"},
        "compares them with those of the target": {"target": rows[:3], "embeddings": np.ones((len(rows), 2))},
        "the target is given": {"target": rows[:3], "overrides": ["targets=none"]},
        "the rows are given": {"overrides": ["data=procedural"]},
        "clusterer.k=500": {"overrides": ["clusterer.k=500"]},
    }
    for message, asked in faults.items():
        with pytest.raises(ConfigError, match=message):
            dsel.select(rows, **{"budget": 5, **asked})
    for wrong in ({"train": rows}, "my.jsonl", [1, 2], 7):
        with pytest.raises(TypeError, match="a list of mappings is wanted"):
            dsel.select(wrong, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "7", "--out", "my.jsonl"], "--out my.jsonl: that is the file that is read"),
        (["--budget", "7", "--out", "mine.xlsx"], "ends in .jsonl, .json, .csv, .parquet"),
        (["--budget", "7", "--picture", "seen.bmp"], "ends in .png, .svg, .pdf"),
        (["--budget", "700"], "larger than the pool"),
        (["--budget", "7", "--target", "like.json"], "--target=like.json: no such file"),
        (["--budget", "7", "--target", "my.jsonl", "--set", "targets=none"], "the target is given: targets= has"),
        (["--budget", "7", "--columns", "prompt"], "our name and yours"),
        (["--budget", "7", "--columns", "prompt=question"], "data.columns names question"),
        (["--budget", "7", "--set", "selector.drow=1"], "did you mean"),
        (["--budget", "7", "--set", "tracker.api_key=abc"], "no key or password here"),
        (["--selector", "kmq"], "--budget"),
        (["--budget", "many"], "invalid float value: 'many'"),
    ],
)
def test_complaints_are_one_line(select: Select, arguments: list[str], said: str) -> None:
    done = select(*arguments)
    assert done.returncode == 2, done.stderr
    *before, line = done.stderr.splitlines()
    assert line.startswith("dsel: ") and said in line
    assert all("skipped" in each or "reported.parquet" in each or "so far" in each for each in before)


def test_formats_of_what_is_written(select: Select, file: Path) -> None:
    import pyarrow.parquet as pq

    found = []
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        done = select("--budget", "9", "--selector", "random", "-o", f"out/{name}")
        assert done.returncode == 0, done.stderr
        path = file.parent / "out" / name
        with path.open(newline="") as text:
            found.append(
                pq.read_table(path).to_pylist() if name.endswith("t")
                else list(csv.DictReader(text)) if name.endswith("v")
                else read(path) if name.endswith("l")
                else json.load(text)
            )  # fmt: skip
    jsonl, whole, table, parquet = found
    assert jsonl == whole == parquet and len(jsonl) == 9
    assert [{**row, "rating": float(row["rating"])} for row in table] == jsonl


def test_columns_by_names_of_ones_own_and_several_files(select: Select, file: Path) -> None:
    for part in "ab":
        lines = [json.dumps({"frage": f"{part} {i}?", "antwort": str(i)}) + "\n" for i in range(9)]
        (file.parent / f"{part}.jsonl").write_text("".join(lines))
    done = select("b.jsonl", "--budget", "8", "--selector", "uniform", "--columns", "prompt=frage, completion=antwort",
                  given="a.jsonl")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["frage"][0] for row in read(file.with_name("a.selected.jsonl"))].count("b") == 4


def test_where_the_subset_goes(tmp_path: Path) -> None:
    names = {"my.jsonl": "my", "my.v2.json": "my.v2", "my.jsonl.gz": "my", "my": "my", "a.parquet": "a"}
    for name, stem in names.items():
        assert beside(Path("x", name)) == Path("x", f"{stem}.selected.jsonl")
    (tmp_path / "d.json").mkdir()
    assert beside(tmp_path / "d.json") == tmp_path / "d.json.selected.jsonl"


def test_near_duplicates_are_counted_among_the_others() -> None:
    draws = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    assert copies(draws) == 0
    assert copies(np.concatenate([draws, draws[:5] * 3])) == pytest.approx(10 / 55)


def test_neither_importing_dsel_nor_choosing_loads_what_it_need_not(file: Path) -> None:
    light = "import sys, dsel; print({'numpy', 'hydra', 'datasets'} & set(sys.modules))"
    choose = (
        "import sys, dsel; rows = [{'prompt': str(i), 'completion': str(i)} for i in range(40)]; "
        f"dsel.select(rows, 5, overrides={FEW}); "
        "print({'torch', 'transformers', 'sentence_transformers', 'matplotlib'} & set(sys.modules))"
    )
    for code in (light, choose):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=offline(file.parent), capture_output=True, text=True
        )
        assert done.stdout.strip().splitlines()[-1] == "set()", done.stderr
