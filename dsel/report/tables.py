"""Tables of an experiment, made of its runs (dsel.report.writers writes them down)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dsel.record.reader import RunFolder
from dsel.report import costs, statistics
from dsel.report.comparable import AVERAGE, Average, Settings, other_pools, otherwise, settings
from dsel.report.contaminated import MARK, contaminated
from dsel.report.costs import Costs
from dsel.report.match import Composer
from dsel.report.shown import Shown, shown, signed
from dsel.report.spec import Column, Overrides, TableSpec, keys
from dsel.report.statistics import Difference


@dataclass(frozen=True)
class Cell:
    """One figure of a table, in the scale of its column (`dsel.report.shown`).

    values, runs: by seed. stderr: over seeds, NaN below two; test_stderr: over the examples of the test set, of a run.
    best: whether it is the best of its column or not told from it; rank: by the mean alone. difference: to the
    baseline's row, None without pairs. published, published_difference: of the paper, None where it has none that may
    stand beside these. command: runs the seeds that are `missing`.
    """

    row: str
    column: str
    metric: str
    values: Mapping[int, float]
    runs: Mapping[int, RunFolder]
    missing: tuple[int, ...]
    command: str | None
    mean: float
    stderr: float
    test_stderr: float
    rank: int | None
    best: bool
    difference: Difference | None
    published: float | None
    published_difference: float | None

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def contaminated(self) -> bool:
        """Whether one of its runs was trained on what is evaluated on."""
        return any(run.contaminated for run in self.runs.values())


@dataclass(frozen=True)
class Footnote:
    """In what the published figures of some columns are measured otherwise; `mark` stands at these columns' heads."""

    mark: str
    text: str
    columns: tuple[str, ...]


@dataclass
class Table:
    """Rows and columns of cells; `notes` are sentences that a reader of the table has to know.

    shown: how the figures of each column are shown. footnotes: in what published figures are measured otherwise.
    average: what the averages are over, if there are any. commands: what fills all that is missing, each command with
    the (row, column) of the cells it fills. superseded: runs that another one takes the place of, which is later and
    has the same configuration and seed. costs: of the rows whose runs know them.
    """

    title: str
    paper: str
    rows: list[str]
    columns: list[str]
    baseline: str | None
    metric: str
    row_overrides: Mapping[str, Overrides]
    column_specs: Mapping[str, Column]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    footnotes: list[Footnote] = field(default_factory=list)
    average: Average | None = None
    commands: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    superseded: list[RunFolder] = field(default_factory=list)
    costs: list[Costs] = field(default_factory=list)

    @property
    def head(self) -> str:
        """What tells rows apart, where it is one setting."""
        varied = _varied(self.row_overrides.values())
        return varied[0] if len(varied) == 1 else ""

    @property
    def placed(self) -> list[RunFolder]:
        """The runs in the table's cells, each once."""
        return list({id(run): run for cell in self.cells.values() for run in cell.runs.values()}.values())

    @property
    def has_published(self) -> bool:
        return any(cell.published is not None for cell in self.cells.values())

    def show(self, value: float | None, column: str = "", *, sign: bool = False) -> str:
        """A number with the decimals of its column; a dash for none."""
        return self.shown.get(column, Shown()).number(value, sign=sign)

    def show_value(self, cell: Cell) -> str:
        """Mean ± standard error, a dash for a missing cell."""
        if not cell.values:
            return "–"
        error = "" if math.isnan(cell.stderr) else f" ± {self.show(cell.stderr, cell.column)}"
        return self.show(cell.mean, cell.column) + error + (f" {MARK}" if cell.contaminated else "")

    def heading(self, column: str) -> str:
        """A column's label, with a mark where lower is better."""
        return column + self.shown[column].mark

    def marks(self, column: str) -> list[str]:
        """The letters of the footnotes on a column's published figures."""
        return [note.mark for note in self.footnotes if column in note.columns]

    @property
    def comparisons(self) -> int:
        """How many rows of a column are compared with the baseline, over two seeds or more; the most of a column."""
        gaps = [[self.cells[row, column].difference for row in self.rows] for column in self.columns]
        return max((sum(gap is not None and not math.isnan(gap.p) for gap in column) for column in gaps), default=0)

    def show_interval(self, cell: Cell) -> str:
        """Student's interval of the difference; a dash where there is none."""
        gap = cell.difference
        if gap is None or math.isnan(gap.p):
            return "–"
        low, high = (self.show(end, cell.column, sign=True) for end in gap.interval)
        return f"[{low}, {high}]"

    def show_points(self, cell: Cell) -> str:
        """The difference in the column's unit and per cent; a dash without a pair of runs."""
        found = cell.difference
        if found is None:
            return "–"
        percent = "" if math.isnan(found.percent) else f" ({signed(found.percent, 1)} %)"
        return self.show(found.points, cell.column, sign=True) + percent

    def show_difference(self, cell: Cell) -> str:
        """The difference in the column's unit and per cent, its interval and adjusted p; a dash without a pair."""
        gap = cell.difference
        parts = [self.show_points(cell)]
        if gap and not math.isnan(gap.p):
            parts.append(f"{self.show_interval(cell)}, {show_p(gap)}")
        elif gap and gap.pairs > 1:
            parts.append(f"with each of {gap.pairs} seeds: no interval")
        if gap and gap.unpaired:
            parts.append(f"over {show_pairs(gap)}")
        return " ".join(parts)

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


