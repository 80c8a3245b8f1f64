"""The three sources: run folders, offline W&B logs that the real tracker wrote, and the service's real client."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsel.errors import ConfigError
from dsel.record.reader import RunFolder
from dsel.report import runs
from dsel.report.runs import local, log_entries, read_log, wandb_offline
from dsel.tracker.wandb import Wandb
from tests.conftest import ROOT, offline
from tests.report.made import made_record, made_run
from tests.report.service import Service, node, serving

KEY = "a-key-that-nobody-may-see-" + "0" * 20


def logged(folder: Path, *overrides: str, seed: int, value: float | None, fails: bool = False) -> None:
    """A run as dsel.experiment makes it, mirrored by the real tracker, offline."""
    record = made_record(
        folder, "experiments=quickstart", *overrides, seed=seed, values={"procedural": value}, status="running"
    )
    tracker = Wandb(mode="offline")
    tracker.start(folder, record.facts)
    if fails:
        tracker.fail()
        record.finish("failed", error="out of memory")
        return
    record.tracked(tracker.finish(folder, record.facts))
    record.finish("finished")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two methods with two seeds, and a run that failed."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        patch.setenv("NETRC", os.devnull)
        for seed, (low, high) in enumerate([(0.40, 0.44), (0.42, 0.47)]):
            logged(place / f"random_{seed}", "selector=random", seed=seed, value=low)
            logged(place / f"kmeans_{seed}", seed=seed, value=high)
        logged(place / "failed", seed=2, value=None, fails=True)
    yield place


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """The runs of `folder`, as if they had been uploaded, among runs of other projects' making."""
    nodes = [node("other", {"lr": 0.1}, {"loss": 1.0}), node("odd", {"choices": {"experiments": "quickstart"}}, {})]
    for path in sorted(folder.rglob("run-*.wandb")):
        config, summary, exit_code = read_log(path)
        state = {0: "finished", None: "running"}.get(exit_code, "failed")
        nodes.append(node(path.parents[2].name, config, summary, state))
    with serving(nodes, KEY) as running:
        yield running


