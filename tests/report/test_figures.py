"""The figures: what they draw is what the tables and run folders hold, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsel.record.reader import RunFolder
from dsel.report.drawing import INK, style
from dsel.report.figures import SILHOUETTE, _lines, against, draw, pool_map, sources, weights
from dsel.report.match import Composer
from dsel.report.spec import read
from dsel.report.tables import Table, build
from tests.report.made import add_map, add_rounds, made_grid


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, composer: Composer) -> Table:
    """Two budgets for each of two numbers of clusters, a few seeds, and a published figure."""
    rows = {
        "clusterer.k=8 budget=0.1": [0.4, 0.5], "clusterer.k=8 budget=0.2": [0.6],
        "clusterer.k=16 budget=0.1": [0.3], "clusterer.k=16 budget=0.2": [0.7],
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("grid")
    runs = [
        *made_grid(
            folder / "8", "quickstart", dict(list(rows.items())[:2]), silhouette=0.1, sources={"a": 30, "b": 10}
        ),
        *made_grid(folder / "16", "quickstart", dict(list(rows.items())[2:]), silhouette=0.3, sources={"b": 40}),
    ]
    section = {
        "title": "Grid", "metric": "procedural",
        "rows": {"k = 8": "clusterer.k=8", "k = 16": "clusterer.k=16", "k = 32": "clusterer.k=32"},
        "columns": {"10 %": "budget=0.1", "20 %": "budget=0.2"},
        "published": {"k = 8": {"10 %": 44.0}, "k = 32": {"10 %": 41.0}},
    }  # fmt: skip
    return build(read(section).tables[0], runs, composer)


def test_lines_against_the_budget_are_rows_and_its_axis_counts_examples(grid: Table) -> None:
    lines = _lines(grid, "budget", "procedural")
    points = {label: [(p.x, p.mean) for p in line if not np.isnan(p.mean)] for label, line in lines.items()}
    np.testing.assert_allclose(points["k = 8"], [(600, 45), (1200, 60)])
    np.testing.assert_allclose(points["k = 16"], [(600, 30), (1200, 70)])
    assert lines["k = 8"][0].stderr == pytest.approx(5)


def test_lines_against_k_are_columns_with_published_points_where_there_is_no_run(grid: Table) -> None:
    lines = _lines(grid, "clusterer.k", "procedural")
    assert list(lines) == ["10 %", "20 %"]
    assert [(p.x, p.published) for p in lines["10 %"]] == [(8, 44.0), (16, None), (32, 41.0)]
    assert np.isnan(lines["10 %"][2].mean)


def test_what_is_drawn_is_what_the_lines_are(grid: Table) -> None:
    with style():
        ((caption, figure),) = against("clusterer.k", [grid])
    assert caption == "Grid: procedural against clusters k"
    axes, second = figure.axes
    drawn = {
        line.get_label(): line.get_xydata() for line in axes.get_lines() if not str(line.get_label()).startswith("_")
    }
    np.testing.assert_allclose(drawn["10 %, published"], [[8, 44], [32, 41]])
    (silhouette,) = second.get_lines()
    np.testing.assert_allclose(silhouette.get_xydata(), [[8, 10], [16, 30]])
    assert axes.get_xlabel() == "clusters k"


def test_another_metric_can_be_drawn_against_a_setting(grid: Table, composer: Composer) -> None:
    section = {"rows": {"8": "clusterer.k=8", "16": "clusterer.k=16"}, "at": "budget=0.1",
               "columns": {"accuracy": "procedural", "silhouette": SILHOUETTE}}  # fmt: skip
    table = build(read(section).tables[0], grid.placed, composer)
    with style():
        ((_, figure),) = against(f"clusterer.k {SILHOUETTE}", [table])
    (axes,) = figure.axes
    assert axes.get_ylabel() == "silhouette"
    assert [p.mean for p in _lines(table, "clusterer.k", SILHOUETTE)[""]] == pytest.approx([10, 30])


def test_sources_are_shares_of_the_subset(grid: Table) -> None:
    with style():
        ((_, figure),) = sources([grid])
    bars = {bar.get_label(): [patch.get_width() for patch in bar] for bar in figure.axes[0].containers}
    assert bars == {"b": pytest.approx([25, 100]), "a": pytest.approx([75, 0])}


def test_weights_and_map_are_of_one_run_a_row(grid: Table) -> None:
    runs: list[RunFolder] = [next(iter(grid.cells["k = 8", "10 %"].runs.values()))]
    assert runs[0].folder is not None
    add_rounds(runs[0].folder, clusters=20, rounds=3)
    add_map(runs[0].folder, n=100)
    with style():
        ((_, figure),) = weights([grid])
        assert [axes.get_title() for axes in figure.axes] == ["k = 8"]
        lines = [np.asarray(line.get_xydata()) for line in figure.axes[0].get_lines()]
        assert len(lines) == 20
        assert np.sum(lines, axis=0)[:, 1] == pytest.approx([1, 1, 1])
        ((_, figure),) = pool_map([grid])
        others, chosen = figure.axes[0].collections
    assert len(others.get_offsets()) + len(chosen.get_offsets()) == 100


def test_files_are_written_and_the_page_gets_its_own_colours(grid: Table, tmp_path: Path) -> None:
    first, second = draw(["budget", "clusterer.k"], [grid], tmp_path / "figures")
    assert (first.name, second.name) == ("budget", "clusterer_k")
    for name in ("budget", "clusterer_k"):
        assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert first.svg.startswith("<svg")
    assert "currentColor" in first.svg
    assert INK not in first.svg
    assert "<script" not in first.svg
    again = draw(["budget"], [grid], tmp_path / "again")[0]
    assert again.svg == first.svg
    assert (tmp_path / "again" / "budget.png").read_bytes() == (tmp_path / "figures" / "budget.png").read_bytes()


def test_a_figure_without_its_data_is_left_out_and_said(
    made_runs: list[RunFolder], table: Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert draw(["budget", "weights", "sources", "map"], [table], tmp_path) == []
    for words in ("no figure of budget", "rounds/weights.parquet", "no figure of sources", "map.parquet"):
        assert words in caplog.text
    assert len(caplog.records) == 4
