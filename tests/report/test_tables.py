"""Cells and tables, of made-up runs whose figures can be added up by hand."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from dsel.record.reader import RunFolder
from dsel.report.match import Composer
from dsel.report.spec import read
from dsel.report.tables import Table, build
from tests.conftest import jobs_of
from tests.report.conftest import SECTION
from tests.report.made import made_grid, made_record, made_run


def built(runs: list[RunFolder], composer: Composer, **changes: Any) -> Table:
    return build(read({**SECTION, "published": {}, **changes}).tables[0], runs, composer)


def test_a_cell_by_hand(table: Table) -> None:
    cell = table.cells["k-Center", "accuracy"]
    assert cell.values == pytest.approx({0: 44.0, 1: 47.0, 2: 46.0})
    assert cell.mean == pytest.approx(45.6667, abs=1e-4)
    assert cell.stderr == pytest.approx(math.sqrt(7 / 3 / 3))  # squares of -5/3, 4/3, 1/3 sum to 14/3; over 2, over 3
    assert cell.difference is not None
    assert cell.difference.points == pytest.approx(11 / 3)  # 4, 3 and 4
    reach = 4.302653 / 3  # of two degrees of freedom; their standard error is a third
    assert cell.difference.interval == pytest.approx((11 / 3 - reach, 11 / 3 + reach))
    assert (cell.rank, cell.best, cell.missing, cell.command) == (1, True, (), None)
    assert cell.test_stderr == pytest.approx(1)  # of each run: 0.01
    assert table.show_value(cell) == "45.7 ± 0.9"
    assert table.show_difference(cell) == "+3.7 (+8.7 %) [+2.2, +5.1], p = 0.008"


def test_the_baseline_has_no_difference(table: Table) -> None:
    cell = table.cells["random", "accuracy"]
    assert (cell.difference, cell.published_difference) == (None, None)
    assert (cell.rank, cell.best) == (2, False)
    assert table.compared == ["k-Center", "longest", "kmeans_closest"]


def test_a_missing_cell_says_what_fills_it_beside_what_is_published(table: Table) -> None:
    cell = table.cells["longest", "accuracy"]
    assert (cell.n, cell.rank, cell.difference) == (0, None, None)
    assert table.show_value(cell) == "–"
    assert (cell.published, cell.published_difference) == (43.5, 2.5)
    assert cell.command == "python -m dsel.run -m experiments=quickstart selector=longest seed=0,1,2"
    assert table.commands[cell.command] == [("longest", "accuracy")]


def test_the_commands_fill_all_that_is_missing(composer: Composer, made_runs: list[RunFolder], tmp_path: Path) -> None:
    """Of each command, the runs that Hydra makes of it: then nothing is missing any more."""
    rows = {**SECTION["rows"], "Deita, strict": "selector=deita selector.threshold=0.5", "kmq": "selector=kmq"}
    table = built(made_runs, composer, rows=rows)
    assert [command.split("quickstart ")[1] for command in table.commands] == [
        "selector=longest,kmq seed=0,1,2",
        "selector=deita selector.threshold=0.5 seed=0,1,2",
        "selector=kmeans_closest seed=1,2",
    ]
    runs = list(made_runs)
    for command in table.commands:
        for job in jobs_of([part for part in shlex.split(command)[3:] if part != "-m"]):
            seed = next(int(part[5:]) for part in job if part.startswith("seed="))
            runs.append(made_run(tmp_path / str(len(runs)), *job, seed=seed, values={"procedural": 0.5}))
    full = built(runs, composer, rows=rows)
    assert full.commands == {}
    assert full.rows == table.rows
    assert all(cell.n == 3 for cell in full.cells.values())


def test_one_seed_has_no_error_and_no_interval(table: Table) -> None:
    cell = table.cells["kmeans_closest", "accuracy"]
    assert table.show_value(cell) == "30.0"
    assert math.isnan(cell.stderr)
    assert table.show_difference(cell) == "−10.0 (−25.0 %) over 1 common seed"  # over seed 0 alone, where random has 40
    assert cell.missing == (1, 2)
    assert cell.command is not None and cell.command.endswith("selector=kmeans_closest seed=1,2")


def test_rows_the_file_does_not_name_come_after_those_it_does(table: Table) -> None:
    assert table.rows == ["random", "k-Center", "longest", "kmeans_closest"]


def test_runs_with_other_settings_are_in_no_row(composer: Composer, tmp_path: Path) -> None:
    runs = made_grid(tmp_path, "quickstart", {"selector=random trainer.epochs=1": [0.9], "selector=kcenter": [0.4]})
    table = built(runs, composer)
    assert table.rows == ["random", "k-Center", "longest"]
    assert table.placed == runs[1:]
    assert table.cells["random", "accuracy"].n == 0


def test_ties_share_the_best_place(composer: Composer, tmp_path: Path) -> None:
    runs = made_grid(
        tmp_path, "quickstart", {"selector=random": [0.4001], "selector=kcenter": [0.3999], "selector=longest": [0.3]}
    )
    cells = built(runs, composer).cells
    assert [cells[row, "accuracy"].rank for row in ("random", "k-Center", "longest")] == [1, 1, 2]


def test_lower_is_better_where_the_metric_says_so(composer: Composer, tmp_path: Path) -> None:
    rows = {"selector=random": [2.0, 2.2, 2.1], "selector=kcenter": [1.8, 2.0, 2.1]}
    runs = made_grid(tmp_path, "quickstart", rows, metric="heldout_loss", higher_is_better=False)
    table = built(runs, composer, columns={"loss": "heldout_loss"}, scale={"heldout_loss": 1}, decimals=3)
    best, second = table.cells["k-Center", "loss"], table.cells["random", "loss"]
    assert (best.rank, second.rank) == (1, 2)
    assert best.best and second.best  # gaps of 0.2, 0.2 and 0: three seeds do not tell them apart
    assert table.show_value(best) == "1.967 ± 0.088"
    assert table.show_difference(best) == "−0.133 (−6.3 %) [−0.420, +0.154], p = 0.184"


def test_of_two_runs_of_one_seed_the_later_counts(composer: Composer, tmp_path: Path) -> None:
    early, late = (
        made_run(
            tmp_path / str(i), "experiments=quickstart", "selector=random", values={"procedural": v}, started=f"202{i}"
        )
        for i, v in enumerate((0.9, 0.4))
    )
    table = built([early, late], composer)
    assert table.cells["random", "accuracy"].values == {0: 40.0}
    assert table.superseded == [early]


def test_columns_can_be_settings(composer: Composer, tmp_path: Path) -> None:
    rows = {
        f"selector={s} budget={b}": [v]
        for (s, b), v in {
            ("random", 0.1): 0.4,
            ("random", 0.2): 0.5,
            ("kcenter", 0.2): 0.6,
            ("longest", 0.3): 0.7,
        }.items()
    }
    table = built(
        made_grid(tmp_path, "quickstart", rows), composer, metric="procedural", seeds=[0],
        columns={"10 %": "budget=0.1", "20 %": "budget=0.2"},
    )  # fmt: skip
    assert table.columns == ["10 %", "20 %", "0.3"]  # the last was found in the runs
    means = {place: cell.mean for place, cell in table.cells.items() if cell.values}
    assert means == pytest.approx(
        {("random", "10 %"): 40, ("random", "20 %"): 50, ("k-Center", "20 %"): 60, ("longest", "0.3"): 70}
    )
    assert table.cells["k-Center", "20 %"].difference is not None
    assert table.cells["k-Center", "10 %"].command is not None
    assert "selector=kcenter budget=0.1 seed=0" in table.cells["k-Center", "10 %"].command


def test_a_row_that_is_the_experiment_as_it_is_gets_the_name_of_its_setting(composer: Composer, tmp_path: Path) -> None:
    table = built(made_grid(tmp_path, "quickstart", {"": [0.4]}), composer)
    assert table.rows[-1] == "kmeans_uniform"  # the quickstart's selector, which no row above is for
    assert table.cells["kmeans_uniform", "accuracy"].n == 1


def test_other_numbers_of_the_record_can_be_columns_and_have_no_place(composer: Composer, tmp_path: Path) -> None:
    runs = made_grid(tmp_path, "quickstart", {"selector=random": [0.4], "selector=kcenter": [0.5]}, silhouette=0.174)
    table = built(runs, composer, columns={"accuracy": "procedural", "silhouette": "clustering.silhouette"})
    cell = table.cells["k-Center", "silhouette"]
    assert table.show_value(cell) == "17.4"
    assert cell.rank is None
    assert table.cells["k-Center", "accuracy"].rank == 1


def test_a_metric_that_runs_did_not_measure_is_not_missing_runs(composer: Composer, tmp_path: Path) -> None:
    """As HumanEval is left out until running its code is allowed: then the average is over fewer tasks."""
    runs = [
        made_run(tmp_path / str(seed), "experiments=quickstart", "selector=random", seed=seed,
                 values={"mmlu": 0.4, "gsm8k": 0.2, "humaneval": None})
        for seed in range(3)
    ]  # fmt: skip
    columns = {"MMLU": "mmlu", "GSM8K": "gsm8k", "HumanEval": "humaneval", "average": "average"}
    table = built(runs, composer, columns=columns)
    cell = table.cells["random", "HumanEval"]
    assert (cell.n, cell.missing, cell.command) == (0, (), None)
    assert table.cells["random", "average"].mean == pytest.approx(30)
    assert "HumanEval was not measured by the runs of random." in table.notes


TASKS = {"MMLU": "mmlu_chat", "GSM8K": "gsm8k_cot", "average": "average"}
PUBLISHED = {
    "random": {"MMLU": 40.0, "GSM8K": 10.0, "HumanEval": 28.0, "average": 26.0},
    "k-Center": {"MMLU": 42.0, "GSM8K": 12.0, "HumanEval": 33.0, "average": 29.0},
}


def of_tasks(folder: Path, selector: str, seed: int = 0, **values: float | None) -> RunFolder:
    named = {{"mmlu": "mmlu_chat", "gsm8k": "gsm8k_cot"}.get(name, name): value for name, value in values.items()}
    return made_run(
        folder / f"{selector}{seed}", "experiments=quickstart", f"selector={selector}", seed=seed, values=named
    )


def test_averages_are_over_the_tasks_that_all_runs_have(composer: Composer, tmp_path: Path) -> None:
    """One run without HumanEval: its average would stand higher than the others' from that alone."""
    runs = [
        of_tasks(tmp_path, "random", mmlu=0.4, gsm8k=0.2, humaneval=0.3),
        of_tasks(tmp_path, "kcenter", mmlu=0.42, gsm8k=0.18),
    ]
    table = built(runs, composer, columns={**TASKS, "HumanEval": "humaneval"}, seeds=[0])
    assert [table.cells[row, "average"].mean for row in ("random", "k-Center")] == pytest.approx([30, 30])
    assert table.cells["random", "average"].difference is None
    assert table.cells["k-Center", "average"].difference is not None
    assert table.cells["k-Center", "average"].difference.points == pytest.approx(0)
    assert "The average is over the 2 tasks that all runs have, without HumanEval." in table.notes
    assert math.isnan(table.cells["random", "average"].test_stderr)  # theirs is of another average


