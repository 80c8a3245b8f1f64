"""Figures of an experiment, drawn from its tables and the folders of its runs: PDF, PNG, and SVG for the page.

An experiment names what it shows: the path of a setting (`budget`, `clusterer.k`, `selector.rounds`) for the metric
against it, of all tables that vary it, or the path and another metric with a space between them; `weights`, the
clusters' weights over the rounds of an iterative method; `sources`, what the subsets are made of; `map`, the pool in
two dimensions with the chosen examples by cluster; `cost`, the metric against what choosing and training cost, which is
in every report. A figure whose data is not there is left out, with a line in the
log that says what is missing; so is a run whose file is not what a run writes.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsel.errors import ConfigError, need
from dsel.record.reader import RunFolder
from dsel.record.tables import MAP, WEIGHTS, read_table
from dsel.report import statistics
from dsel.report.drawing import COLOURS, GREY, INK, MARKERS, Drawn, blank, legend, save, short, style
from dsel.report.pareto import against_cost
from dsel.report.spec import COST, keys
from dsel.report.tables import Cell, Table

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

WIDE = 7.0  # inches; a wider figure takes a line of the page for itself
PANELS, LINES, SOURCES = 4, 12, 8  # at most, in a figure
LARGEST = 2**28  # bytes of a run's table
SILHOUETTE = "clustering.silhouette"
NAMES = {"budget": "examples chosen", "clusterer.k": "clusters k", "selector.rounds": "rounds"}


@dataclass(frozen=True)
class Point:
    x: float
    mean: float
    stderr: float
    published: float | None


def draw(names: Sequence[str], tables: Sequence[Table], folder: Path) -> list[Drawn]:
    """Draw the figures called `names`, write `<name>.pdf` and `<name>.png` into `folder`, and return them."""
    others: Mapping[str, Callable[[Sequence[Table]], Iterator[tuple[str, Figure]]]] = {
        "weights": weights, "sources": sources, "map": pool_map, COST: against_cost
    }  # fmt: skip
    drawn = []
    with style():
        for name in names:
            figures = list(others[name](tables) if name in others else against(name, tables))
            for number, (caption, figure) in enumerate(figures):
                label = re.sub(r"\W+", "_", name) + (f"_{number + 1}" if len(figures) > 1 else "")
                wide = figure.get_figwidth() > WIDE
                drawn.append(Drawn(label, caption, save(figure, folder / label), wide))
    return drawn


def against(name: str, tables: Sequence[Table]) -> Iterator[tuple[str, Figure]]:
    """The metric against a setting, for each table that varies it, with the published figures and the silhouette."""
    setting, _, other = name.partition(" ")
    done = False
    for table in tables:
        lines = _lines(table, setting, other or table.metric)
        points = [p for line in lines.values() for p in line if not math.isnan(p.mean) or p.published is not None]
        if len({p.x for p in points}) < 2:
            continue
        done = True
        figure, axes = blank(6.4, 4.0)
        for number, (label, line) in enumerate(lines.items()):
            looks = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            own = [p for p in line if not math.isnan(p.mean)]
            if own:
                errors = [0.0 if math.isnan(p.stderr) else p.stderr for p in own]
                means = [p.mean for p in own]
                axes.errorbar([p.x for p in own], means, errors, capsize=3, label=short(label), **looks)
            paper = [p for p in line if p.published is not None]
            if paper:
                axes.plot(
                    [p.x for p in paper], [p.published for p in paper],
                    label=short(f"{label}, published".lstrip(", ")), linestyle=":", markerfacecolor="none", alpha=0.8,
                    **looks,
                )  # fmt: skip
        ticks = sorted({p.x for line in lines.values() for p in line})
        _x_axis(axes, ticks, NAMES.get(setting, setting))
        metric = _metric_label(other or table.metric, tables)
        axes.set_ylabel(metric)
        if setting == "clusterer.k" and not other:
            _silhouette(axes, table)
        legend(axes)
        title = f"{table.title}: " if table.title else ""
        yield f"{title}{metric} against {NAMES.get(setting, setting)}", figure
    if not done:
        log.info("no figure of %s: there are no runs of two values of it", name)


def weights(tables: Sequence[Table]) -> Iterator[tuple[str, Figure]]:
    """The clusters' weights over the rounds, of one run for each row that has noted them."""
    runs = _one_run_a_row(tables, "rounds/weights.parquet", WEIGHTS)
    if not runs:
        log.info("no figure of weights: no run folder has rounds/weights.parquet (iterative methods write it)")
        return
    figure, panels = blank(3.4 * len(runs) if len(runs) > 1 else 5.4, 3.6, columns=len(runs))
    for axes, (label, found) in zip(panels if len(runs) > 1 else [panels], runs, strict=True):
        rows = found.to_pylist()
        by_cluster: dict[int, list[tuple[int, float]]] = {}
        for row in rows:
            by_cluster.setdefault(row["cluster"], []).append((row["round"], row["weight"]))
        moved = sorted(by_cluster, key=lambda c: -abs(by_cluster[c][-1][1] - by_cluster[c][0][1]))
        for place, cluster in reversed(list(enumerate(moved))):
            shown = place < LINES
            colour = COLOURS[place % len(COLOURS)] if shown else INK
            axes.plot(*zip(*by_cluster[cluster], strict=True), color=colour, alpha=1 if shown else 0.12,
                      linewidth=1.6 if shown else 0.8, marker="o" if shown else None, markersize=3)  # fmt: skip
        axes.set_title(label)
        axes.set_xlabel("round")
        axes.set_xticks(sorted({row["round"] for row in rows}))
    (panels[0] if len(runs) > 1 else panels).set_ylabel("weight of a cluster")
    yield f"Cluster weights over rounds, one seed each; the {LINES} clusters that changed most in colour", figure


