"""Records from anywhere: nothing in them runs, the odd ones are named and left out, and the rest becomes the report."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsel.plan import finished
from dsel.report.__main__ import make, parse
from dsel.report.document import show, write
from dsel.report.runs import local, wandb_offline
from dsel.report.tables import Report
from dsel.tracker.wandb import Wandb
from tests.report.made import add_map, add_rounds, made_record

Facts = dict[str, Any]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Those of a finished run of the row `k-Means`: kmeans_uniform, quickstart's own."""
    folder = tmp_path_factory.mktemp("honest")
    record = made_record(folder, "experiments=quickstart", values={"procedural": 0.5}, silhouette=0.1)
    assert record.facts["status"] == "finished"
    written = json.loads((folder / "record.json").read_text())
    return {k: v for k, v in written.items() if k not in ("format", "digest")}  # an older one: any change is read


def put(folder: Path, record: Any) -> Path:
    folder.mkdir(parents=True)
    text = record if isinstance(record, str) else json.dumps(record)
    (folder / "record.json").write_bytes(text.encode("utf-8", errors="surrogatepass"))
    return folder


def changed(facts: Facts, path: str, value: Any) -> Facts:
    """`facts` with another value at a dotted path."""
    whole = copy.deepcopy(facts)
    *parents, last = path.split(".")
    at = whole
    for name in parents:
        at = at[name]
    at[last] = value
    return whole


def reported(runs: Path, out: Path, source: str = "local") -> Report:
    report = make(parse(["experiments=quickstart", f"runs={runs}", f"source={source}"]))
    files = write(report, out, command="the command")
    show(report, files)
    return report


# --- nothing runs -------------------------------------------------------------------------------------------


def harmful(canary: Path) -> dict[str, Any]:
    """Values that leave a file at `canary` where something builds, resolves or evaluates them."""
    toucher = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(canary)]}}
    return {
        "touch": toucher,
        "args": {"_target_": "subprocess.run", "_args_": [["touch", str(canary)]]},
        "list": [toucher],
        "nested": {"inner": {"_target_": "os.mkdir", "path": str(canary)}},
        "copy": {"_target_": "shutil.copyfile", "src": __file__, "dst": str(canary)},
    }


PLACES = (
    "config.selector", "config.selector._target_", "config.selector.allocation", "config.data", "config.data.name",
    "config.data.noise", "config.embedder", "config.embedder.dimensions", "config.clusterer", "config.clusterer.k",
    "config.clusterer.k_grid", "config.scorer", "config.model", "config.model.steps", "config.trainer",
    "config.trainer.lora", "config.trainer.epochs", "config.evaluator", "config.evaluator.tasks", "config.budget",
    "config.tracker", "config.tracker.tags", "config.cache", "config.seed", "choices.selector", "choices.model",
    "metrics.procedural", "metrics.procedural.value", "clustering", "pool", "environment", "rounds", "overrides",
)  # fmt: skip


