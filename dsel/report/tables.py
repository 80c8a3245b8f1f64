"""Tables of an experiment, made of its runs (dsel.report.writers writes them down)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dsel.report import statistics
from dsel.report.match import Composer
from dsel.report.runs import Run
from dsel.report.spec import Column, Overrides, TableSpec, keys
from dsel.report.statistics import Difference, Interval


@dataclass(frozen=True)
class Cell:
    """One figure of a table, in the table's scale (per cent, unless the experiment says otherwise).

    values, runs: by seed. stderr: over seeds, NaN below two. difference: to the baseline's row, None without pairs.
    published, published_difference: of the paper, None where it has none. command: runs the seeds that are `missing`.
    """

    row: str
    column: str
    metric: str
    values: Mapping[int, float]
    runs: Mapping[int, Run]
    missing: tuple[int, ...]
    command: str | None
    mean: float
    stderr: float
    rank: int | None
    difference: Difference | None
    published: float | None
    published_difference: float | None

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass
class Table:
    """Rows and columns of cells; `notes` are sentences that a reader of the table has to know.

    commands: what fills all that is missing, each command with the (row, column) of the cells it fills.
    superseded: runs that another one takes the place of, which is later and has the same configuration and seed.
    """

    title: str
    paper: str
    rows: list[str]
    columns: list[str]
    baseline: str | None
    decimals: int
    metric: str
    row_overrides: Mapping[str, Overrides]
    column_specs: Mapping[str, Column]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    commands: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    superseded: list[Run] = field(default_factory=list)

    @property
    def head(self) -> str:
        """What tells rows apart, where it is one setting."""
        varied = _varied(self.row_overrides.values())
        return varied[0] if len(varied) == 1 else ""

    @property
    def placed(self) -> list[Run]:
        """The runs in the table's cells, each once."""
        return list({id(run): run for cell in self.cells.values() for run in cell.runs.values()}.values())

    @property
    def has_published(self) -> bool:
        return any(cell.published is not None for cell in self.cells.values())

    def show(self, value: float | None, *, sign: bool = False) -> str:
        """A number with the table's decimals; a dash for none."""
        if value is None or math.isnan(value):
            return "–"
        text = signed(value, self.decimals)
        return text if sign else text.removeprefix("+")

    def show_value(self, cell: Cell) -> str:
        """Mean ± standard error, a dash for a missing cell."""
        if not cell.values:
            return "–"
        return self.show(cell.mean) + ("" if math.isnan(cell.stderr) else f" ± {abs(cell.stderr):.{self.decimals}f}")

    def show_interval(self, interval: Interval) -> str:
        return f"[{self.show(interval[0], sign=True)}, {self.show(interval[1], sign=True)}]"

    def show_points(self, cell: Cell) -> str:
        """The difference in points and per cent; a dash without a pair of runs."""
        found = cell.difference
        if found is None:
            return "–"
        percent = "" if math.isnan(found.percent) else f" ({signed(found.percent, 1)} %)"
        return self.show(found.points, sign=True) + percent

    def show_difference(self, cell: Cell) -> str:
        """The difference in points and per cent, and its bootstrap interval; a dash without a pair of runs."""
        found = cell.difference
        known = found is not None and found.pairs > 1
        return self.show_points(cell) + (" " + self.show_interval(found.bootstrap) if found and known else "")

    @property
    def compared(self) -> list[str]:
        """The rows that have a difference to the baseline, own or published."""
        if self.baseline is None:
            return []
        cells = ((row, self.cells[row, column]) for row in self.rows for column in self.columns if row != self.baseline)
        return list({row: None for row, cell in cells if cell.difference or cell.published_difference is not None})


@dataclass
class Report:
    """What is shown of an experiment: its tables, the names of its figures, and notes on all of it."""

    title: str
    tables: list[Table]
    figures: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def signed(value: float, decimals: int) -> str:
    """`value` with its sign; none for what is shown as zero."""
    text = f"{abs(value):.{decimals}f}"
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def build(spec: TableSpec, runs: Sequence[Run], composer: Composer) -> Table:
    """The table of `spec`, from those of `runs` that are in it.

    Rows that the file names come first, filled or not; then those that it does not name but runs have, where they
    differ from the experiment only in what tells rows (or columns) apart. runs: oldest first, and of two in one place
    with the same seed the later counts.
    """
    rows, columns = dict(spec.rows), dict(spec.columns)
    placed: dict[tuple[str, Overrides], dict[int, Run]] = {}
    superseded: list[Run] = []
    for run in runs:
        places = [
            (row, grid)
            for row, overrides in spec.rows.items()
            for grid in {column.overrides for column in spec.columns.values()}
            if composer.matches(run, spec.at + overrides + grid)
        ]
        for place in places or _discover(spec, run, rows, columns, composer):
            own = placed.setdefault(place, {})
            superseded += [own[run.seed]] if run.seed in own else []
            own[run.seed] = run
    table = Table(
        title=spec.title,
        paper=spec.paper,
        rows=list(rows),
        columns=list(columns),
        baseline=spec.baseline,
        decimals=spec.decimals,
        metric=spec.metric,
        row_overrides=rows,
        column_specs=columns,
        superseded=superseded,
    )
    for label, column in columns.items():
        _fill(table, spec, label, column, placed, composer)
    table.commands = _commands(table, spec, composer)
    table.notes = list(_notes(table))
    return table