def show_p(gap: Difference) -> str:
    """The adjusted p of a difference."""
    return "p < 0.001" if gap.adjusted < 0.001 else f"p = {gap.adjusted:.3f}"


def show_pairs(gap: Difference) -> str:
    return f"{gap.pairs} common seed" if gap.pairs == 1 else f"{gap.pairs} common seeds"


def build(spec: TableSpec, runs: Sequence[RunFolder], composer: Composer) -> Table:
    """The table of `spec`, from those of `runs` that are in it.

    Rows that the file names come first, filled or not; then those that it does not name but runs have, where they
    differ from the experiment only in what tells rows (or columns) apart. runs: oldest first, and of two in one place
    with the same seed the later counts.
    """
    rows, columns = dict(spec.rows), dict(spec.columns)
    placed: dict[tuple[str, Overrides], dict[int, RunFolder]] = {}
    superseded: list[RunFolder] = []
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
        metric=spec.metric,
        row_overrides=rows,
        column_specs=columns,
        superseded=superseded,
    )
    measured = settings(composer.evaluator) if spec.published else {}
    if any(column.metric == AVERAGE for column in columns.values()):
        ours = [run for own in placed.values() for run in own.values()]
        table.average = Average.of(ours, _published_tasks(spec) or measured)
    for label, column in columns.items():
        _fill(table, spec, label, column, placed, composer)
    grids = {label: column.overrides for label, column in columns.items()}
    table.costs = list(costs.of(table.rows, grids, {place: list(own.values()) for place, own in placed.items()}))
    table.commands = _commands(table, spec, composer)
    table.footnotes = list(_footnotes(table, spec, measured))
    table.notes = list(_notes(table, spec))
    return table


def _published_tasks(spec: TableSpec) -> list[str]:
    """The metrics of which the table has published figures, beside averages and numbers of other kinds."""
    labels = {label for figures in spec.published.values() for label in figures}
    metrics = [column.metric for label, column in spec.columns.items() if label in labels and not column.overrides]
    return [metric for metric in metrics if metric != AVERAGE and "." not in metric]


def _discover(
    spec: TableSpec, run: RunFolder, rows: dict[str, Overrides], columns: dict[str, Column], composer: Composer
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


def _only(run: RunFolder, at: Overrides, varied: Sequence[str], composer: Composer) -> bool:
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
    placed: Mapping[tuple[str, Overrides], Mapping[int, RunFolder]],
    composer: Composer,
) -> None:
    """Makes the cells of one column."""
    runs = {row: placed.get((row, column.overrides), {}) for row in table.rows}
    average = table.average if column.metric == AVERAGE else None
    looks = shown(spec, column.metric, [run for own in runs.values() for run in own.values()])
    table.shown[label], factor = looks, looks.factor

    def value(run: RunFolder) -> float | None:
        return average.value(run) if average else run.value(column.metric)

    values = {
        row: {seed: factor * v for seed, run in sorted(own.items()) if (v := value(run)) is not None}
        for row, own in runs.items()
    }
    means = [statistics.mean(list(values[row].values())) for row in table.rows]
    ranks: list[int | None] = [None] * len(means)  # other facts, such as the silhouette, are no better or worse
    best = [False] * len(means)
    if looks.higher_is_better is not None:
        ranks = statistics.ranks(means, higher_is_better=looks.higher_is_better, decimals=looks.decimals)
        best = statistics.inseparable(list(values.values()), higher_is_better=looks.higher_is_better)
    base = {} if spec.baseline is None else values[spec.baseline]
    gaps = statistics.differences([{} if row == spec.baseline else values[row] for row in table.rows], base)
    figures = {row: _figure(spec, row, label, average) for row in table.rows}
    below = None if spec.baseline is None else figures[spec.baseline]
    for i, row in enumerate(table.rows):
        missing = tuple(seed for seed in spec.seeds if seed not in runs[row])
        overrides = spec.at + table.row_overrides[row] + column.overrides
        errors = [factor * e for run in runs[row].values() if (e := run.test_error(column.metric)) is not None]
        published = figures[row]
        apart = None if published is None or below is None or row == spec.baseline else published - below
        table.cells[row, label] = Cell(
            row=row,
            column=label,
            metric=column.metric,
            values=values[row],
            runs=dict(sorted(runs[row].items())),
            missing=missing,
            command=composer.command(overrides, missing) if missing else None,
            mean=means[i],
            stderr=statistics.standard_error(list(values[row].values())),
            test_stderr=math.nan if average and average.left_out else statistics.mean(errors),
            rank=ranks[i],
            best=best[i],
            difference=gaps[i],
            published=published,
            published_difference=apart,
        )