def report(out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dsel.report", "experiments=quickstart", f"out={out}", *arguments]
    environment = {"TMPDIR": str(out.parent), **environment}
    return subprocess.run(
        command, cwd=ROOT, env=offline(out.parent, **environment), capture_output=True, text=True, timeout=120
    )


def cells(out: Path) -> list[dict[str, str]]:
    """All that the CSV says but where the runs are."""
    with (out / "report.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert row.pop("runs").count(" ") == max(int(row["n"]), 1) - 1
        row["command"] = row["command"].replace(f"runs={out.parent / 'runs'} ", "")
    return rows


def test_the_same_table_cell_for_cell_from_all_three_sources(folder: Path, service: Service, tmp_path: Path) -> None:
    sources = {
        "local": [f"runs={folder}"],
        "wandb_offline": [f"runs={folder}"],
        "wandb": ["entity=team", f"runs={folder}"],
    }
    for source, arguments in sources.items():
        env = {"WANDB_BASE_URL": f"http://127.0.0.1:{service.server_port}", "WANDB_API_KEY": KEY}
        done = report(tmp_path / source, f"source={source}", *arguments, **(env if source == "wandb" else {}))
        assert done.returncode == 0, done.stderr
        for text in (done.stdout, done.stderr, *(p.read_text() for p in (tmp_path / source).glob("report.*"))):
            assert KEY not in text
    tables = {source: cells(tmp_path / source) for source in sources}
    assert tables["local"] == tables["wandb_offline"] == tables["wandb"]
    by_row = {row["row"]: row for row in tables["local"]}
    assert float(by_row["random"]["mean"]) == pytest.approx(41)
    assert float(by_row["kmeans_uniform"]["difference"]) == pytest.approx(4.5)
    pages = {source: (tmp_path / source / "report.html").read_text() for source in sources}
    assert (
        f'href="{Path(os.path.relpath(folder, tmp_path / "local")).as_posix()}/random_0/record.json"' in pages["local"]
    )
    assert f'href="http://127.0.0.1:{service.server_port}/team/dsel/runs/random_0"' in pages["wandb"]
    assert "Left out: 1 failed." in pages["local"]
    assert "Left out: 1 failed, 1 without a record." in pages["wandb"]


def test_the_service_is_asked_for_the_project_and_filters_given(folder: Path, service: Service, tmp_path: Path) -> None:
    env = {"WANDB_BASE_URL": f"http://127.0.0.1:{service.server_port}", "WANDB_API_KEY": KEY}
    service.asked.clear()
    done = report(tmp_path / "a", "source=wandb", "filters={displayName: random_1}", **env)
    assert done.returncode == 0, done.stderr
    assert [(a["entity"], a["project"], a["filters"]) for a in service.asked] == [
        ("team", "dsel", '{"displayName": "random_1"}')  # the key's own entity, and the tracker's project
    ]
    assert [row["seeds"] for row in cells(tmp_path / "a")] == ["1", "", ""]
    done = report(tmp_path / "b", "source=wandb", "entity=team", "project=nowhere", **env)
    assert done.returncode == 2
    assert done.stderr.startswith("dsel: source=wandb: ")
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1


def test_many_runs_come_in_pages(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wandb.sdk import wandb_setup

    facts = {"choices": {"experiments": "many"}, "config": {"seed": 0}, "metrics": {}, "started": "2026"}
    nodes = [node(f"r{i}", {"choices": facts["choices"]}, {"record": json.dumps(facts)}) for i in range(120)]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serving(nodes, KEY) as many:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{many.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        wandb_setup.teardown()
        found = runs.wandb("many", entity="team", project="dsel")
        assert len(many.asked) == 3
    assert len(found.runs) == 120
    wandb_setup.teardown()


def test_without_a_key_the_service_is_not_asked(tmp_path: Path) -> None:
    done = report(tmp_path / "a", "source=wandb")
    assert done.returncode == 2
    assert done.stderr.startswith("dsel: source=wandb needs a key: set WANDB_API_KEY")
    assert done.stderr.count("\n") == 1


def test_a_wrong_key_is_said_and_not_shown(service: Service, tmp_path: Path) -> None:
    env = {"WANDB_BASE_URL": f"http://127.0.0.1:{service.server_port}", "WANDB_API_KEY": "wrong" + "1" * 40}
    done = report(tmp_path / "a", "source=wandb", **env)
    assert done.returncode == 2
    assert done.stderr.startswith("dsel: source=wandb: ")
    assert env["WANDB_API_KEY"] not in done.stderr + done.stdout


def test_offline_logs_have_the_whole_record(folder: Path) -> None:
    one, other = local("quickstart", folder), wandb_offline("quickstart", folder)
    assert [run.where for run in one.runs] == [run.where for run in other.runs]
    assert one.left_out == other.left_out == {"failed": 1}
    later = {"tracker", "seconds", "stages", "digest"}  # known once the tracker is done
    for a, b in zip(one.runs, other.runs, strict=True):
        assert {k: v for k, v in a.facts.items() if k not in later} == {
            k: v for k, v in b.facts.items() if k not in later
        }


def test_runs_of_another_experiment_are_not_this_ones(folder: Path) -> None:
    assert local("laptop", folder).runs == []
    assert wandb_offline("laptop", folder).runs == []


def test_a_log_without_its_run_folder_is_linked_itself(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "random_0" / "wandb", tmp_path / "kept" / "wandb", symlinks=True)
    (found,) = wandb_offline("quickstart", tmp_path).runs
    assert found.where.endswith(".wandb")
    assert Path(found.where).is_file()


def test_of_a_damaged_log_what_is_whole_counts(folder: Path, tmp_path: Path) -> None:
    (path,) = (folder / "random_0").rglob("run-*.wandb")
    data = path.read_bytes()
    whole = list(log_entries(data))
    for cut in range(0, len(data), max(1, len(data) // 50)):
        found = list(log_entries(data[:cut]))
        assert found == whole[: len(found)]
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0xFF
    found = list(log_entries(bytes(damaged)))
    assert found == whole[: len(found)]
    assert len(found) < len(whole)
    copy = tmp_path / "r" / "wandb" / "offline-run-1-a" / "run-a.wandb"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(data[: len(data) // 2])
    cut_off = wandb_offline("quickstart", tmp_path)
    assert (cut_off.runs, cut_off.left_out) == ([], {"unfinished": 1})


def test_unfinished_and_unreadable_runs_are_counted_or_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made_run(tmp_path / "sweep" / "a", "experiments=quickstart", values={"procedural": 0.5})
    for name, status in (("b", "failed"), ("c", "interrupted"), ("d", "failed"), ("e", "running")):
        made_record(tmp_path / name, "experiments=quickstart", values={}, status=status)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "record.json").write_text('{"status": ')
    found = local("quickstart", tmp_path)
    assert [run.folder for run in found.runs] == [tmp_path / "sweep" / "a"]
    assert found.left_out == {"failed": 2, "interrupted": 1, "running": 1}
    assert "left out " in caplog.text and "f/record.json" in caplog.text


def test_runs_are_in_the_order_they_started(tmp_path: Path) -> None:
    for name, started in (("a", "2026-03"), ("b", "2026-01"), ("c", "2026-02")):
        made_run(tmp_path / name, "experiments=quickstart", values={}, started=started)
    assert [Path(run.where).parent.name for run in local("quickstart", tmp_path).runs] == ["b", "c", "a"]


def test_values_are_metrics_or_other_numbers_of_the_record(tmp_path: Path) -> None:
    run = made_run(tmp_path, "experiments=quickstart", values={"procedural": 0.5}, silhouette=0.2)
    assert run.value("procedural") == 0.5
    assert run.value("clustering.silhouette") == 0.2
    assert run.value("pool.examples") == 6000
    assert run.value("clustering.nothing") is None
    assert run.value("pool.name") is None
    assert run.value("absent") is None
    assert run.facts == RunFolder.read(tmp_path).facts


def test_wandb_without_the_package_says_which_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str, *rest: Any) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", absent)
    with pytest.raises(ConfigError, match="wandb"):
        wandb_offline("quickstart", tmp_path)
