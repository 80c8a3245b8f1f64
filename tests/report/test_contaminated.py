"""Runs that have chosen what they are evaluated on are marked in a report."""

from __future__ import annotations

from typing import Any

from dsel.record.facts import checked
from dsel.record.reader import RunFolder
from dsel.report.contaminated import MARK, contaminated


def run(**origins: int) -> RunFolder:
    found: dict[str, Any] = {"of": 1200, "examples": sum(origins.values()), "origins": origins}
    return RunFolder(checked({"contamination": found}), "somewhere")


def test_rows_with_evaluated_texts_are_named_with_the_most() -> None:
    rows = {"random": [run(), run(targets=4)], "nearest": [run(evaluator=3), run(evaluator=5, file=1, targets=9)]}
    (note,) = contaminated(rows)
    assert note.startswith(MARK) and "nearest (up to 6 of 1,200)" in note and "random" not in note


def test_targets_alone_and_records_of_before_are_not_marked() -> None:
    before = RunFolder(checked({"contamination": {"against": "targets", "examples": 3, "worst": []}}), "somewhere")
    assert not list(contaminated({"less": [run(targets=3), before, RunFolder(checked({}), "somewhere")]}))