def sources(tables: Sequence[Table]) -> Iterator[tuple[str, Figure]]:
    """What share of the chosen examples each source has: a bar for each row of the first table that has runs."""
    bars: dict[str, dict[str, float]] = {}
    table = next((table for table in tables if table.placed), None)
    for row in table.rows if table else []:
        shares = [_shares(run) for run in _runs_of(table, row) if run.facts["rounds"]]
        if shares:
            names = {name for share in shares for name in share}
            bars[row] = {n: statistics.mean([share.get(n, 0.0) for share in shares]) for n in names}
    totals = {name: sum(bar.get(name, 0) for bar in bars.values()) for bar in bars.values() for name in bar}
    if len(totals) < 2:
        log.info("no figure of sources: the runs' examples are of one source or none")
        return
    largest = sorted(totals, key=lambda name: -totals[name])
    shown, rest = largest[:SOURCES], largest[SOURCES:]
    figure, axes = blank(6.4, 1.1 + 0.34 * len(bars))
    start, labels = [0.0] * len(bars), [short(row) for row in bars]
    for number, name in enumerate([*shown, *(["others"] if rest else [])]):
        share = [
            100 * (bar.get(name, 0) if name in totals else sum(bar.get(r, 0) for r in rest)) for bar in bars.values()
        ]
        colour = COLOURS[number] if number < len(COLOURS) else INK
        axes.barh(labels, share, left=start, color=colour, label=short(name), height=0.7)
        start = [a + b for a, b in zip(start, share, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("chosen examples (%)")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=min(5, len(shown) + bool(rest)), frameon=False)
    yield "What the subsets are made of, by source", figure


def pool_map(tables: Sequence[Table]) -> Iterator[tuple[str, Figure]]:
    """The pool in two dimensions, the chosen examples coloured by cluster, of one run for each row that has a map."""
    runs = _one_run_a_row(tables, "map.parquet", MAP)
    if not runs:
        log.info("no figure of the map: no run folder has map.parquet (runs that embed the pool write it)")
        return
    figure, panels = blank(3.3 * len(runs) if len(runs) > 1 else 5.4, 3.5 if len(runs) > 1 else 4.6, columns=len(runs))
    for axes, (label, table) in zip(panels if len(runs) > 1 else [panels], runs, strict=True):
        x, y, chosen = (table[name].to_numpy() for name in ("x", "y", "chosen"))
        axes.scatter(x[~chosen], y[~chosen], s=2, color=GREY, alpha=0.45, linewidths=0, rasterized=True)
        colours = [
            GREY if cluster is None else COLOURS[cluster % len(COLOURS)]
            for cluster in table.filter(chosen)["cluster"].to_pylist()
        ]
        axes.scatter(x[chosen], y[chosen], s=7, c=colours, linewidths=0, rasterized=True)
        axes.set_title(label)
        axes.set_xticks([])
        axes.set_yticks([])
    yield "The pool in two dimensions: chosen examples coloured by cluster, the others grey, one seed each", figure


def _lines(table: Table, setting: str, metric: str) -> dict[str, list[Point]]:
    """Label → points, by x: what `table` has of the metric where `setting` varies."""
    lines: dict[str, list[Point]] = {}
    for (row, column), cell in table.cells.items():
        if cell.metric != metric:
            continue
        down, across = table.row_overrides[row], table.column_specs[column].overrides
        if setting in keys(across):
            label, override = row, across[keys(across).index(setting)]
        elif setting in keys(down):
            others = [o.partition("=")[2] for o, key in zip(down, keys(down), strict=True) if key != setting]
            label, override = ", ".join([*others, *([column] if across else [])]), down[keys(down).index(setting)]
        else:
            continue
        x = _x(setting, cell, override.partition("=")[2])
        if x is not None:
            lines.setdefault(label, []).append(Point(x, cell.mean, cell.stderr, cell.published))
    return {label: sorted(points, key=lambda p: p.x) for label, points in lines.items()}


def _x(setting: str, cell: Cell, given: str) -> float | None:
    """Where a cell is on the axis: budgets as counts, where a run tells; None for what is no number."""
    for run in cell.runs.values():
        if setting == "budget":
            return float(run.facts["budget"]) if "budget" in run.facts else None
        if setting == "clusterer.k" and run.facts.get("clustering"):
            return float(run.facts["clustering"]["k"])
    try:
        return None if setting == "budget" and float(given) <= 1 else float(given)
    except ValueError:
        return None


def _silhouette(axes: Axes, table: Table) -> None:
    """The silhouette against k on a second axis: of the runs that have it, and the published one."""
    values: dict[float, list[float]] = {}
    for run in table.placed:
        value = run.value(SILHOUETTE)
        if value is not None:
            values.setdefault(float(run.facts["clustering"]["k"]), []).append(100 * value)
    published = {
        float(override.partition("=")[2]): cell.published
        for (row, _), cell in table.cells.items()
        for override in table.row_overrides[row]
        if cell.metric == SILHOUETTE and cell.published is not None and override.startswith("clusterer.k=")
    }
    if not values and not published:
        return
    second = axes.twinx()
    second.set_ylabel("silhouette × 100")
    second.grid(visible=False)
    second.spines["right"].set_visible(True)
    points = sorted((k, statistics.mean(v)) for k, v in values.items())
    for data, label, dashes in (
        (points, "silhouette", "--"),
        (sorted(published.items()), "silhouette, published", ":"),
    ):
        if data:
            xs, ys = zip(*data, strict=True)
            hollow: dict[str, Any] = {"markerfacecolor": "none"} if dashes == ":" else {}
            axes.plot([], [], color=COLOURS[3], linestyle=dashes, marker="s", label=label, **hollow)  # for the legend
            second.plot(xs, ys, color=COLOURS[3], linestyle=dashes, marker="s", **hollow)


def _metric_label(metric: str, tables: Sequence[Table]) -> str:
    """What a table's column with the metric is called, where there is one, and what it is counted in."""
    for table in tables:
        for label, column in table.column_specs.items():
            if column.metric == metric:
                unit = table.shown[label].counted_in
                name = metric if column.overrides else label
                return name if unit == "points" else f"{name} ({unit})"
    return metric


def _x_axis(axes: Axes, ticks: Sequence[float], label: str) -> None:
    axes.set_xlabel(label)
    if ticks and min(ticks) > 0 and max(ticks) / min(ticks) >= 8:
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks], rotation=30 if len(ticks) > 7 else 0)
    axes.minorticks_off()


