"""How the figures of a column are shown: their scale, unit and decimals, and which of two is better.

All of it is the metric's own, unless the experiment's file says otherwise: an accuracy in per cent, where higher is
better, a loss in nats, where lower is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dsel.evaluator.units import SHARE
from dsel.record.reader import RunFolder
from dsel.report.spec import TableSpec

SHARES = ("clustering.silhouette", "clustering.low_quality_clusters")
"""Numbers of a record that are no metrics, and shown times 100 as papers do; others are shown as they are."""

LOWER = "↓"  # at the head of a column where lower is better


@dataclass(frozen=True)
class Shown:
    """Figures are multiplied by `factor`.

    unit: empty for what has none. higher_is_better: None for what is no metric.
    """

    factor: float = 100.0
    unit: str = SHARE
    decimals: int = 1
    higher_is_better: bool | None = True

    @property
    def mark(self) -> str:
        return f" {LOWER}" if self.higher_is_better is False else ""

    @property
    def counted_in(self) -> str:
        """The unit of differences."""
        return "points" if self.unit == SHARE or not self.unit else self.unit

    def number(self, value: float | None, *, sign: bool = False) -> str:
        """A figure, or a difference with its `sign`; a dash for none."""
        if value is None or math.isnan(value):
            return "–"
        text = signed(value, self.decimals)
        return text if sign else text.removeprefix("+")


def shown(spec: TableSpec, metric: str, runs: Sequence[RunFolder]) -> Shown:
    """How `metric` of `runs` is shown: as they say it is counted, or as `spec` wants it."""
    measured = [run for run in runs if run.unit(metric) is not None]
    recorded = "." in metric or any(run.value(metric) is not None for run in runs)  # a number beside the metrics
    unit = str(measured[-1].unit(metric)) if measured else "" if recorded and metric not in SHARES else SHARE
    better = measured[-1].higher_is_better(metric) if measured else None
    usual = 100.0 if unit == SHARE else 1.0
    factor = spec.factor(metric, usual)
    if factor != usual:
        unit = "" if unit == SHARE else f"{unit} × {factor:g}"
    values = [factor * value for run in runs if (value := run.value(metric)) is not None]
    return Shown(factor, unit, _decimals(values, unit) if spec.decimals is None else spec.decimals, better)


def legend(shown: Mapping[str, Shown]) -> Iterator[str]:
    """What is said of columns (label → how they are shown) that are not in per cent, or in which lower is better."""
    units: dict[str, list[str]] = {}
    for label, column in shown.items():
        if column.unit not in ("", SHARE):
            units.setdefault(column.unit, []).append(label)
    for unit, labels in units.items():
        yield f"In {unit}: {', '.join(labels)}."
    if any(column.mark for column in shown.values()):
        yield f"{LOWER}: lower is better."


def signed(value: float, decimals: int) -> str:
    """`value` with its sign; none for what is shown as zero."""
    text = f"{abs(value):.{decimals}f}"
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def _decimals(values: Iterable[float], unit: str) -> int:
    """One for shares; else as many as make four digits of the largest, and none for whole numbers."""
    known = [abs(value) for value in values]
    if unit == SHARE or not known or not max(known):
        return 1
    if not unit and all(value == int(value) for value in known):
        return 0
    return min(max(3 - math.floor(math.log10(max(known))), 0), 6)
