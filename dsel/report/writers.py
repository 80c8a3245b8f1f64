"""Tables written down: GitHub Markdown, LaTeX for booktabs, CSV, and for a terminal."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from dsel import show
from dsel.evaluator.units import SHARE
from dsel.report import costs, shown
from dsel.report.comparable import AVERAGE
from dsel.report.statistics import NOTHING, Difference, mean
from dsel.report.tables import Cell, Report, Table, show_p

if TYPE_CHECKING:
    from dsel.report.drawing import Drawn

MARKS = (
    "Mean ± standard error over training seeds, on one test set. Bold: the best of a column and all that are not told "
    "from it, over the seeds that both have, by a paired t-test at 5 % (Holm-adjusted for the rows of the column)."
)
COSTS = "What choosing and training cost, mean ± standard error over seeds"
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "·": r"$\cdot$", "±": r"$\pm$", "–": "--", "−": "$-$", "×": r"$\times$", "≤": r"$\leq$",
    "…": r"\dots{}", "≈": r"$\approx$", "↓": r"$\downarrow$", "†": r"$\dagger$",
}  # fmt: skip


def document(report: Report, figures: Sequence[Drawn], *, command: str) -> str:
    """The whole report as GitHub Markdown."""
    parts = [f"# {_md(report.title)}", "\n".join(f"- {_md(note)}" for note in report.notes)]
    for table in report.tables:
        heading = [] if table.title in ("", report.title) else [f"## {_md(table.title)}"]
        parts += [*heading, markdown(table).rstrip()]
    if figures:
        parts.append("## Figures")
        parts += [f"![{_md(f.caption)}](figures/{f.name}.png)\n\n{_md(f.caption)}" for f in figures]
    parts.append(f"Made by {_code(command)}")
    return "\n\n".join(parts) + "\n"


def markdown(table: Table) -> str:
    """The table as GitHub Markdown: values, then differences to the baseline, then what is missing."""
    heads = [_md(table.head), *(_md(table.heading(name)) + _md_marks(table, name) for name in table.columns)]
    rows = [[_md(row), *(_md_cell(table, table.cells[row, c]) for c in table.columns)] for row in table.rows]
    if table.costs:
        heads.append(_md(costs.heading(table.costs)))
        rows = [[*line, _md(costs.share(table.costs, row))] for row, line in zip(table.rows, rows, strict=True)]
    parts = [_pipes([heads, *rows]), _md(" ".join(legend(table))), *(_md(note) for note in table.notes)]
    if table.compared:
        heads = [_md(name) for name in [table.head, *table.columns]]
        rows = [
            [_md(row), *(_md(compared(table, table.cells[row, c])) for c in table.columns)] for row in table.compared
        ]
        parts += [f"{_md(compared_title(table))}:", _pipes([heads, *rows])]
    if table.costs:
        found = costs.rows(table.costs)
        parts += [f"{COSTS}:", _pipes([[*map(_md, line)] for line in (found[0], *found[1])]), _md(costs.LEGEND)]
    if table.commands:
        lines = [f"- {_md(fills(table, places))}: {_code(command)}" for command, places in table.commands.items()]
        parts.append("Missing runs:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def terminal(table: Table, *, differences: bool = False) -> show.Table:
    """The table for a terminal: its values, or its differences to the baseline."""
    heads, rows = [table.head], []
    for column in table.columns:
        marks = "" if differences else "".join(f" ({mark})" for mark in table.marks(column))
        heads.append(table.heading(column) + marks)
    if table.costs and not differences:
        heads.append(costs.heading(table.costs))
    for row in table.compared if differences else table.rows:
        cells = [table.cells[row, column] for column in table.columns]
        texts: list[show.Cell] = [compared(table, cell) for cell in cells]
        if not differences:
            texts = [
                [(table.show_value(cell), "bold" if cell.best else ""), (_published(table, cell), "dim")]
                for cell in cells
            ]
            texts += [costs.share(table.costs, row)] if table.costs else []
        rows.append([row, *texts])
    return show.Table(rows, header=heads, align="l" + "r" * (len(heads) - 1))


def costly(table: Table) -> show.Table:
    """What choosing and training have cost, for a terminal."""
    heads, rows = costs.rows(table.costs)
    return show.Table([[*row] for row in rows], header=heads, align="l" + "r" * (len(heads) - 1))


def legend(table: Table) -> Iterator[str]:
    """What the numbers and marks in the table mean."""
    yield MARKS
    if table.has_published:
        yield f"In brackets: published{f' ({table.paper})' if table.paper else ''}."
    yield from shown.legend(table.shown)
    yield from (f"({note.mark}) {note.text}" for note in table.footnotes)


def compared_title(table: Table) -> str:
    """What is shown of the differences: only what some of them have."""
    number = table.comparisons
    units = dict.fromkeys(table.shown[column].counted_in for column in table.columns)
    parts = [f"{' or '.join(units)}, per cent"]
    if number:
        several = "" if number == 1 else f", Holm-adjusted for the {number} comparisons of a column"
        parts += ["Student's 95 % t interval of each alone", f"and p of a paired t-test{several}"]
    return f"Difference to {table.baseline}, over the seeds that both have: {', '.join(parts)}"


def compared(table: Table, cell: Cell) -> str:
    """The cell's difference to the baseline, and the published one."""
    published = cell.published_difference
    theirs = "" if published is None else f"; published {table.show(published, cell.column, sign=True)}"
    return table.show_difference(cell) + theirs


