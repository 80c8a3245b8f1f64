"""What is said under the tables of runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dsel.answer import OWN, answers, beyond, closer, onward
from dsel.record.reader import RunFolder


def run(selector: str, value: float | None, seed: int = 0, **more: Any) -> RunFolder:
    metric = {"value": value, "stderr": more.pop("error", 0.02), "detail": False} | more.pop("metric", {})
    facts = {
        "choices": {"selector": selector, "experiments": "quickstart", "data": "procedural"},
        "config": {"seed": seed, "runs": "runs"},
        "metrics": {} if value is None else {"accuracy": metric},
        "overrides": ["experiments=quickstart", f"selector={selector}", f"seed={seed}", *more.pop("asked", [])],
        "rounds": [],
    }
    return RunFolder({**facts, **more}, where="")


def test_the_difference_of_two_runs_has_the_interval_of_their_test_set() -> None:
    (line,) = answers([run("random", 0.48), run("kmq", 0.50)])
    reach = 1.959964 * math.hypot(0.02, 0.02)
    interval = f"[{0.02 - reach:+.4f}, {0.02 + reach:+.4f}]"
    assert line.startswith(f"kmq − random: +0.0200 {interval}: not told apart (accuracy, 95% interval, one seed")


@pytest.mark.parametrize(
    ("value", "higher", "verdict"),
    [(0.6, True, "better"), (0.4, True, "worse"), (0.6, False, "worse"), (0.4, False, "better")],
)
def test_what_the_interval_says(value: float, higher: bool, verdict: str) -> None:
    metric = {"higher_is_better": higher}
    (line,) = answers([run("random", 0.5, metric=metric), run("kmq", value, metric=metric)])
    assert f"]: {verdict} (" in line


def test_several_seeds_are_paired() -> None:
    values = {"random": [0.50, 0.52, 0.48], "kmq": [0.53, 0.56, 0.52], "quality": [0.50, 0.53, 0.47]}
    runs = [run(name, value, seed) for name, found in values.items() for seed, value in enumerate(found)]
    first, second = answers(runs)
    assert first.startswith("kmq − random: +0.0367 [+0.0223, +0.0510]: better (accuracy, 95% interval, 3 seeds)")
    assert second.startswith("quality − random: +0.0000 [") and "not told apart" in second


def test_nothing_is_said_of_runs_that_do_not_answer_it() -> None:
    assert answers([]) == []
    assert answers([run("kmq", 0.5), run("quality", 0.5)]) == []  # without random choice
    assert answers([run("random", 0.5, asked=["budget=0.1"]), run("kmq", 0.5, asked=["budget=0.2"])]) == []
    assert answers([run("random", None), run("kmq", None)]) == []
    assert answers([run("random", 0.5, seed=1), run("kmq", 0.5, seed=2)]) == ["kmq: no seed in common with random"]
    (line,) = answers([run("random", 0.5, error=None), run("kmq", 0.5)])
    assert line.startswith("kmq − random: +0.0000 (accuracy")


def test_where_to_go_from_a_run(tmp_path: Path) -> None:
    found = RunFolder(run("kmq", 0.5).facts, where="", folder=tmp_path)
    assert onward(found) == [
        f"chosen: {tmp_path}/selected.jsonl",
        f"look: python -m dsel show {tmp_path}",
        "report: python -m dsel.report experiments=quickstart",
        f"your own data: {OWN}",
    ]
    elsewhere = {**found.facts, "config": {"seed": 0, "runs": "my runs"}}
    assert onward(RunFolder(elsewhere, where=""))[0].endswith("experiments=quickstart 'runs=my runs'")
    runs = [
        run("random", 0.5, asked=["budget=9", "clusterer.k=2"]),
        run("kmq", 0.5, asked=["budget=9", "tracker=none"]),
    ]
    assert onward(*runs)[0].endswith("dsel.report experiments=quickstart budget=9")
    chosen_alone = {**found.facts, "metrics": {}, "choices": {"selector": "kmq", "data": "local"}}
    assert [line.split(":")[0] for line in onward(RunFolder(chosen_alone, where="", folder=tmp_path))] == [
        "chosen",
        "look",
    ]


def test_where_to_go_from_several_runs() -> None:
    """To the last alone, beside the last that chose otherwise; to no folder of those that W&B alone has."""
    runs = [RunFolder(run(name, 0.5).facts, "", Path("runs", f"the {name}")) for name in ("random", "kmq", "kmq")]
    look = "look: python -m dsel show 'runs/the kmq'"
    assert closer(runs) == [look, "compare: python -m dsel.compare 'runs/the random' 'runs/the kmq'"]
    assert closer(runs[1:]) == [look] and closer([run("kmq", 0.5)]) == []
    assert beyond(*runs[:2]) == [look, "report: python -m dsel.report experiments=quickstart"]
    assert beyond(None, runs[1])[0] == look and beyond(None, None) == []
