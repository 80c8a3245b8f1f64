"""One program: its commands, its help, and how much it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dsel
from dsel.cli import main
from dsel.config_groups import GROUPS, options
from dsel.errors import ConfigError
from dsel.usage import COMMANDS, help_on, run_screen, screen
from tests.conftest import ROOT, offline


def cli(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**offline(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dsel", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_help_is_one_screen_with_every_command_and_what_every_group_is_for() -> None:
    before = os.times()
    done = cli("--help")
    after = os.times()
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120
    for name in COMMANDS:
        assert re.search(rf"^  dsel {name} .*  \w", done.stdout, flags=re.M), name
    for group in GROUPS:
        assert re.search(rf"^  {group}: +\w", done.stdout, flags=re.M), group
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 1
    assert cli().stdout == done.stdout


def test_the_version_is_ours() -> None:
    for arguments in (["--version"], ["run", "--version"], ["-q", "run", "--version"]):
        assert cli(*arguments).stdout == f"dsel {dsel.__version__}\n"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("run", "plan", "report", "compare")])
def test_every_command_says_what_it_takes(name: str) -> None:
    done = cli(name, "--help")
    assert done.returncode == 0 and f"dsel {name}" in done.stdout


def test_what_is_no_command_is_an_override_of_a_run() -> None:
    for command in ([], ["run"]):
        done = cli(*command, "--cfg", "job", "--package", "selector", "selector=kcenter")
        assert "dsel.selector.kcenter.KCenter" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("selct", "did you mean select?"),
        ("README.md", "dsel select README.md --budget 1000"),
        ("bugdet=3", "did you mean budget?"),
    ],
)
def test_a_word_that_is_no_command_gets_one_line(given: str, said: str) -> None:
    done = cli(given)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_help_shows_every_option_of_a_choice_with_its_comment() -> None:
    text = "\n".join(help_on("selector.kmq"))
    assert "selector.draw=softmax   (one of softmax, proportional, uniform)" in text
    assert "inside a cluster: softmax of the quality" in text
    assert str(ROOT / "conf" / "selector" / "kmq.yaml") in text
    for other in ("kmq", "selector=kmq"):
        assert "\n".join(help_on(other)) == text


@pytest.mark.parametrize("group", [*GROUPS, "selector/feedback", "experiments", "sweeps"])
def test_help_knows_every_choice_of_every_group(group: str) -> None:
    listed = list(help_on(group))
    for choice in options(group):
        assert any(line.startswith(f"  {choice} ") for line in listed)
        assert len(list(help_on(f"{group}.{choice}"))) > 2


def test_help_says_what_it_does_not_know() -> None:
    for asked, said in (("kmqq", "kmq"), ("selector.kmqq", "kmq"), ("none", r"which one\? .*trainer.none")):
        with pytest.raises(ConfigError, match=said):
            list(help_on(asked))


def test_screens_have_no_secrets_of_layout() -> None:
    assert all(line == line.rstrip() for line in (*screen(), *run_screen()))


def test_q_and_v_say_less_and_more(tmp_path: Path, alpaca: Path) -> None:
    said = []
    for flags in (["-q"], [], ["-v"]):
        done = cli("select", str(alpaca), "--budget", "5", "--selector", "random", *flags, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "written: " in done.stdout
        said.append(len(done.stderr.splitlines()))
    assert said[0] == 0 and said[0] <= said[1] <= said[2]


def test_a_run_heeds_them_too(tmp_path: Path) -> None:
    alone = ["experiments=quickstart", "data.size=90", "trainer=none", "evaluator=none", "tracker=none", "budget=5"]
    for flags, some in (["-q"], False), ([], True):
        done = cli("run", *alone, *flags, f"runs={tmp_path}", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert bool(done.stderr) is some, done.stderr
        assert "record.json" in done.stdout


def test_the_entry_point_of_the_wheel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["dsel", "help", "budget"])
    main()
    assert capsys.readouterr().out.startswith("budget=")


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    file = tmp_path / "alpaca.jsonl"
    file.write_text("".join(f'{{"instruction": "Say {i}", "output": "{i} it is"}}\n' for i in range(20)))
    return file