def fills(table: Table, places: Sequence[tuple[str, str]]) -> str:
    """What a command fills: rows, with the columns where it does not fill all, and seeds where some are there."""
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    cell = table.cells[places[0]]
    parts = [", ".join(rows)]
    if len(columns) < len(table.columns):
        parts.append(", ".join(columns))
    if cell.runs:
        parts.append(f"seed {', '.join(map(str, cell.missing))}")
    return "; ".join(parts)


def latex(table: Table) -> str:
    """The table as a LaTeX `table` for the package booktabs, to be `\\input`.

    The published figures and the differences are in lines of their own, so that a page is wide enough. Commands that
    fill what is missing are in comments.
    """
    width = len(table.columns) + 1 + bool(table.costs)
    lines = [f"% missing: {_line(fills(table, places))}: {_line(c)}" for c, places in table.commands.items()]
    small = [r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"] if width > 6 else [r"\footnotesize"]
    lines += [r"\begin{table}", r"\centering", *small]
    caption = [
        f"{table.title}.",
        *legend(table),
        *([f"{compared_title(table)}."] if table.compared else []),
        *([costs.LEGEND] if table.costs else []),
        *table.notes,
    ]
    lines += [rf"\caption{{{_tex(' '.join(caption)).replace('In brackets: p', 'P', 1)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule"]
    heads = [_tex(table.heading(name)) + _tex_marks(table.marks(name)) for name in table.columns]
    heads += [_tex(costs.heading(table.costs))] if table.costs else []
    lines += [_tex_row([_tex(table.head), *heads]), r"\midrule"]
    for row in table.rows:
        cells = [table.cells[row, column] for column in table.columns]
        spent = [_tex(costs.share(table.costs, row))] if table.costs else []
        lines.append(_tex_row([_tex(row), *(_tex_value(table, cell) for cell in cells), *spent]))
        if any(cell.published is not None for cell in cells):
            lines.append(
                _tex_row([r"\quad published", *(_tex(table.show(cell.published, cell.column)) for cell in cells)])
            )
    if table.compared:
        lines += [
            r"\midrule",
            rf"\multicolumn{{{width}}}{{l}}{{\emph{{Difference to {_tex(str(table.baseline))}}}}} \\",
        ]
    for row in table.compared:
        cells = [table.cells[row, column] for column in table.columns]
        lines.append(_tex_row([_tex(row), *(_tex(table.show_points(cell)) for cell in cells)]))
        gaps = [cell.difference for cell in cells]
        known = [gap if gap and not math.isnan(gap.p) else None for gap in gaps]
        if any(known):
            intervals = [_tex(table.show_interval(cell)) for cell in cells]
            ps = [_tex(show_p(gap).removeprefix("p ").removeprefix("= ") if gap else "–") for gap in known]
            lines += [_tex_row([r"\quad 95\,\% $t$ interval", *intervals]), _tex_row([r"\quad $p$", *ps])]
        if any(gap and gap.unpaired for gap in gaps):
            lines.append(_tex_row([r"\quad common seeds", *(str(gap.pairs) if gap else "--" for gap in gaps)]))
        if any(cell.published_difference is not None for cell in cells):
            theirs = (_tex(table.show(cell.published_difference, cell.column, sign=True)) for cell in cells)
            lines.append(_tex_row([r"\quad published", *theirs]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


NO_DIFFERENCE = Difference(math.nan, math.nan, NOTHING, pairs=0, unpaired=0, p=math.nan)
CSV_COLUMNS = (
    "table row column metric unit higher_is_better mean stderr test_stderr n seeds rank best difference "
    "difference_percent t_low t_high p p_holm pairs unpaired published published_difference published_notes averaged "
    "missing_seeds command runs choosing_flops choosing_seconds training_flops training_seconds cost_unknown"
).split()


def rows_of_csv(table: Table) -> Iterator[dict[str, object]]:
    """A row for each cell, with all digits; what there is no value for is empty."""
    for cell in table.cells.values():
        gap = cell.difference or NO_DIFFERENCE
        looks, averages = table.shown[cell.column], table.average if cell.metric == AVERAGE else None
        yield {
            "table": table.title,
            "row": _cell(cell.row),
            "column": _cell(cell.column),
            "metric": cell.metric,
            "unit": "%" if looks.unit == SHARE else looks.unit,
            "higher_is_better": looks.higher_is_better,
            "mean": _number(cell.mean),
            "stderr": _number(cell.stderr),
            "test_stderr": _number(cell.test_stderr),
            "n": cell.n,
            "seeds": " ".join(map(str, cell.values)),
            "rank": cell.rank,
            "best": int(cell.best),
            "difference": _number(gap.points),
            "difference_percent": _number(gap.percent),
            "t_low": _number(gap.interval[0]),
            "t_high": _number(gap.interval[1]),
            "p": _number(gap.p),
            "p_holm": _number(gap.adjusted),
            "pairs": gap.pairs,
            "unpaired": gap.unpaired,
            "published": cell.published,
            "published_difference": _number(cell.published_difference),
            "published_notes": " ".join(note.text for note in table.footnotes if cell.column in note.columns),
            "averaged": " ".join((averages.tasks if averages else None) or ()),
            "missing_seeds": " ".join(map(str, cell.missing)),
            "command": cell.command,
            "runs": _cell(" ".join(run.where for run in cell.runs.values())),
            **_spent(cell),
        }


def _spent(cell: Cell) -> dict[str, object]:
    """The means over the cell's runs of what choosing and training have cost."""
    own = costs.Costs(cell.row, cell.column, tuple(run.cost for run in cell.runs.values()))
    means: dict[str, object] = {"cost_unknown": own.unknown}
    for unit in costs.UNITS:
        means[f"choosing_{unit}"] = _number(mean(own.choosing(unit)))
        means[f"training_{unit}"] = _number(mean(own.training(unit)))
    return means


def to_csv(tables: Sequence[Table]) -> str:
    """All cells of all tables, in long form (see `CSV_COLUMNS`)."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        writer.writerows(rows_of_csv(table))
    return file.getvalue()


def _published(table: Table, cell: Cell) -> str:
    return "" if cell.published is None else f" ({table.show(cell.published, cell.column)})"


def _md_cell(table: Table, cell: Cell) -> str:
    text = table.show_value(cell)
    return (f"**{text}**" if cell.best else text) + _published(table, cell)


def _md_marks(table: Table, column: str) -> str:
    marks = ",".join(table.marks(column))
    return f" <sup>{marks}</sup>" if marks else ""


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    """Rows between pipes, the first as head; columns padded to one width, all but the first to the right."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [t.ljust(w) if i == 0 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def _md(text: str) -> str:
    """`text` on one line, with what Markdown or HTML would read as markup escaped."""
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", _line(text).replace("&", "&amp;"))


def _code(text: str) -> str:
    """`text` as code of Markdown, whatever backticks there are in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{_line(text)}{fence}" if fence == "`" else f"{fence} {_line(text)} {fence}"


def _tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in _line(text))


def _line(text: str) -> str:
    return " ".join(text.split())


def _tex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_value(table: Table, cell: Cell) -> str:
    text = _tex(table.show_value(cell))
    return rf"\textbf{{{text}}}" if cell.best else text


def _tex_marks(marks: Sequence[str]) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""


def _cell(text: str) -> str:
    """`text` for a spreadsheet, which takes what starts with such a character for a formula."""
    return f"'{text}" if re.match(r"[=+@\t\r]|-(?![\d.]+$)", text) else text


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
