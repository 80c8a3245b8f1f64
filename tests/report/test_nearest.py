"""A report without a run says which come nearest, and what they have otherwise."""

from __future__ import annotations

from pathlib import Path

from dsel.report.__main__ import make, parse
from tests.report.made import made_run

VALUES = {"procedural": 0.4}


def notes(runs: Path, *more: str) -> list[str]:
    return make(parse(["experiments=quickstart", f"runs={runs}", *more])).notes


def test_what_is_otherwise_is_named_with_what_is_wanted(tmp_path: Path) -> None:
    made_run(tmp_path / "a", "experiments=quickstart", "selector=random", "trainer.epochs=1", values=VALUES)
    said = notes(tmp_path, "trainer.epochs=5")
    where = tmp_path / "a" / "record.json"
    assert said[0] == f"None of 1 finished run (run folders under {tmp_path}) is in a table."
    assert f"{where} is nearest to random: trainer.epochs=1, wanted 5." in said
    assert not any("Made of" in note for note in said)


def test_the_nearest_come_first(tmp_path: Path) -> None:
    for name, *more in (("a", "trainer.epochs=2", "data.size=300"), ("b", "data.size=400"), ("c", "selector=kcenter")):
        made_run(tmp_path / name, "experiments=quickstart", "selector=random", *more, values=VALUES)
    said = [note.partition("/record.json is nearest to ")[2] for note in notes(tmp_path, "data.size=500")][1:]
    assert [text for text in said if text] == [
        "random: data.size=400, wanted 500.",
        "random: data.size=300, wanted 500; trainer.epochs=2, wanted 3.",
        "random: selector=kcenter, wanted random; data.size=6000, wanted 500.",
    ]


def test_runs_of_no_experiment_are_named_too(tmp_path: Path) -> None:
    shared = ["model=tiny", "data=procedural", "selector=random", "evaluator=procedural", "embedder=tfidf_svd"]
    made_run(tmp_path / "a", *shared, values=VALUES)
    said = notes(tmp_path)
    assert said[0] == f"There is no finished run of experiments=quickstart (run folders under {tmp_path})."
    assert said[1] == "Finished runs with no experiments=quickstart, which it takes to count: 1."
    assert "a/record.json is nearest to random: trainer=lora, wanted full; " in said[2]
    assert "trainer.schedule=linear, wanted cosine." in said[2]


def test_an_empty_folder_is_said_to_be_one(tmp_path: Path) -> None:
    assert notes(tmp_path) == [f"There is no finished run of experiments=quickstart (run folders under {tmp_path})."]