def _discover(
    spec: TableSpec, run: Run, rows: dict[str, Overrides], columns: dict[str, Column], composer: Composer
) -> list[tuple[str, Overrides]]:
    """The place of a run that is in no cell the file names; adds its row or column. None for a run of another table."""
    coordinates = composer.coordinates(run, spec.at)
    if coordinates is None:
        return []
    by_row, by_column = _varied(spec.rows.values()), _varied(column.overrides for column in spec.columns.values())
    down = tuple(o for o, key in zip(coordinates, keys(coordinates), strict=True) if key in by_row)
    across = tuple(o for o, key in zip(coordinates, keys(coordinates), strict=True) if key in by_column)
    if len(across) + len(down) < len(coordinates) or (across and not all(c.overrides for c in columns.values())):
        return []
    row = next((label for label, own in spec.rows.items() if _only(run, spec.at + own, by_column, composer)), None)
    row = row or next((label for label, own in rows.items() if own == down), None)
    if row is None:
        row = _label(down, by_row, spec.at, composer)
        rows[row] = down
    for column in spec.columns.values():
        if _only(run, spec.at + column.overrides, by_row, composer):
            return [(row, column.overrides)]
    if across not in [column.overrides for column in columns.values()]:
        columns[_label(across, by_column, spec.at, composer)] = Column(spec.metric, across)
    return [(row, across)]


def _only(run: Run, at: Overrides, varied: Sequence[str], composer: Composer) -> bool:
    """Whether what tells `run` from the configuration with `at` is only what `varied` sets."""
    found = composer.coordinates(run, at)
    return found is not None and set(keys(found)) <= set(varied)


def _varied(overrides: Iterable[Overrides]) -> list[str]:
    """What the overrides of rows, or of columns, set."""
    return list(dict.fromkeys(keys([o for parts in overrides for o in parts])))


def _label(overrides: Overrides, varied: Sequence[str], at: Overrides, composer: Composer) -> str:
    """What a row is called that the file has no label for: its setting, or all of them."""
    if not overrides:
        return str(composer.setting(varied[0], at))
    return overrides[0].partition("=")[2] if len(overrides) == 1 else " ".join(overrides)


def _fill(
    table: Table,
    spec: TableSpec,
    label: str,
    column: Column,
    placed: Mapping[tuple[str, Overrides], Mapping[int, Run]],
    composer: Composer,
) -> None:
    """Makes the cells of one column."""
    factor = spec.factor(column.metric)
    runs = {row: placed.get((row, column.overrides), {}) for row in table.rows}
    values = {
        row: {seed: factor * v for seed, run in sorted(own.items()) if (v := run.value(column.metric)) is not None}
        for row, own in runs.items()
    }
    means = [statistics.mean(list(values[row].values())) for row in table.rows]
    better = next((r.higher_is_better(column.metric) for own in runs.values() for r in own.values()), True)
    is_metric = any(column.metric in run.facts["metrics"] for own in runs.values() for run in own.values())
    places: list[int | None] = [None] * len(means)  # other facts, such as the silhouette, are no better or worse
    if is_metric:
        places = statistics.ranks(means, higher_is_better=better, decimals=spec.decimals)
    base = {} if spec.baseline is None else values[spec.baseline]
    figures = {row: spec.published.get(row, {}).get(label) for row in table.rows}
    below = None if spec.baseline is None else figures[spec.baseline]
    for row, mean, place in zip(table.rows, means, places, strict=True):
        compared = spec.baseline is not None and row != spec.baseline
        missing = tuple(seed for seed in spec.seeds if seed not in runs[row])
        overrides = spec.at + table.row_overrides[row] + column.overrides
        published = figures[row]
        table.cells[row, label] = Cell(
            row=row,
            column=label,
            metric=column.metric,
            values=values[row],
            runs=dict(sorted(runs[row].items())),
            missing=missing,
            command=composer.command(overrides, missing) if missing else None,
            mean=mean,
            stderr=statistics.standard_error(list(values[row].values())),
            rank=place,
            difference=statistics.difference(values[row], base) if compared else None,
            published=published,
            published_difference=None if published is None or below is None or not compared else published - below,
        )


def _commands(table: Table, spec: TableSpec, composer: Composer) -> dict[str, list[tuple[str, str]]]:
    """The commands that fill what is missing. Rows that differ in one setting share a multirun over its values."""
    found: dict[tuple[Overrides, Overrides, tuple[int, ...], str], dict[str, list[tuple[str, str]]]] = {}
    for (row, column), cell in table.cells.items():
        if cell.missing:
            down, across = table.row_overrides[row], table.column_specs[column].overrides
            key, _, value = down[0].partition("=") if len(down) == 1 else ("", "", "")
            one = re.fullmatch(r"[\w.-]+", value) is not None
            place = found.setdefault((() if one else down, across, cell.missing, key if one else ""), {})
            place.setdefault(value if one else "", []).append((row, column))
    commands = {}
    for (down, across, missing, key), values in found.items():
        swept = (f"{key}={','.join(values)}",) if key else down
        command = composer.command(spec.at + swept + across, missing, multirun=len(values) > 1)
        commands[command] = [place for places in values.values() for place in places]
    return commands


def _notes(table: Table) -> Iterator[str]:
    for label in table.columns:
        cells = [table.cells[row, label] for row in table.rows]
        without = [cell.row for cell in cells if not cell.values and not cell.missing]
        if without:
            yield f"{label} was not measured by the runs of {', '.join(without)}."
    metrics = {label: column.metric for label, column in table.column_specs.items() if not column.overrides}
    if "average" in metrics.values():
        tasks = [label for label, metric in metrics.items() if metric != "average" and "." not in metric]
        averaged = [run for run in table.placed if run.value("average") is not None]
        left = [label for label in tasks if any(run.value(metrics[label]) is None for run in averaged)]
        if left:
            yield f"The average of some runs is over fewer tasks than there are columns: without {', '.join(left)}."
    if {cell.n for cell in table.cells.values() if cell.n} == {1}:
        yield "One seed: there is no standard error and no interval."
