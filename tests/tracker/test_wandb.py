"""Weights & Biases, offline and real: what is in the log is what the run was, and no key is."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsel.errors import ConfigError
from dsel.tracker.wandb import Wandb, logged_in, refused
from tests.conftest import checked


def records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: 32 KiB blocks of (checksum, length, kind) and data, split where a block ends."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        part = data[at + 7 : at + 7 + length]
        if kind == 0 or len(part) < length:  # it is still written to
            break
        whole += part
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def history(folder: Path) -> tuple[dict, list[dict], dict, bytes]:
    """(config, logged rows, summary, all bytes) of the offline run in `folder`."""
    from wandb.proto import wandb_internal_pb2 as pb

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    give_up, found = time.monotonic() + 60, []
    while not found or not found[-1].HasField("exit"):  # the service may write the end after the run has finished
        assert time.monotonic() < give_up, f"{file} has no end"
        found = [pb.Record.FromString(data) for data in records(file.read_bytes())]
    config, rows, summary = {}, [], {}
    for record in found:
        if record.HasField("run"):
            config |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        if record.HasField("history"):
            rows.append({(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item})
        if record.HasField("summary"):
            for item in record.summary.update:
                summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return config, rows, summary, file.read_bytes()


@pytest.fixture
def facts() -> dict:
    return {
        "choices": {"data": "made", "selector": "random", "model": "tiny"},
        "config": {"budget": 0.5, "seed": 3, "selector": {"_target_": "x"}},
        "environment": {"python": "3"},
        "budget": 20,
        "pool": {"examples": 40, "name": "made"},
        "metrics": {"task": {"value": 0.25, "stderr": 0.01}},
        "rounds": [{"round": 1, "sources": {"a": 15, "b": 5}}],
        "stages": [
            {"name": "embed", "seconds": 2.0, "cached": False, "items": 40, "per_second": 20.0},
            {"name": "train", "seconds": 1.5, "cached": False},
            {"name": "train", "seconds": 2.5, "cached": False},
        ],
        "cost": {
            "choosing": {"seconds": 2.0, "flops": 6e9, "parts": {"embed": {"seconds": 2.0, "flops": 6e9}}},
            "training": {"seconds": 4.0, "flops": None},
        },
    }


@pytest.mark.parametrize("change", [{"sweep": "abc"}, {"metrics": {}}])
def test_a_run_of_a_sweep_or_a_subset_alone_is_not_told_to_be_uploaded(
    tmp_path: Path, facts: dict, change: dict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    caplog.set_level("INFO")
    tracker = Wandb(project="p")
    tracker.start(tmp_path, facts)
    assert tracker.finish(tmp_path, facts | change)["mode"] == "offline"
    assert "wandb sync" not in caplog.text


def test_an_offline_run_holds_config_curves_metrics_and_selection(
    tmp_path: Path, facts: dict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-value")
    caplog.set_level("INFO")
    for name in ("selection.parquet", "selected.jsonl"):
        (tmp_path / name).write_text("content of " + name)
    tracker = Wandb(project="p")
    tracker.check()
    tracker.start(tmp_path, facts)
    tracker.log({"loss": 2.0}, 1)
    tracker.log({"loss": 1.0}, 2)
    where = tracker.finish(tmp_path, facts)

    assert where["mode"] == "offline"
    assert "wandb sync" in caplog.text
    config, rows, summary, data = history(tmp_path)
    assert config["budget"] == 0.5
    assert config["choices"]["selector"] == "random"
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [2.0, 1.0]
    assert any(key.startswith("selection/composition") for row in rows for key in row)
    assert summary["eval/task"] == 0.25
    assert summary["eval/task_stderr"] == 0.01
    assert summary["time/train"] == 4.0
    assert summary["throughput/embed"] == 20.0
    assert {key: value for key, value in summary.items() if key.startswith("cost/")} == {
        "cost/choosing/flops": 6e9, "cost/choosing/seconds": 2.0, "cost/choosing/embed/flops": 6e9,
        "cost/choosing/embed/seconds": 2.0, "cost/training/seconds": 4.0, "cost/share/seconds": 0.5,
    }  # fmt: skip
    assert b"selection.parquet" in data
    assert b"selected.jsonl" in data
    assert b"sk-very-secret-value" not in data


TALKATIVE = """
import sys, time
from pathlib import Path
from dsel.tracker.wandb import Wandb
from wandb.analytics.opentelemetry import opentelemetry_proxy

