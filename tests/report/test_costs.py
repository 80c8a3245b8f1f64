"""What choosing costs beside training: in each kind of report, in the unit that says it, and never for nothing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dsel.record.cost import cost
from dsel.report import costs
from dsel.report.costs import Costs
from dsel.report.drawing import style
from dsel.report.match import Composer
from dsel.report.page import render
from dsel.report.pareto import Point, against_cost, front, points, tick
from dsel.report.spec import read
from dsel.report.tables import Report, Table, build
from dsel.report.writers import costly, latex, markdown, terminal, to_csv
from dsel.spent import Spent
from dsel.stage import Stage
from tests.report.made import made_run

ROWS = {
    "zero-shot": "trainer=none selector=random",
    "random": "selector=random",
    "quality": "selector=quality",
    "longest": "selector=longest",
}
SECTION = {"title": "Costs", "rows": ROWS, "columns": {"accuracy": "procedural"}, "baseline": "random", "seeds": [0, 1]}


def made(name: str, seconds: float, flops: float | None) -> Stage:
    return Stage(name, seconds, artifact=name, spent=Spent(seconds, flops))


def stages(row: str, seed: int, *, counted: bool = True) -> list[Stage]:
    """Choosing by quality costs 1.5 trainings, in operations, and by length next to nothing."""
    train = made("train", 10.0 + seed, 2e12)
    select = Stage("select", 0.01)
    if row == "zero-shot":
        return [select]
    score = [made("score", 20.0, 3e12 if counted else None)] if row == "quality" else []
    return [select, *score, train]


def table(folder: Path, composer: Composer, *, counted: bool = True, seeds: Sequence[int] = (0, 1)) -> Table:
    values = {"zero-shot": 0.1, "random": 0.4, "quality": 0.6, "longest": 0.3}
    runs = [
        made_run(
            folder / f"{row}_{seed}", "experiments=quickstart", *overrides.split(), seed=seed,
            values={"procedural": values[row] + seed / 100}, stages=stages(row, seed, counted=counted),
        )
        for row, overrides in ROWS.items()
        for seed in seeds
    ]  # fmt: skip
    return build(read(SECTION).tables[0], runs, composer)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, composer: Composer) -> Table:
    return table(tmp_path_factory.mktemp("costs"), composer)


def test_shares_are_by_operations_where_all_that_matters_is_counted(found: Table) -> None:
    assert costs.unit_of(found.costs) == "flops"
    shares = {row: costs.share(found.costs, row) for row in found.rows}
    assert shares == {"zero-shot": "–", "random": "≈ 0", "quality": "1.50", "longest": "≈ 0"}
    assert [costs.rank(found.costs, row) for row in found.rows] == ["", 0.0, 1.5, 0.0]
    assert not [note for note in found.notes if "FLOPs" in note]


def test_shares_are_by_seconds_where_something_is_not_counted(tmp_path: Path, composer: Composer) -> None:
    one = table(tmp_path, composer, counted=False)
    assert costs.unit_of(one.costs) == "seconds"
    assert costs.share(one.costs, "quality") == "1.91"  # of 20.01 seconds by 10 and by 11
    assert costs.share(one.costs, "random") == "< 0.01"
    assert "Not counted in FLOPs, so that seconds are compared: quality: score." in one.notes


def test_every_kind_of_report_has_the_column_and_the_totals(found: Table, tmp_path: Path) -> None:
    text = markdown(found)
    assert "| choosing / training (FLOPs) |" in text.splitlines()[0]
    assert "What choosing and training cost, mean ± standard error over seeds:" in text
    quality = next(
        line for line in text.splitlines() if line.startswith("| quality") and "±" in line and "3.00" in line
    )
    assert [cell.strip() for cell in quality.strip("|").split("|")] == [
        "quality", "3.00 ± 0.00", "2.00 ± 0.00", "1.50 ± 0.00", "20.0 ± 0.0", "10.5 ± 0.5", "1.91 ± 0.09",
    ]  # fmt: skip
    assert "| random    | not counted |" in re.sub(" +", " ", text).replace("| random |", "| random    |")
    assert "choosing / training (FLOPs)" in latex(found) and "$\\approx$ 0" in latex(found)
    page = render(Report("t", [found]), [], tmp_path, command="")
    assert "choosing / training (FLOPs)" in page and '<td data-value="1.5">' in page and '<h3 id="cost-1">' in page
    assert terminal(found).header[-1] == "choosing / training (FLOPs)" and len(costly(found).rows) == 4
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(to_csv([found])))}
    assert (float(rows["quality"]["choosing_flops"]), float(rows["quality"]["training_flops"])) == (3e12, 2e12)
    assert (rows["random"]["choosing_flops"], rows["zero-shot"]["training_seconds"]) == ("", "")


def test_what_is_not_known_is_said_and_compared_with_nothing() -> None:
    older = [Stage("embed", 0.1, cached=True), made("train", 10.0, 2e12)]
    known = Costs("a", "", (cost([made("embed", 5.0, 1e12), made("train", 10.0, 2e12)]),))
    unknown = Costs("b", "", (cost(older),))
    assert costs.share([known, unknown], "a") == "0.500" and costs.share([known, unknown], "b") == "–"
    (note,) = costs.notes([known, unknown])
    assert note.startswith("What choosing cost is not known of 1 run (b), which found in the cache")
    assert costs.total(cost(older), "seconds") is None


def test_a_row_with_a_training_for_each_column_says_from_which_to_which() -> None:
    ends = [Costs("a", label, (cost([made("embed", 5.0, flops), made("train", 9.0, 2e12)]),)) for label, flops in
            (("5 %", 1e12), ("10 %", 4e12))]  # fmt: skip
    assert costs.share(ends, "a") == "0.500 to 2.00"
    assert [line[0] for line in costs.rows(ends)[1]] == ["a, 5 %", "a, 10 %"]


def test_runs_without_stages_have_no_column(tmp_path: Path, composer: Composer) -> None:
    run = made_run(tmp_path / "a", "experiments=quickstart", "selector=random", values={"procedural": 0.4})
    one = build(read(SECTION).tables[0], [run], composer)
    assert not one.costs and "choosing" not in markdown(one)


def test_the_figure_has_a_point_for_each_row_and_the_front(found: Table) -> None:
    with style():
        ((caption, figure),) = against_cost([found])
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "cost of choosing and training (FLOPs)"
    assert [(p.label, p.cost) for p in points(found, "flops")] == [
        ("zero-shot", 0.0), ("random", 2e12), ("quality", 5e12), ("longest", 2e12),
    ]  # fmt: skip
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.get_lines()}
    np.testing.assert_allclose(lines["Pareto front"][:2], [[2e12, 40.5], [5e12, 60.5]])
    assert lines["zero-shot"][0][1] == pytest.approx(10.5)
    assert "Pareto front" in caption and "dotted" in caption
    figure.draw_without_rendering()
    assert [tick(x, None) for x in (2e12, 1e9, 5e15, 20.0, 0.5)] == ["2·10¹²", "10⁹", "5·10¹⁵", "20", "0.5"]


def test_the_front_is_what_nothing_is_both_better_and_cheaper_than() -> None:
    given = [Point(str(i), c, s, (0, 0)) for i, (c, s) in enumerate([(3, 5), (1, 2), (2, 1), (2, 4), (4, 5), (0, 3)])]
    assert [(p.cost, p.score) for p in front(given)] == [(0, 3), (2, 4), (3, 5)]
    assert [(p.cost, p.score) for p in front(given, higher_is_better=False)] == [(0, 3), (1, 2), (2, 1)]


def test_runs_on_another_pool_are_named(tmp_path: Path, composer: Composer) -> None:
    def run(selector: str, pool: str, seed: int = 0):  # type: ignore[no-untyped-def]
        return made_run(
            tmp_path / f"{selector}{seed}", "experiments=quickstart", f"selector={selector}", seed=seed,
            values={"procedural": 0.4}, pool=pool,
        )  # fmt: skip

    same = [run("random", "a"), run("quality", "a"), run("random", "b", 1), run("quality", "b", 1)]
    assert not [note for note in build(read(SECTION).tables[0], same, composer).notes if "pool" in note]
    (note,) = [
        n for n in build(read(SECTION).tables[0], [*same, run("longest", "c", 1)], composer).notes if "pool" in n
    ]
    assert note.endswith("that of longest (6000 examples), seed 1.")
    several = {**SECTION, "rows": {"small": "data.size=500", "large": "data.size=900"}, "baseline": "small"}
    runs = [
        made_run(tmp_path / size, "experiments=quickstart", f"data.size={size}", values={"procedural": 0.4}, pool=size)
        for size in ("500", "900")
    ]
    assert not [note for note in build(read(several).tables[0], runs, composer).notes if "pool" in note]