@pytest.mark.parametrize("source", ["local", "wandb_offline"])
def test_no_class_that_a_record_names_is_looked_up(
    facts: Facts, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place with each way of naming a class; also where the class itself is what is different."""
    monkeypatch.setenv("NETRC", os.devnull)
    canaries, runs = tmp_path / "canaries", tmp_path / "runs"
    canaries.mkdir()
    records: list[Facts] = []
    for place in PLACES:
        for name, value in harmful(canaries / place).items():
            if name in ("touch", "copy", "args") or source == "local":
                records.append(changed(facts, place, value))
    for target in ("os.getcwd", "shutil.copyfile", "torch.load", "dsel.selector.random.Random", "no.such.module"):
        records.append(changed(facts, "config.selector._target_", target))
    assert len(records) >= 100
    for number, record in enumerate([facts, *records]):
        if source == "local":
            put(runs / str(number), record)
        elif number % 8 == 0:  # the real tracker takes a while for each
            (runs / str(number)).mkdir(parents=True)
            tracker = Wandb(mode="offline")
            honest = {**facts, "config": record["config"] if isinstance(record.get("config"), dict) else {}}
            tracker.start(runs / str(number), honest)
            tracker._run.summary.update({"record": json.dumps(record)})
            tracker._run.finish()
    report = reported(runs, tmp_path / "out", source)
    assert list(canaries.iterdir()) == []
    assert report.tables[0].placed


def test_nothing_recorded_is_in_a_command_as_a_class_or_an_interpolation(facts: Facts, tmp_path: Path) -> None:
    """Somebody will paste it."""
    names: list[Any] = ["${oc.env:HOME}", {"_target_": "os.system"}, [{"_target_": "os.system"}], "???"]
    for number, value in enumerate(names):
        put(tmp_path / "runs" / f"name{number}", changed(facts, "config.data.name", value))
    adapters: list[Any] = [{"_target_": "os.system"}, {"rank": {"_target_": "os.system"}}, {"a b": 1}]
    for number, value in enumerate(adapters):
        put(tmp_path / "runs" / f"lora{number}", changed(facts, "config.trainer.lora", value))
    put(tmp_path / "runs" / "class", changed(facts, "config.selector._target_", "os.system"))
    report = reported(tmp_path / "runs", tmp_path / "out")
    assert report.tables[0].placed == []
    for file in (tmp_path / "out").glob("report.*"):
        assert "os.system" not in file.read_text() and "oc.env" not in file.read_text()


def test_an_option_that_is_not_ours_is_no_file_to_compose(facts: Facts, tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text(f"_target_: os.mkdir\npath: {tmp_path / 'canary'}\n")
    for number, name in enumerate([f"../../../../../../..{tmp_path}/evil", str(tmp_path / "evil"), "../selector/kmq"]):
        other = changed(facts, "config.selector._target_", "os.mkdir")
        put(tmp_path / "runs" / str(number), changed(other, "choices.selector", name))
    report = reported(tmp_path / "runs", tmp_path / "out")
    assert not (tmp_path / "canary").exists()
    assert report.tables[0].placed == []


# --- odd ones are left out ----------------------------------------------------------------------------------

ODD: dict[str, Callable[[Facts], Any]] = {
    "empty": lambda f: "",
    "blank": lambda f: " \n",
    "torn": lambda f: json.dumps(f)[: len(json.dumps(f)) // 2],
    "text": lambda f: "finished",
    "number": lambda f: "7",
    "string": lambda f: '"finished"',
    "null": lambda f: "null",
    "list": lambda f: [f],
    "deep list": lambda f: "[" * 100_000,
    "deep mapping": lambda f: '{"a":' * 5000 + "1" + "}" * 5000,
    "deep config": lambda f: changed(f, "config.extra", json.loads("[" * 200 + "]" * 200)),
    "long number": lambda f: json.dumps(f)[:-1] + f', "more": {"9" * 5000}}}',
    "large number": lambda f: changed(f, "budget", 10**400),
    "nan": lambda f: changed(f, "metrics.procedural.value", float("nan")),
    "infinite": lambda f: changed(f, "metrics.procedural.value", float("inf")),
    "overflow": lambda f: json.dumps(f)[:-1] + ', "more": 1e999}',
    "value is text": lambda f: changed(f, "metrics.procedural.value", "0.5"),
    "value is a list": lambda f: changed(f, "metrics.procedural.value", [0.5]),
    "value is true": lambda f: changed(f, "metrics.procedural.value", True),
    "stderr is text": lambda f: changed(f, "metrics.procedural.stderr", "small"),
    "better is text": lambda f: changed(f, "metrics.procedural.higher_is_better", "yes"),
    "metric is a number": lambda f: changed(f, "metrics.procedural", 0.5),
    "metrics are a list": lambda f: changed(f, "metrics", [0.5]),
    "metrics are null": lambda f: changed(f, "metrics", None),
    "status is a list": lambda f: changed(f, "status", ["finished"]),
    "status is null": lambda f: changed(f, "status", None),
    "status is a book": lambda f: changed(f, "status", "finished" * 1000),
    "started is a number": lambda f: changed(f, "started", 2026),
    "choices are a list": lambda f: changed(f, "choices", ["quickstart"]),
    "choices are text": lambda f: changed(f, "choices", "quickstart"),
    "choice is a list": lambda f: changed(f, "choices.selector", ["kmq"]),
    "choice is a number": lambda f: changed(f, "choices.model", 3),
    "config is a list": lambda f: changed(f, "config", []),
    "config is text": lambda f: changed(f, "config", "seed: 0"),
    "config is null": lambda f: changed(f, "config", None),
    "seed is text": lambda f: changed(f, "config.seed", "0"),
    "seed is a fraction": lambda f: changed(f, "config.seed", 0.5),
    "seed is negative": lambda f: changed(f, "config.seed", -1),
    "seed is null": lambda f: changed(f, "config.seed", None),
    "seed is true": lambda f: changed(f, "config.seed", True),
    "seed is a list": lambda f: changed(f, "config.seed", [0]),
    "seed is large": lambda f: changed(f, "config.seed", 2**70),
    "no seed": lambda f: changed(f, "config", {k: v for k, v in f["config"].items() if k != "seed"}),
    "no config": lambda f: {k: v for k, v in f.items() if k != "config"},
    "budget is text": lambda f: changed(f, "budget", "all"),
    "budget is negative": lambda f: changed(f, "budget", -5),
    "budget is a list": lambda f: changed(f, "budget", [5]),
    "pool is a list": lambda f: changed(f, "pool", []),
    "pool's examples are text": lambda f: changed(f, "pool.examples", "many"),
    "pool's name is a number": lambda f: changed(f, "pool.name", 3),
    "pool's fingerprint is a list": lambda f: changed(f, "pool.fingerprint", []),
    "clustering is text": lambda f: changed(f, "clustering", "good"),
    "clustering has no k": lambda f: changed(f, "clustering", {"silhouette": 0.1}),
    "k is text": lambda f: changed(f, "clustering.k", "8"),
    "k is zero": lambda f: changed(f, "clustering.k", 0),
    "rounds are a mapping": lambda f: changed(f, "rounds", {"1": 2}),
    "round is a number": lambda f: changed(f, "rounds", [5]),
    "round is null": lambda f: changed(f, "rounds", [None]),
    "sources are a list": lambda f: changed(f, "rounds", [{"round": 1, "sources": ["forum"]}]),
    "sources are null": lambda f: changed(f, "rounds", [{"round": 1, "sources": None}]),
    "count is text": lambda f: changed(f, "rounds", [{"round": 1, "sources": {"forum": "5"}}]),
    "count is negative": lambda f: changed(f, "rounds", [{"round": 1, "sources": {"forum": -5}}]),
    "count is null": lambda f: changed(f, "rounds", [{"round": 1, "sources": {"forum": None}}]),
    "training is a list": lambda f: changed(f, "rounds", [{"round": 1, "training": [1]}]),
    "stages are a mapping": lambda f: changed(f, "stages", {"train": 5}),
    "stage has no name": lambda f: changed(f, "stages", [{"seconds": 5}]),
    "stage's seconds are text": lambda f: changed(f, "stages", [{"name": "train", "seconds": "5"}]),
    "environment is a list": lambda f: changed(f, "environment", []),
    "gpus are text": lambda f: changed(f, "environment.gpus", "A100"),
    "gpus are numbers": lambda f: changed(f, "environment.gpus", [100]),
    "error is a list": lambda f: changed(f, "error", ["no space"]),
}  # fmt: skip


def not_text(folder: Path, name: str, content: bytes) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "record.json").write_bytes(content)


@pytest.fixture(scope="module")
def odd_runs(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good runs among all odd ones, and things called record.json that are no files."""
    runs = tmp_path_factory.mktemp("odd")
    for seed in (0, 1):
        put(runs / f"good {seed}", changed(facts, "config.seed", seed))
        made_record(runs / f"good {seed}", "experiments=quickstart", seed=seed, values={"procedural": 0.5})
    for name, make_odd in ODD.items():
        put(runs / name, make_odd(facts))
    not_text(runs, "binary", bytes(range(256)) * 40)
    not_text(runs, "utf-16", json.dumps(facts).encode("utf-16")[:-3])
    not_text(runs, "latin-1", '{"status": "gekürzt"}'.encode("latin-1"))
    not_text(runs, "zeros", b"\0" * 4096)
    with put(runs / "huge", "").joinpath("record.json").open("wb") as file:
        file.truncate(2**40)
    (runs / "folder" / "record.json").mkdir(parents=True)
    for name, target in (("loop", "record.json"), ("gone", "nothing"), ("endless", "/dev/zero")):
        (runs / name).mkdir()
        (runs / name / "record.json").symlink_to(target)
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / "record.json")
    return runs