def _figure(spec: TableSpec, row: str, label: str, average: Average | None) -> float | None:
    """The published figure of a cell, an average over the tasks that the runs' is over."""
    figures = spec.published.get(row, {})
    if average is None:
        return figures.get(label)
    tasks = {spec.columns[name].metric: figure for name, figure in figures.items() if not spec.columns[name].overrides}
    return average.figure(figures.get(label), tasks)


def _footnotes(table: Table, spec: TableSpec, measured: Settings) -> Iterator[Footnote]:
    """What is otherwise with published figures: by the experiment's file, and by what the runs say of themselves."""
    figures = [
        label for label in table.columns if any(table.cells[row, label].published is not None for row in table.rows)
    ]
    averages = [label for label in figures if table.column_specs[label].metric == AVERAGE]
    names = _task_names(table)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for task in dict.fromkeys([*names, *measured]):
        columns = [label for label in figures if table.column_specs[label].metric == task]
        in_average = table.average is not None and task in (table.average.tasks or table.average.published)
        columns += averages if in_average else []
        here = otherwise(task, table.placed, measured)
        texts = [f"published {spec.differs[task]}"] if task in spec.differs else []
        texts += [f"measured here with {here}"] if here else []
        if texts and columns and (letter := next(letters, "")):
            yield Footnote(letter, f"{names.get(task, task)}: {'; '.join(texts)}.", tuple(columns))


def _task_names(table: Table) -> dict[str, str]:
    """What the tasks are called that have a column, by their metrics."""
    columns = {column.metric: label for label, column in table.column_specs.items() if not column.overrides}
    return {metric: label for metric, label in columns.items() if metric != AVERAGE and "." not in metric}


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


def _notes(table: Table, spec: TableSpec) -> Iterator[str]:
    told_apart = [*_varied(table.row_overrides.values()), *_varied(c.overrides for c in table.column_specs.values())]
    runs = {row: _runs_of_row(table, row) for row in table.rows}
    yield from other_pools(runs, told_apart)
    yield from costs.notes(table.costs)
    yield from contaminated(runs)
    for label in table.columns:
        cells = [table.cells[row, label] for row in table.rows]
        without = [cell.row for cell in cells if cell.runs and not cell.values]
        if without:
            yield f"{label} was not measured by the runs of {', '.join(without)}."
    if table.average:
        labels = [label for label, column in table.column_specs.items() if column.metric == AVERAGE]
        given = [figures.get(label) for figures in spec.published.values() for label in labels]
        shown = [table.cells[row, label].published for row in spec.published for label in labels]
        yield from table.average.notes(_task_names(table), given=given, shown=shown)
    if {cell.n for cell in table.cells.values() if cell.n} == {1}:
        yield "One seed: there is no standard error and no interval, and the best cannot be told from the others."
    errors = {label: statistics.mean(_test_errors(table, label)) for label in table.columns}
    known = [f"{label} {table.show(error, label)}" for label, error in errors.items() if not math.isnan(error)]
    if known:
        yield f"Standard error of one run over the examples of the test set, which ± leaves out: {', '.join(known)}."


def _runs_of_row(table: Table, row: str) -> list[RunFolder]:
    return list({id(r): r for c in table.columns for r in table.cells[row, c].runs.values()}.values())


def _test_errors(table: Table, label: str) -> list[float]:
    cells = (table.cells[row, label] for row in table.rows)
    return [cell.test_stderr for cell in cells if not math.isnan(cell.test_stderr)]
