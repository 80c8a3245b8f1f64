"""python -m dsel.run from the outside: whole runs, and what is said when one cannot be."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dsel.data.procedural import generate
from tests.conftest import QUICK, computed

Run = Callable[..., "subprocess.CompletedProcess[str]"]

CHEAP = ["selector=kmeans_uniform", "embedder=tfidf_svd", "clusterer.k=5", "clusterer.niter=10"]
SUBSET = ["trainer=none", "evaluator=none", "tracker=none", *CHEAP]


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    file = tmp_path / "my_alpaca.jsonl"
    rows = [{"instruction": f"Task {i} of kind {i % 7}", "input": "", "output": f"Result {i}"} for i in range(60)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return file


def the_run(folder: Path) -> tuple[Path, dict]:
    (path,) = folder.glob("*/record.json")
    return path.parent, json.loads(path.read_text())


def test_the_whole_loop(dsel_run: Run, tmp_path: Path) -> None:
    """Generated pool → embedding → clusters → selection → real finetuning → real lm-eval → record and W&B."""
    done = dsel_run(*QUICK, "evaluator.per_kind=1", "budget=0.1", f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    folder, record = the_run(tmp_path)
    assert record["status"] == "finished"
    assert record["budget"] == 40
    rows = pq.read_table(folder / "selection.parquet").to_pylist()
    assert len({row["index"] for row in rows}) == 40
    chosen = [json.loads(line) for line in (folder / "selected.jsonl").read_text().splitlines()]
    assert [c["id"] for c in chosen] == [row["id"] for row in rows]
    assert not {"kind", "is_noise", "answer"} & set(chosen[0])
    metric = record["metrics"]["procedural"]
    assert 0 <= metric["value"] <= 1
    assert {"data", "embed", "cluster", "train", "evaluate"} <= {s["name"] for s in record["stages"]}
    assert record["rounds"][0]["training"]["examples"] == 40
    assert record["environment"]["versions"]["torch"]
    assert record["tracker"]["mode"] == "offline"
    assert list(folder.glob("wandb/offline-run-*"))
    assert "procedural" in done.stdout
    assert "record.json" in done.stdout
    assert "wandb sync" in done.stderr


def test_same_seed_same_file_and_nothing_is_embedded_twice(dsel_run: Run, tmp_path: Path, alpaca: Path) -> None:
    selections = []
    for name in "ab":
        done = dsel_run("data=local", f"data.path={alpaca}", "budget=20", *SUBSET, f"runs={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        folder, record = the_run(tmp_path / name)
        selections.append((folder / "selection.parquet").read_bytes())
    assert selections[0] == selections[1]
    embed = next(s for s in record["stages"] if s["name"] == "embed")
    assert embed["cached"]
    assert embed["seconds"] < 10
    assert "embeddings: reused from the cache" in done.stderr


def test_just_the_subset_keeps_the_rows_as_they_were(dsel_run: Run, tmp_path: Path, alpaca: Path) -> None:
    before, runs = computed(), tmp_path / "r"
    done = dsel_run("data=local", f"data.path={alpaca}", "budget=7", *SUBSET[:3], "selector=random", f"runs={runs}")
    assert done.returncode == 0, done.stderr
    assert computed() - before < 20
    folder, record = the_run(runs)
    rows = [json.loads(line) for line in (folder / "selected.jsonl").read_text().splitlines()]
    originals = [json.loads(line) for line in alpaca.read_text().splitlines()]
    assert len(rows) == 7
    assert all(row in originals for row in rows)
    assert [s["name"] for s in record["stages"] if s["name"] not in ("data", "select")] == []


def test_a_multirun_gives_every_job_its_own_folder(dsel_run: Run, tmp_path: Path, alpaca: Path) -> None:
    done = dsel_run(
        "-m", "data=local", f"data.path={alpaca}", "seed=0,1", "budget=0.2", "data.limit=50", *SUBSET[:3], *CHEAP[1:],
        "selector=random,kmeans_uniform", f"runs={tmp_path / 'sweep'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "sweep").glob("*/record.json")]
    assert sorted((r["choices"]["selector"], r["config"]["seed"]) for r in records) == [
        ("kmeans_uniform", 0), ("kmeans_uniform", 1), ("random", 0), ("random", 1),
    ]  # fmt: skip
    assert len({r["config_digest"] for r in records}) == 4
    assert done.stderr.count("embeddings: computed") == 1


def test_a_trained_model_is_kept_on_request(dsel_run: Run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = dsel_run(*QUICK, "selector=random", "budget=16", "evaluator=none", "tracker=none", "trainer.save=true",
                    f"runs={tmp_path}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder, record = the_run(tmp_path)
    assert (folder / "model" / "model.safetensors").exists()
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template
    AutoModelForCausalLM.from_pretrained(folder / "model")
    assert record["metrics"] == {}


def test_a_run_killed_while_evaluating_trains_no_second_time(dsel_run: Run, tmp_path: Path) -> None:
    options = [*QUICK, "selector=random", "budget=16", "tracker=none", "evaluator.per_kind=1", "seed=77"]
    broken = dsel_run(*options, "evaluator.tasks={procedural:{shots:0,metric:nothing}}", f"runs={tmp_path / 'a'}")
    assert broken.returncode != 0
    assert the_run(tmp_path / "a")[1]["status"] == "failed"
    done = dsel_run(*options, f"runs={tmp_path / 'b'}")
    assert done.returncode == 0, done.stderr
    assert "reused what an interrupted run had learnt" in done.stderr
    folder, record = the_run(tmp_path / "b")
    assert record["status"] == "finished"
    assert (folder / "selection.parquet").read_bytes() == (
        the_run(tmp_path / "a")[0] / "selection.parquet"
    ).read_bytes()


def test_an_experiment_can_end_with_the_subset(dsel_run: Run, tmp_path: Path) -> None:
    options = ["data.size=300", "clusterer.k=8", "trainer=none", "evaluator=none", "tracker=none"]
    done = dsel_run("-m", "experiments=quickstart", "sweeps=seeds", *options, f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in tmp_path.glob("*/record.json")]
    assert sorted(r["config"]["seed"] for r in records) == [0, 1, 2, 3, 4]
    assert all(r["status"] == "finished" and r["budget"] == 30 for r in records)


def test_the_truth_of_a_generated_pool_stays_hidden(dsel_run: Run, tmp_path: Path) -> None:
    done = dsel_run("data=procedural", "data.size=200", "budget=50", *SUBSET, f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    folder, _ = the_run(tmp_path)
    kinds = {row["kind"] for row in generate(200, 0)}
    chosen = (folder / "selected.jsonl").read_text()
    assert not any(f'"{kind}"' in chosen for kind in kinds)
    assert pq.read_schema(folder / "selection.parquet").names == [
        "round", "index", "id", "source", "cluster", "weight", "score",
    ]  # fmt: skip


BAD = [
    (["nonsense=1"], "unknown key 'nonsense'"),
    (["clusterer.kk=3"], r"unknown key 'clusterer.kk' (did you mean clusterer.k?)"),
    (["selector=kmeans_unifrm"], "selector=kmeans_unifrm: no such option (did you mean kmeans_uniform?)"),
    (["experiments=quikstart"], "did you mean quickstart?"),
    (["budget=0"], "budget=0: give a fraction of the pool"),
    (["budget=61"], "budget=61 is larger than the pool: it has 60 usable examples"),
    (["budget=2.5"], "budget=2.5: above 1 a budget is a count"),
    (["budget=many"], "budget=many"),
    (["budget=10", "clusterer.k=61"], "clusterer.k=61 is larger than the pool: it has 60 usable examples"),
    (["seed=-1"], "seed=-1"),
    (["data.path=nothing_here.json"], "data.path=nothing_here.json: no such file or folder"),
    (["data.path=null"], "data.path is not set"),
    (["data.limit=0"], "data.limit=0"),
    (["data.limit=abc"], "data.limit=abc: wants a whole number from 1 or null"),
    (["data.path=5"], "data.path=5: wants a path, a list of paths"),
    (["data.path=[]"], "data.path is empty"),
    (["data.columns=[prompt]"], "data.columns=[prompt]: wants a mapping of text to text or null"),
    (["data.columns={prompt: [a, b]}"], "data.columns={prompt: [a, b]}: wants a mapping"),
    (["data.holdout=abc"], "data.holdout=abc: wants a number"),
    (["data.split=[a]"], "data.split=[a]: wants text, not empty or null"),
    (["plan=perhaps"], "plan=perhaps: wants true or false"),
    (["data.path={}"], "data.path is empty"),
    (["seed=1.5"], "seed=1.5: wants a whole number from 0"),
    (["clusterer.k=[1]"], "clusterer.k=[1]: wants"),
    (["trainer=full", "trainer.epochs=abc"], "trainer.epochs=abc: wants a number"),
    (["evaluator=gsm8k_local", "evaluator.limit=-1"], "evaluator.limit=-1"),
    (["data.path=~/no_such_file.jsonl"], "data.path=~/no_such_file.jsonl: no such file or folder"),
    (["data.path=数据/没有.jsonl"], "data.path=数据/没有.jsonl: no such file or folder"),
    (["data.path=lr=1e-4, v(2)/part #1.jsonl"], "\"data.path='lr=1e-4, v(2)/part #1.jsonl'\""),
    (["selector=kmeans_uniform", "embedder=minilm", "embedder.hub=nobody/none"], "embedder.hub=nobody/none cannot be"),
    (["model=llama3_8b", "trainer=lora"], "model.hub=meta-llama/Meta-Llama-3-8B cannot be had"),
    (["data.columns={promt: a}"], "data.columns: promt is none of"),
    (["embedder=openai"], "embedder=openai needs a key: set the environment variable OPENAI_API_KEY"),
    (["embedder=cohere"], "set the environment variable COHERE_API_KEY"),
    (["selector.allocation=fair"], "selector.allocation=fair"),
    (["trainer=full", "trainer.batch_size=0"], "trainer.batch_size=0"),
    (["trainer=full", "model.path=no_model"], "model.path=no_model"),
    (["evaluator=gsm8k_local"], "evaluator=gsm8k_local needs evaluator.path"),
    (["evaluator=heldout_loss", "evaluator.path=gone.jsonl"], "evaluator.path=gone.jsonl"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_gets_one_clear_line(
    overrides: list[str], message: str, dsel_run: Run, tmp_path: Path, alpaca: Path
) -> None:
    before = computed()
    base = ["data=local", f"data.path={alpaca}", "budget=10", *SUBSET, f"runs={tmp_path / 'r'}"]
    done = dsel_run(*base, *overrides)
    took = computed() - before
    lines = [line for line in done.stderr.splitlines() if line.strip() and "rows skipped" not in line]
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    assert message in lines[0]
    assert took < 5
    assert not (tmp_path / "r").exists()


def test_a_sweep_whose_runs_are_refused_leaves_nothing(dsel_run: Run, tmp_path: Path, alpaca: Path) -> None:
    base = ["-m", "data=local", f"data.path={alpaca}", *SUBSET, f"runs={tmp_path / 'r'}", "selector=random"]
    for grid in (["budget=61,62"], ["budget=1,2", "clusterer.kk=3"], ["seed=0,1", "data.path=gone.json"]):
        done = dsel_run(*base, *grid)
        assert done.returncode in (1, 2), done.stderr
        assert not (tmp_path / "r").exists(), grid
    done = dsel_run(*base, "budget=61,6")  # one of the two begins
    assert done.returncode == 1 and "budget=61 is larger" in done.stderr
    assert [path.name for path in (tmp_path / "r").glob("[!.]*/")] == [the_run(tmp_path / "r")[0].name]


@pytest.mark.parametrize("more", [[], ["plan=true"]], ids=["run", "plan"])
def test_a_template_that_refuses_an_example_is_said_before_anything_costly(
    dsel_run: Run, tmp_path: Path, alpaca: Path, small_model: Path, more: list[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(small_model, model)
    template = model / "chat_template.jinja"
    refusal = "{% for m in messages if 'Task 41' in m.content %}{{ raise_exception('not\n this') }}{% endfor %}"
    template.write_text(refusal + template.read_text())
    cheap = [*CHEAP, "trainer=lora", "evaluator=none", "tracker=none", f"runs={tmp_path / 'runs'}"]
    done = dsel_run(
        "data=local", f"data.path={alpaca}", "budget=0.5", "model=tiny", f"model.path={model}", *cheap, *more
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"dsel: {model}: its chat template refuses example my_alpaca/42, user, assistant (not this); leave such "
        "examples out, or set model.chat_template=turns, which renders any"
    )
    assert "Traceback" not in done.stderr
    if not more:
        assert [s["name"] for s in the_run(tmp_path / "runs")[1]["stages"]] == ["data", "model"]


def test_unrecognisable_columns_are_named(dsel_run: Run, tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(json.dumps({"ask": "a", "reply": "b"}) + "\n")
    done = dsel_run("data=local", f"data.path={file}", "budget=1", *SUBSET, f"runs={tmp_path / 'r'}")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "columns ask, reply" in line
    assert "data.columns" in line
    done = dsel_run(
        "data=local", f"data.path={file}", "data.columns={prompt: ask, completion: reply}", "budget=1",
        *SUBSET, "selector=random", f"runs={tmp_path / 'r'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_bad_rows_are_named_or_stop_the_run(dsel_run: Run, tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    good = [{"instruction": f"i{i}", "output": f"o{i}"} for i in range(20)]
    file.write_text(json.dumps([*good[:3], {"instruction": "x", "output": ""}, *good[3:]]))
    base = ["data=local", f"data.path={file}", "budget=5", *SUBSET, "selector=random", f"runs={tmp_path / 'r'}"]
    done = dsel_run(*base)
    assert done.returncode == 0, done.stderr
    assert "some.json row 4" in done.stderr
    assert the_run(tmp_path / "r")[1]["pool"]["skipped"] == {"empty response": 1}
    done = dsel_run(*base, "data.on_bad_row=error")
    assert done.returncode == 2
    assert "row 4: empty response" in done.stderr


def test_scores_of_the_whole_pool_are_kept_beside_the_selection(dsel_run: Run, tmp_path: Path, alpaca: Path) -> None:
    done = dsel_run(
        "data=local", f"data.path={alpaca}", "budget=12", *SUBSET, "selector=kmq", "scorer=length",
        f"runs={tmp_path / 'r'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder, record = the_run(tmp_path / "r")
    scores = {row["id"]: row["score"] for row in pq.read_table(folder / "scores.parquet").to_pylist()}
    assert len(scores) == 60
    for row in pq.read_table(folder / "selection.parquet").to_pylist():
        assert row["score"] == scores[row["id"]]
        assert row["cluster"] is not None
    assert sum(row["size"] for row in pq.read_table(folder / "clusters.parquet").to_pylist()) == 60
    assert record["scores"]["highest"] == max(scores.values())


def test_a_launcher_is_refused_in_one_line(dsel_run: Run, tmp_path: Path) -> None:
    done = dsel_run(*QUICK, f"runs={tmp_path / 'r'}", WORLD_SIZE="8", RANK="3")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "one of 8 processes" in line and "python -m dsel.run … trainer.strategy=auto" in line
    assert not (tmp_path / "r").exists()


def test_a_small_pool_of_ones_own(dsel_run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """With the default selector and clusterer: k is not larger than the pool."""
    rows = [{"prompt": f"Say {word}.", "completion": f"{word}!" * n} for n, word in enumerate("abc", 1)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = dsel_run(
        "data=local", f"data.path={tmp_path}/my.jsonl", "budget=2", "embedder=tfidf_svd", "embedder.min_df=1",
        "trainer=none", "evaluator=none", "tracker=none", f"runs={tmp_path / 'runs'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "runs").glob("*/record.json")
    facts = json.loads(record.read_text())
    assert facts["clustering"]["k"] == 2 and facts["config"]["clusterer"]["k"] is None
    assert len((record.parent / "selected.jsonl").read_text().splitlines()) == 2
    assert f"chosen: {record.parent}/selected.jsonl" in done.stdout
    assert "qwen" not in done.stdout.lower()