def test_published_averages_are_over_the_tasks_of_the_runs(composer: Composer, tmp_path: Path) -> None:
    columns = {**TASKS, "HumanEval": "humaneval"}
    table = built([], composer, columns=columns, published=PUBLISHED)
    assert table.cells["random", "average"].published == 26.0  # as printed, while there is nothing to stand beside
    table = built([of_tasks(tmp_path, "random", mmlu=0.4, gsm8k=0.2)], composer, columns=columns, published=PUBLISHED)
    assert table.cells["random", "average"].published == pytest.approx(25)
    assert table.cells["k-Center", "average"].published_difference == pytest.approx(2)
    assert "Published averages are recomputed over the tasks of the runs: without HumanEval." in table.notes
    whole = of_tasks(tmp_path, "random", 1, mmlu=0.4, gsm8k=0.2, humaneval=0.3)
    table = built([whole], composer, columns=columns, published=PUBLISHED)
    assert table.cells["random", "average"].published == 26.0
    assert not any("ublished" in note for note in table.notes)


def test_a_published_average_that_nobody_can_recompute_is_left_out(tmp_path: Path) -> None:
    """As in tables where only averages are published: those of the paper's six tasks."""
    composer = Composer(["experiments=wizardlm_main"])
    options = ["experiments=wizardlm_main", "selector=random"]
    tasks = dict.fromkeys(["mmlu_chat", "gsm8k_cot", "hellaswag", "arc_challenge", "truthfulqa_mc2"], 0.4)
    change = {"columns": {"average": "average"}, "published": {"random": {"average": 43.8}}}
    five = built([made_run(tmp_path / "5", *options, values=tasks)], composer, **change)
    assert five.cells["random", "average"].published is None
    (note,) = [note for note in five.notes if "ublished" in note]
    assert note.startswith("Published averages are left out: they are over 6 tasks, and those of the runs over 5 (")
    assert note.endswith("(without humaneval_pass10).")
    six = built([made_run(tmp_path / "6", *options, values={**tasks, "humaneval_pass10": 0.3})], composer, **change)
    assert six.cells["random", "average"].published == 43.8
    assert six.notes[0].startswith("One seed")


