"""What choosing costs beside training, in a report: by row, over seeds, in operations or in seconds.

Seconds are of whatever machine a run had, operations are the same everywhere, but not all work is counted in them: a
table compares by operations where what is not counted does not matter, and by seconds where it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dsel.record.cost import Cost
from dsel.record.reader import RunFolder
from dsel.report import statistics
from dsel.report.spec import Overrides

Unit = Literal["flops", "seconds"]
UNITS: tuple[Unit, ...] = ("flops", "seconds")
NAMES: Mapping[Unit, str] = {"flops": "FLOPs", "seconds": "seconds"}
NEGLIGIBLE = 0.05  # of a run's seconds
PREFIXES = ("", "k", "M", "G", "T", "P", "E")
NOTHING = "≈ 0"
LEGEND = (
    "Cost of choosing in shares of that of training. What was found in the cache counts as when it was made; a "
    "training that a run's model has not come from (a warm-up, a guide) belongs to choosing."
)


@dataclass(frozen=True)
class Costs:
    """Those of the runs of a row; column: of which one they are, empty where columns are metrics of the same runs."""

    row: str
    column: str
    runs: tuple[Cost, ...]

    def choosing(self, unit: Unit) -> list[float]:
        """Of the runs that know it."""
        return [found for cost in self.runs if (found := _choosing(cost, unit)) is not None]

    def training(self, unit: Unit) -> list[float]:
        """Of the runs that have trained and know it."""
        return [found for cost in self.runs if (found := _training(cost, unit)) is not None]

    def shares(self, unit: Unit) -> list[float]:
        """Choosing over training."""
        both = [(_choosing(cost, unit), _training(cost, unit)) for cost in self.runs]
        return [a / b for a, b in both if a is not None and b]

    @property
    def unknown(self) -> int:
        """How many runs have found what nobody knows the cost of."""
        return sum(bool(cost.unknown) for cost in self.runs)

    @property
    def uncounted(self) -> list[str]:
        """The parts of choosing that have seconds alone, and more than a few."""
        return list(dict.fromkeys(name for cost in self.runs for name in _left_out(cost)))


def of(
    rows: Sequence[str],
    columns: Mapping[str, Overrides],
    placed: Mapping[tuple[str, Overrides], Sequence[RunFolder]],
) -> Iterator[Costs]:
    """What the runs of each row have cost, and of each of the columns that are other runs', where they know it.

    Args:
        rows: their labels.
        columns: label → the overrides that make its runs.
        placed: (row, those overrides) → its runs.
    """
    grids = {
        overrides: label for label, overrides in reversed(list(columns.items()))
    }  # the first of those with the same
    for row in rows:
        for grid, label in grids.items():
            runs = tuple(run.cost for run in placed.get((row, grid), ()))
            if any(cost.choosing or cost.training for cost in runs):
                yield Costs(row, label if len(grids) > 1 else "", runs)


def total(cost: Cost, unit: Unit) -> float | None:
    """What choosing and training have come to: what is not counted as nothing; None where it is not known."""
    if cost.unknown:
        return None
    trained = 0.0 if cost.training is None else _training(cost, unit)
    return None if trained is None else trained + (_choosing(cost, unit) or 0.0)


def _choosing(cost: Cost, unit: Unit) -> float | None:
    return cost.flops if unit == "flops" else cost.seconds


def _training(cost: Cost, unit: Unit) -> float | None:
    return None if cost.training is None else cost.training.flops if unit == "flops" else cost.training.seconds


def _left_out(cost: Cost) -> list[str]:
    """The parts that are not counted in operations and take more than a few of the seconds of a run that trains."""
    whole = 0.0 if cost.training is None else total(cost, "seconds") or 0.0
    left = (part for part in cost.choosing if part.name in cost.uncounted)
    return [part.name for part in left if whole and (part.seconds or 0) > NEGLIGIBLE * whole]


def unit_of(costs: Iterable[Costs]) -> Unit:
    """What the runs of a table are compared in."""
    runs = [cost for each in costs for cost in each.runs if not cost.unknown]
    counted = all(total(cost, "flops") is not None and not _left_out(cost) for cost in runs)
    return "flops" if runs and counted else "seconds"


def heading(costs: Sequence[Costs]) -> str:
    """The head of the column of shares."""
    return f"choosing / training ({NAMES[unit_of(costs)]})"


def share(costs: Sequence[Costs], row: str) -> str:
    """The row's cost of choosing in shares of training; of several columns from the least to the most."""
    unit = unit_of(costs)
    own = [each for each in costs if each.row == row]
    means = [statistics.mean(found) for each in own if (found := each.shares(unit))]
    if not means:
        trained = any(each.training(unit) for each in own)
        return NOTHING if trained and not any(each.unknown for each in own) else "–"
    texts = list(dict.fromkeys(map(_ratio, (min(means), max(means)))))
    return " to ".join(texts)