assert opentelemetry_proxy._DEFAULT_EXPORT_INTERVAL_MILLIS == 60_000
opentelemetry_proxy._DEFAULT_EXPORT_INTERVAL_MILLIS = 200
tracker = Wandb(mode=sys.argv[2])
tracker.start(Path(sys.argv[1]), {"choices": {}, "config": {}, "environment": {}})
tracker.log({"loss": 2.0}, 1)
time.sleep(3)
tracker.fail()
"""


def test_an_offline_run_talks_to_nobody(tmp_path: Path) -> None:
    """Not to its service either, which the library tells about itself unless told not to."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        environment |= {"WANDB_BASE_URL": f"http://127.0.0.1:{service.getsockname()[1]}"}
        command = [sys.executable, "-c", TALKATIVE, str(tmp_path), "offline"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        service.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody waits to be let in
            service.accept()


IMPATIENT = """
import sys
from pathlib import Path
from dsel.tracker import wandb as tracker

tracker.PATIENCE = 1e-6
tracker.Wandb(mode="offline").start(Path(sys.argv[1]), {"choices": {}, "config": {}, "environment": {}})
"""


def test_the_service_has_as_long_to_start_as_patience_says(tmp_path: Path) -> None:
    """Not the library's own half minute, which a busy machine may need: seen from a patience that nothing meets."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    command = [sys.executable, "-c", IMPATIENT, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "W&B cannot be reached (Failed to read port info after 1e-06 seconds" in done.stderr


HOMELESS = """
import sys
from pathlib import Path
from dsel.tracker.wandb import Wandb

facts = {"choices": {}, "config": {}, "environment": {}, "budget": 1, "pool": {"examples": 1}, "metrics": {}}
for run in sys.argv[1:]:
    folder = Path(run)
    folder.mkdir()
    (folder / "selected.jsonl").write_text(run)
    tracker = Wandb(mode="offline")
    tracker.start(folder, facts)
    tracker.finish(folder, {**facts, "rounds": [], "stages": []})
"""


def test_nothing_is_written_outside_the_run_folder(tmp_path: Path) -> None:
    home, runs = tmp_path / "home", [tmp_path / "a", tmp_path / "b"]
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "XDG"))} | {"HOME": str(home)}
    command = [sys.executable, "-c", HOMELESS, *map(str, runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not [p for p in home.rglob("*") if p.is_file()]
    for run in runs:
        staged = [p.read_text() for p in (run / "wandb" / "artifacts" / "staging").iterdir() if p.is_file()]
        assert str(run) in staged


@pytest.mark.parametrize("mode", [None, "online"])
def test_a_refused_key_is_one_line(
    tmp_path: Path, facts: dict, monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(ConfigError) as caught:
        Wandb(mode="online").start(tmp_path, facts)
    assert str(caught.value).startswith("W&B refuses WANDB_API_KEY (")
    assert "unset it, or set tracker.mode=offline" in str(caught.value)
    assert ("unset WANDB_MODE" in str(caught.value)) == (mode is not None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("Timed out while retrying\nConsider increasing the init_timeout", "W&B cannot be reached (Timed out"),
        ("user is not logged in (401 Unauthorized)", "W&B has no key that it takes ("),
    ],
)
def test_what_else_keeps_a_run_from_beginning(error: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.errors import CommError

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    found = str(refused(CommError(error)))
    assert found.startswith(message) and "tracker.mode=offline" in found and "\n" not in found


def test_a_key_or_a_login_means_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(netrc))
    assert not logged_in()
    assert Wandb()._mode() == "offline"
    netrc.write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert logged_in()
    assert Wandb()._mode() == "online"
    assert Wandb(mode="offline")._mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Wandb()._mode() == "disabled"


def test_a_mode_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.mode=later"):
        checked(Wandb(mode="later"), "tracker")  # type: ignore[arg-type]
