"""The figure of the score against what it cost to get there: choosing and training together."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsel.report import costs, statistics
from dsel.report.costs import NAMES, Unit, total
from dsel.report.drawing import COLOURS, GREY, INK, MARKERS, blank, legend, short
from dsel.report.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """A row's (and column's) mean cost and score over its seeds, and half of each one's 95 % t interval, NaN without.

    cost: 0 where nothing was chosen or trained.
    """

    label: str
    cost: float
    score: float
    reach: tuple[float, float]


def against_cost(tables: Sequence[Table]) -> Iterator[tuple[str, Figure]]:
    """The metric against the cost, for each table with two runs or more that know theirs."""
    from matplotlib.ticker import LogLocator, NullLocator

    for table in tables:
        unit = costs.unit_of(table.costs)
        found = points(table, unit)
        paid = [point for point in found if point.cost > 0]
        if len(paid) < 2:
            if table.costs:
                log.info("no figure of the cost: fewer than two rows of %s know it", table.title or "the table")
            continue
        column = next(label for label in table.columns if table.column_specs[label].metric == table.metric)
        looks = table.shown[column]
        figure, axes = blank(6.4, 4.4)
        for number, point in enumerate(paid):
            left = min(point.reach[0], 0.9 * point.cost)  # an axis of powers has no zero
            axes.errorbar(
                [point.cost], [point.score], [[_known(point.reach[1])]] * 2, [[_known(left)], [_known(point.reach[0])]],
                capsize=2, linewidth=1, linestyle="", label=short(point.label), color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
            )  # fmt: skip
        for point in found:
            if point.cost == 0:
                axes.axhline(point.score, color=GREY, linestyle=":", linewidth=1.2, label=short(point.label))
        best = front(found, higher_is_better=looks.higher_is_better is not False)
        steps = [point for point in best if point.cost > 0]
        if steps:
            xs = [*(point.cost for point in steps), max(point.cost for point in paid)]
            ys = [*(point.score for point in steps), steps[-1].score]
            axes.step(xs, ys, where="post", color=INK, alpha=0.45, linewidth=1, linestyle="--", label="Pareto front")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.xaxis.set_major_formatter(tick)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(f"cost of choosing and training ({NAMES[unit]})")
        name = table.metric if table.column_specs[column].overrides else column
        axes.set_ylabel(name if looks.counted_in == "points" else f"{name} ({looks.counted_in})")
        legend(axes)
        title = f"{table.title}: " if table.title else ""
        free = "; dotted: without any training" if len(found) > len(paid) else ""
        yield (
            f"{title}{name} against the cost of choosing and training in {NAMES[unit]}, means and 95 % t intervals; "
            f"dashed: the Pareto front, than which nothing is both better and cheaper{free}",
            figure,
        )


def points(table: Table, unit: Unit) -> list[Point]:
    """Those of the cells with the table's metric."""
    cells = [table.cells[row, column] for row in table.rows for column in table.columns]
    own = [cell for cell in cells if cell.metric == table.metric and cell.values]
    several = len({cell.column for cell in own}) > 1
    found = (_point(cell, f"{cell.row}, {cell.column}" if several else cell.row, unit) for cell in own)
    return [point for point in found if point is not None]


def front(found: Sequence[Point], *, higher_is_better: bool = True) -> list[Point]:
    """Those that none both cheaper and better, or as cheap or good and the other, stands before: by rising cost."""
    sign = 1 if higher_is_better else -1
    best: list[Point] = []
    for point in sorted(found, key=lambda p: (p.cost, -sign * p.score)):
        if not best or sign * point.score > sign * best[-1].score:
            best.append(point)
    return best


def tick(x: float, place: int | None) -> str:
    """A number on the axis of powers; large ones as such."""
    power = math.floor(math.log10(x) + 1e-9) if x > 0 else 0
    if power < 5:
        return f"{x:g}"
    times = round(x / 10**power)
    return ("" if times == 1 else f"{times}·") + "10" + str(power).translate(RAISED)


def _point(cell: Cell, label: str, unit: Unit) -> Point | None:
    """None where the cost of none of its runs is known."""
    known = {seed: cost for seed in cell.values if (cost := total(cell.runs[seed].cost, unit)) is not None}
    if not known or not any(cell.runs[seed].cost.choosing for seed in known):
        return None
    paid, scores = list(known.values()), [cell.values[seed] for seed in known]
    trained = any(cell.runs[seed].cost.training for seed in known)
    cost = statistics.mean(paid) if trained else 0.0
    return Point(label, cost, statistics.mean(scores), (_reach(paid), _reach(scores)))


def _reach(values: Sequence[float]) -> float:
    """Half of Student's interval; NaN where there is none."""
    low, high = statistics.student_t(values)
    return (high - low) / 2


def _known(reach: float) -> float:
    return 0.0 if math.isnan(reach) else reach