def rank(costs: Sequence[Costs], row: str) -> float | str:
    """What rows are sorted by in the column of shares; empty for what is not known."""
    unit = unit_of(costs)
    own = [each for each in costs if each.row == row]
    known = [statistics.mean(found) for each in own if (found := each.shares(unit))]
    return max(known) if known else 0.0 if share(costs, row) == NOTHING else ""


def rows(costs: Sequence[Costs]) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows of a table of what choosing and training cost: mean ± standard error over seeds."""
    prefix = _prefix([value for each in costs for value in each.training("flops") or each.choosing("flops")])
    heads, body = [""], [[f"{each.row}, {each.column}".removesuffix(", ")] for each in costs]
    for unit in UNITS:
        scale = 1000.0 ** PREFIXES.index(prefix) if unit == "flops" else 1.0
        name = f"{prefix}FLOP" if unit == "flops" else "s"
        heads += [f"choosing, {name}", f"training, {name}", f"choosing / training, {NAMES[unit]}"]
        for line, each in zip(body, costs, strict=True):
            for values, by in ((each.choosing(unit), scale), (each.training(unit), scale), (each.shares(unit), 1.0)):
                line.append(_spread([value / by for value in values]))
            if unit == "flops" and not each.unknown and not each.choosing(unit) and each.choosing("seconds"):
                line[1] = "not counted"
    return heads, body


def notes(costs: Sequence[Costs]) -> Iterator[str]:
    """What to know of the costs: what is not counted, and what is not known."""
    uncounted = {each.row: each.uncounted for each in costs if each.uncounted}
    if uncounted:
        listed = "; ".join(f"{row}: {', '.join(names)}" for row, names in uncounted.items())
        yield f"Not counted in FLOPs, so that seconds are compared: {listed}."
    unknown = {each.row: each.unknown for each in costs if each.unknown}
    if unknown:
        runs = sum(each.unknown for each in costs)
        yield (
            f"What choosing cost is not known of {runs} {'run' if runs == 1 else 'runs'} ({', '.join(unknown)}), which "
            "found in the cache what was made before its cost was kept."
        )


def _spread(values: Sequence[float]) -> str:
    """Mean ± standard error, a dash for nothing."""
    if not values:
        return "–"
    mean, error = statistics.mean(values), statistics.standard_error(values)
    return _number(mean) + ("" if math.isnan(error) else f" ± {error:,.{_digits(mean)}f}")


def _ratio(value: float) -> str:
    return "< 0.01" if 0 < value < 0.01 else _number(value)


def _number(value: float) -> str:
    """Three digits that say something, or all before the point."""
    return f"{value:,.{_digits(value)}f}"


def _digits(value: float) -> int:
    """Those behind the point, of which nobody reads more than five."""
    return min(5, max(0, 2 - math.floor(math.log10(abs(value))))) if value else 0


def _prefix(values: Sequence[float]) -> str:
    """What makes the larger of the values numbers below a thousand."""
    most = max(values, default=0.0)
    return PREFIXES[min(len(PREFIXES) - 1, max(0, math.floor(math.log10(most) / 3)))] if most > 1 else ""