def test_footnotes_say_what_is_measured_otherwise_than_published(tmp_path: Path) -> None:
    composer = Composer(["experiments=wizardlm_main", "evaluator.limit=50"])
    section: dict[str, Any] = {
        "columns": {**TASKS, "ARC": "arc_challenge"},
        "published": {"random": {"MMLU": 42.4, "average": 43.8}},
        "differs": {"mmlu_chat": "in 8 bits", "hellaswag": "by hand"},
    }
    table = built([], composer, **section)
    assert [(note.mark, note.text, note.columns) for note in table.footnotes] == [
        ("a", "MMLU: published in 8 bits.", ("MMLU", "average"))
    ]
    values = {"mmlu_chat": 0.4, "gsm8k_cot": 0.2, "arc_challenge": 0.5}
    overrides = [
        "experiments=wizardlm_main",
        "evaluator.limit=50",
        "evaluator.tasks.mmlu_chat.shots=0",
        "selector=random",
    ]
    run = made_run(tmp_path / "a", *overrides, values=values)
    asked = Composer(["experiments=wizardlm_main", "evaluator.limit=50", "evaluator.tasks.mmlu_chat.shots=0"])
    table = built([run], asked, **{**section, "published": {"random": {"MMLU": 42.4, "ARC": 53.6}}})
    assert [(note.mark, note.text, note.columns) for note in table.footnotes] == [
        (
            "a",
            "MMLU: published in 8 bits; measured here with shots=0 instead of 5, limit=50 instead of null.",
            ("MMLU",),
        ),
        ("b", "ARC: measured here with limit=50 instead of null.", ("ARC",)),
    ]
    assert (table.marks("MMLU"), table.marks("ARC"), table.marks("GSM8K")) == (["a"], ["b"], [])


