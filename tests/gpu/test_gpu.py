"""The checks of a GPU, on the processor with models of a few thousand weights: so that no mistake waits for a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.gpu import __main__ as command
from tests.gpu import shapes
from tests.gpu.__main__ import GROUPS, checks, main, markdown, ran, started
from tests.gpu.checking import REAL, TOY, Machine, Row, need
from tests.gpu.kernels import counted

NAMES = [name for names in GROUPS.values() for name in names.split()]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine("cpu", TOY, tmp_path_factory.mktemp("shapes"))


def test_a_machine_without_a_gpu_skips_all_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "has_gpu", lambda: False)
    assert main(["--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == NAMES
    assert {row["note"] for row in rows} == {"skipped: torch finds no CUDA GPU"}
    assert "| vllm |" in (tmp_path / "results.md").read_text()


def test_every_check_has_its_name() -> None:
    for group, names in GROUPS.items():
        assert list(checks(group)) == names.split()


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("device", "product"),
        ("reading", "nll"),
        ("reading", "gradients"),
        ("training", "lora"),
        ("training", "qlora"),
        ("kernels", "kcenter"),
        ("answering", "vllm"),
    ],
)
@pytest.mark.skipif("CUDA_VISIBLE_DEVICES" not in os.environ and command.has_gpu(), reason="make gpu-check is for it")
def test_a_check_on_the_processor(machine: Machine, group: str, name: str) -> None:
    rows = list(ran(machine, name, checks(group)[name], time.monotonic() + 100))
    assert rows and all(row.name == name for row in rows)
    assert not [row for row in rows if row.note.startswith("failed")]
    assert all(row.note.startswith("skipped") or (row.measured or 0) > 0 for row in rows)


@pytest.mark.slow
def test_all_checks_on_the_processor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu", "--toy", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert list(dict.fromkeys(row["name"] for row in rows)) == NAMES
    assert {row["name"] for row in rows if row["note"].startswith("skipped")} <= {
        "attention", "qlora", "packed-flex", "packed-flash", "vllm"
    }  # fmt: skip


def test_a_failure_and_a_skip_are_rows(machine: Machine) -> None:
    def fails(machine: Machine) -> Iterator[Row]:
        yield Row("first", 1.5, "s", 0.25)
        raise RuntimeError("no\nmore")

    def skips(machine: Machine) -> Iterator[Row]:
        need(False, "nothing is here")
        yield Row("never")

    found = [*ran(machine, "a", fails, time.monotonic() + 9), *ran(machine, "b", skips, time.monotonic() + 9)]
    assert [row.note for row in found] == ["", "failed: RuntimeError: no more", "skipped: nothing is here"]
    assert [row.note for row in ran(machine, "c", fails, 0.0)] == ["skipped: the time is over (--minutes)"]
    assert "| a | first | 1.5 | s | 25.0% |  |" in markdown(found)


def test_a_process_that_ends_badly_fails_what_it_had_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    o = command.parsed(["--toy"])
    o.left = 1.0
    assert [row.note for row in started(o, "device", ["product"], tmp_path)] == [
        "failed: the process of device ended with 1"
    ]


STUCK = """#!{python}
import json, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
name, rows = sys.argv[3], pathlib.Path(sys.argv[sys.argv.index("--rows") + 1])
rows.write_text(json.dumps({{"begun": name, "at": time.monotonic()}}) + "\\n")
if name == "kmeans":
    helper = subprocess.Popen(["sleep", "100"])
    rows.with_name("helper").write_text(str(helper.pid))
    time.sleep(100)
with rows.open("a") as file:
    file.write(json.dumps({{"what": "a", "name": name}}) + "\\n" + json.dumps({{"done": name, "at": 0}}) + "\\n")
"""


def test_a_check_that_takes_too_long_is_ended_with_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(STUCK.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(command, "GRACE", 0.1)
    o = command.parsed(["--toy", "--seconds", "1"])
    o.left = 50.0
    found = started(o, "kernels", ["kmeans", "faiss"], tmp_path)
    assert [(row.name, row.note) for row in found] == [("kmeans", "failed: it did not end in 1 s"), ("faiss", "")]
    helper = Path("/proc", (tmp_path / "helper").read_text(), "stat")
    assert not helper.exists() or helper.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("shape", [REAL.large, REAL.middle, REAL.small, TOY.large, TOY.middle])
def test_a_shape_has_as_many_parameters_as_it_says(shape: shapes.Shape) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.configuration(shape))
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_products_are_counted_also_in_place(machine: Machine) -> None:
    import torch

    a, b, c = torch.ones(3, 5), torch.ones(5, 7), torch.zeros(3, 7)

    def work() -> None:
        with torch.inference_mode():
            c.addmm_(a, b)
            a @ b

    _, seconds, share = counted(machine, work)
    assert share * seconds * machine.peak.float32 == pytest.approx(2 * 2 * 3 * 5 * 7)


def test_texts_have_the_length_that_was_asked_for(machine: Machine) -> None:
    from dsel.model.chat import encode

    tokenizer = machine.causal(TOY.small).load_tokenizer()
    (talk,) = shapes.conversations(tokenizer, [200])
    assert len(encode(tokenizer, talk)[0]) == pytest.approx(200, abs=8)