def _runs_of(table: Table | None, row: str) -> list[RunFolder]:
    """The runs of a row's first filled column, by seed."""
    if table is None:
        return []
    return next(([*c.runs.values()] for column in table.columns if (c := table.cells[row, column]).runs), [])


def _one_run_a_row(tables: Sequence[Table], file: str, kinds: Mapping[str, str]) -> list[tuple[str, pa.Table]]:
    """(row, its table) of the first run of each row whose folder has `file`: at most PANELS, those with clusters first.

    kinds: the columns that are read, and their types.
    """
    found: dict[str, tuple[str, RunFolder, pa.Table]] = {}
    for table in tables:
        for row in table.rows:
            for run in _runs_of(table, row):
                rows = None if run.folder is None or run.where in found else _rows(run.folder / file, kinds)
                if rows is not None:
                    found[run.where] = (row, run, rows)
                if rows is not None or run.where in found:
                    break
    shown = sorted(found.values(), key=lambda each: not each[1].facts.get("clustering"))[:PANELS]
    return [(short(row), rows) for row, run, rows in found.values() if any(run is each[1] for each in shown)]


def _rows(path: Path, kinds: Mapping[str, str]) -> pa.Table | None:
    """The columns of a run's table; None, with a line in the log, where it is not what runs write."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not path.exists():
        return None
    try:
        need(path.is_file() and path.stat().st_size <= LARGEST, f"{path}: not the table of a run")
        rows = read_table(path, kinds, needed=kinds.keys() - {"cluster"})
        for name in kinds:
            finite = not pa.types.is_floating(rows[name].type) or pc.all(pc.is_finite(rows[name])).as_py()
            need(bool(len(rows) and finite), f"{path}: its column {name} is not that of a run")
        return rows
    except ConfigError as error:
        log.warning("left out of the figures: %s", error)
        return None


def _shares(run: RunFolder) -> dict[str, float]:
    counts: dict[str, int] = {}
    for round in run.facts["rounds"]:
        for name, count in round["sources"].items():
            counts[name] = counts.get(name, 0) + count
    total = sum(counts.values()) or 1
    return {name: count / total for name, count in counts.items()}