def test_seeds_that_only_one_side_has_are_counted(composer: Composer, tmp_path: Path) -> None:
    rows = {"selector=random": [0.40, 0.44, 0.42, 0.1], "selector=kcenter": [0.44, 0.47, 0.46]}
    cell = built(made_grid(tmp_path, "quickstart", rows), composer).cells["k-Center", "accuracy"]
    assert cell.difference is not None
    assert (cell.difference.pairs, cell.difference.unpaired) == (3, 1)
    assert cell.difference.points == pytest.approx(11 / 3)


def test_comparisons_are_counted_and_p_is_adjusted_for_them(composer: Composer, tmp_path: Path) -> None:
    rows = {f"selector={name}": [0.4, 0.42 + i / 100, 0.44] for i, name in enumerate(("random", "kcenter", "longest"))}
    table = built(made_grid(tmp_path, "quickstart", rows), composer)
    assert table.comparisons == 2
    gaps = [table.cells[row, "accuracy"].difference for row in ("k-Center", "longest")]
    assert [gap.adjusted / gap.p for gap in gaps if gap] == pytest.approx([2, 2])


def test_a_value_that_is_no_number_is_no_value(composer: Composer, tmp_path: Path) -> None:
    record = made_record(tmp_path / "a", "experiments=quickstart", "selector=random", values={"procedural": math.nan})
    run = RunFolder(__import__("json").loads((record.folder / "record.json").read_text()), "a")
    cell = built([run], composer, seeds=[0]).cells["random", "accuracy"]
    assert (cell.n, cell.rank) == (0, None)


def test_numbers_are_shown_with_their_sign_and_never_as_minus_zero(table: Table) -> None:
    assert table.show(-0.04, sign=True) == "0.0"
    assert table.show(0.06, sign=True) == "+0.1"
    assert table.show(-3.14159) == "−3.1"
    assert table.show(None) == table.show(math.nan) == "–"