NO_FILES = ("binary", "utf-16", "latin-1", "zeros", "huge", "folder", "endless", "pipe")  # a link to nothing is nothing


def test_odd_records_are_named_in_a_line_and_the_rest_is_made(
    odd_runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(ODD) + len(NO_FILES) >= 74
    with caplog.at_level(logging.WARNING, "dsel"):
        report = reported(odd_runs, tmp_path / "out")
    (table,) = report.tables
    placed = {Path(run.where).parent.name for run in table.placed}
    assert placed == {"good 0", "good 1"}
    said = [record.getMessage() for record in caplog.records]
    for name in (*ODD, *NO_FILES):
        (line,) = [text for text in said if f"/{name}/record.json" in text]
        assert line.startswith("left out ")
        assert "\n" not in line and len(line) < 500


def test_a_plan_looks_at_no_odd_record(odd_runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dsel"):
        records = finished(odd_runs)
    assert all(record["config"].get("seed", 0) in (0, 1) for record in records)
    assert (
        sum("not looked at" in record.getMessage() for record in caplog.records) >= len(ODD) - 1
    )  # seeds are no matter


def test_logs_that_are_none_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "r" / "wandb" / "offline-run-1-a"
    place.mkdir(parents=True)
    (place / "run-a.wandb").mkdir()
    (place / "run-b.wandb").write_bytes(os.urandom(50_000))
    os.mkfifo(place / "run-c.wandb")
    found = wandb_offline("quickstart", tmp_path)
    assert found.runs == []
    assert "run-a.wandb: not a file" in caplog.text and "run-c.wandb: not a file" in caplog.text


# --- text is text -------------------------------------------------------------------------------------------

NAMES = (
    "$x_{$", "$\\frac{1}{$", "_hidden", "<script>alert(1)</script>", "--><b>", "a\x00b", "\x1b]0;title\x07",
    "\ud800", "x" * 10_000, "", "line\nbreak", "`code`", "[red]rich[/]", "[/]", "\\input{/etc/passwd}", "%s %d {0}",
    "{{ 7*7 }}", "${oc.env:HOME}", "=cmd|'/c calc'!A1", "中文", "🙂", "^^M", "\u2028",
)  # fmt: skip


def test_a_source_of_any_name_is_text(
    facts: Facts, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for start in range(0, len(NAMES), 8):  # as many as a figure has
        sources = dict.fromkeys(NAMES[start : start + 8], 5)
        runs = tmp_path / f"runs {start}"
        put(runs / "a", changed(facts, "rounds", [{"round": 1, "examples": 50, "sources": sources}]))
        report = reported(runs, tmp_path / "out")
        assert report.tables[0].placed
        assert (tmp_path / "out" / "figures" / "sources.png").stat().st_size > 0
        for file in (tmp_path / "out").glob("report.*"):
            text = file.read_text(encoding="utf-8")
            assert "<script>alert" not in text and "\x1b" not in text and "\x00" not in text
    assert "\x1b" not in capsys.readouterr().out


def test_a_value_of_any_name_is_text(facts: Facts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(NAMES):
        record = changed(facts, "config.data.name", name)
        put(tmp_path / "runs" / str(number), changed(record, "pool.name", name))
    reported(tmp_path / "runs", tmp_path / "out")
    for file in (tmp_path / "out").glob("report.*"):
        text = file.read_text(encoding="utf-8")
        assert "<script>alert" not in text and "\x1b" not in text and "\x00" not in text
    assert "\x1b" not in capsys.readouterr().out


# --- the tables beside a record ------------------------------------------------------------------------------

good_map = pa.table({"x": [0.0, 1, 2], "y": [0.0, 1, 2], "cluster": [0, 1, None], "chosen": [True, False, True]})
TABLES: dict[str, Any] = {
    "empty file": b"",
    "text": b"not a table",
    "head only": b"PAR1",
    "no rows": good_map.slice(0, 0),
    "no column x": good_map.drop_columns("x"),
    "x is text": good_map.set_column(0, "x", pa.array(["a", "b", "c"])),
    "x is null": good_map.set_column(0, "x", pa.array([None, 1.0, 2.0])),
    "x is not finite": good_map.set_column(0, "x", pa.array([float("inf"), 1.0, float("nan")])),
    "cluster is text": good_map.set_column(2, "cluster", pa.array(["a", "b", "c"])),
    "chosen is a list": good_map.set_column(3, "chosen", pa.array([[True], [], [False]])),
    "chosen is null": good_map.set_column(3, "chosen", pa.array([None, True, False])),
    "x twice": pa.Table.from_arrays([good_map["x"], *good_map.columns], ["x", *good_map.column_names]),
}


@pytest.mark.parametrize("name", TABLES)
def test_an_odd_table_costs_its_figure_alone(
    facts: Facts, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    from dsel.record.tables import MAP, WEIGHTS
    from dsel.report.figures import _rows

    folder = put(tmp_path / "runs" / "a", facts)
    add_map(folder, n=50)
    assert len(_rows(folder / "map.parquet", MAP) or []) == 50
    if isinstance(TABLES[name], bytes):
        (folder / "map.parquet").write_bytes(TABLES[name])
    else:
        pq.write_table(TABLES[name], folder / "map.parquet")
    with caplog.at_level(logging.WARNING, "dsel"):
        assert _rows(folder / "map.parquet", MAP) is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("left out of the figures: ") and "map.parquet" in said and "\n" not in said
    add_rounds(folder)
    assert _rows(folder / "rounds" / "weights.parquet", WEIGHTS) is not None
    assert len(local("quickstart", tmp_path / "runs").runs) == 1
