"""python -m dsel.report from the outside: a whole report, and what is said when there cannot be one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dsel.errors import ConfigError
from dsel.report.__main__ import OWN, RUNS, make, parse
from tests.conftest import ROOT, offline
from tests.report.made import made_grid, made_record, made_run


def report(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dsel.report", *arguments]
    return subprocess.run(command, cwd=ROOT, env=offline(folder), capture_output=True, text=True, timeout=120)


def test_a_whole_report(tmp_path: Path) -> None:
    made_grid(tmp_path / "runs", "quickstart", {"selector=random": [0.4], "": [0.45]}, sources={"a": 3, "b": 5})
    made_record(tmp_path / "runs" / "f", "experiments=quickstart", values={}, status="failed")
    done = report(tmp_path, "experiments=quickstart", f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "40.0" in done.stdout and "45.0" in done.stdout
    assert "Made of 2 finished runs" in done.stdout
    assert "Left out: 1 failed." in done.stdout
    assert f"report: {tmp_path / 'out' / 'report.html'}, and report.md, report.tex, report.csv beside it" in done.stdout
    assert done.stderr.splitlines() == [
        "no figure of the map: no run folder has map.parquet (runs that embed the pool write it)"
    ]
    assert {path.name for path in (tmp_path / "out").rglob("*.*")} == {
        "report.html", "report.md", "report.tex", "report.csv", "sources.pdf", "sources.png",
    }  # fmt: skip
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "45.0" in text and "python -m dsel.report experiments=quickstart" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["laptop"], "'laptop': give key=value"),
        (["source=local"], "which experiment? Give experiments=NAME"),
        (["experiments=labtop"], "experiments=labtop: no such option (did you mean laptop?)"),
        (["experiments=laptop", "source=wand"], "source=wand (did you mean wandb?)"),
        (["experiments=laptop", "runs=nowhere"], "runs=nowhere: no such file or folder"),
        (["experiments=laptop", "entity=me"], "entity= is for source=wandb"),
        (["experiments=laptop", "source=wandb", "filters=[1]"], "filters=[1]: not a mapping"),
        (["experiments=laptop", "source=wandb", "filters={a: [}"], "filters={a: [}: not a mapping"),
        (["experiments=laptop", "budgit=9", "runs=conf"], "unknown key 'budgit' (did you mean budget?)"),
        (["experiments=laptop", "report.tables=[{rows: 1}]", "runs=conf"], "report.tables[0].rows: give"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsel.report.__main__ import main

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("dsel: ")
    assert words in said
    assert said.count("\n") == 1


def test_an_experiment_without_a_report_is_said(tmp_path: Path) -> None:
    asked = replace(parse(["experiments=quickstart", f"runs={tmp_path}"]), looks=("~report",))
    with pytest.raises(ConfigError, match=r"experiments/quickstart\.yaml has no report: section"):
        make(asked)


def test_help_says_what_there_is(tmp_path: Path) -> None:
    done = report(tmp_path, "--help")
    assert done.returncode == 0
    assert all(f"{key}=" in done.stdout for key in OWN)


def test_arguments_are_those_of_the_report_and_overrides() -> None:
    asked = parse(["experiments=laptop", "source=wandb", "filters={state: finished}", "out=x", "model=smollm2_135m"])
    assert (asked.experiment, asked.out, asked.filters) == ("laptop", Path("x"), {"state": "finished"})
    assert (asked.overrides, asked.runs) == (("model=smollm2_135m",), RUNS)
    assert parse(["experiments=laptop", "source=wandb"]).out == Path("reports/laptop")


def test_what_all_runs_share_is_adopted_and_said(tmp_path: Path) -> None:
    """Whoever gave all runs a smaller pool need not say so again; the commands for the missing ones have it."""
    rows = {
        f"selector={name} data.size=400 tracker=none": [0.4, 0.5]
        for name in ("random", "kmeans_uniform", "quality", "longest")
    }
    made_grid(tmp_path, "quickstart", rows)
    made = make(parse(["experiments=quickstart", f"runs={tmp_path}", "report.seeds=[0,1,2]"]))
    (table,) = made.tables
    assert {row: table.cells[row, "accuracy"].n for row in table.rows} == {
        "random": 2,
        "kmeans_uniform": 2,
        "quality": 2,
        "longest": 2,
    }
    assert "All of the runs differ from the experiment's file in: data.size=400." in made.notes
    (command,) = table.commands
    assert command.endswith(f"runs={tmp_path} data.size=400 selector=random,kmeans_uniform,quality,longest seed=2")


def test_what_only_some_runs_have_is_not_adopted_but_said(tmp_path: Path) -> None:
    made_run(tmp_path / "a", "experiments=quickstart", "selector=random", values={"procedural": 0.4})
    made_run(tmp_path / "b", "experiments=quickstart", "selector=random", "data.size=400", values={"procedural": 0.9})
    made = make(parse(["experiments=quickstart", f"runs={tmp_path}"]))
    assert made.tables[0].cells["random", "accuracy"].values == {0: 40.0}
    assert "1 run in no table, with other settings: 1 with selector=random data.size=400." in made.notes
    smaller = make(parse(["experiments=quickstart", f"runs={tmp_path}", "data.size=400"]))
    assert smaller.tables[0].cells["random", "accuracy"].values == {0: 90.0}
    assert "With settings of this command: data.size=400." in smaller.notes


def test_a_run_that_another_supersedes_is_counted(tmp_path: Path) -> None:
    for name, started in (("a", "2026-01"), ("b", "2026-02")):
        made_run(tmp_path / name, "experiments=quickstart", values={"procedural": 0.4}, started=started)
    made = make(parse(["experiments=quickstart", f"runs={tmp_path}"]))
    assert "1 run not shown: a later one has the same configuration and seed." in made.notes
    assert not any("in no table" in note for note in made.notes)


def test_nothing_heavy_loads_before_the_arguments_are_checked(tmp_path: Path) -> None:
    code = (
        "import sys, dsel.report.__main__ as m\n"
        "try: m.main(['experiments=laptop', 'source=no'])\nexcept SystemExit: pass\n"
        "print({'torch', 'matplotlib', 'wandb', 'scipy', 'pyarrow', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
