"""A whole report: the files it is written to, and what is shown of it in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsel.answer import closer
from dsel.files import write_text
from dsel.report.figures import draw
from dsel.report.page import render
from dsel.report.tables import Report
from dsel.report.writers import COSTS, compared_title, costly, document, fills, latex, legend, terminal, to_csv
from dsel.secrets import redact
from dsel.show import say, show_table, to_terminal

if TYPE_CHECKING:
    from rich.console import Console


def write(report: Report, folder: Path, *, command: str) -> list[Path]:
    """Write the whole report into `folder`; returns the files a reader starts with. command: what made it."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw(report.figures, report.tables, folder / "figures")
    texts = {
        "report.html": render(report, figures, folder, command=command),
        "report.md": document(report, figures, command=command),
        "report.tex": "\n".join(map(latex, report.tables)),
        "report.csv": to_csv(report.tables),
    }
    for name, text in texts.items():
        write_text(folder / name, redact(text))
    return [folder / name for name in texts]


def show(report: Report, files: Sequence[Path], console: Console | None = None) -> None:
    """Print the tables, what is missing, where the files are, and what looks into the runs."""
    console = console or to_terminal()
    for table in report.tables:
        say(table.title, console, style="bold")
        show_table(terminal(table), console)
        for sentence in [*legend(table), *table.notes]:
            say(sentence, console)
        if table.compared:
            say(f"{compared_title(table)}:", console)
            show_table(terminal(table, differences=True), console)
        if table.costs:
            say(f"{COSTS}:", console)
            show_table(costly(table), console)
        if table.commands:
            say("missing runs:", console)
            for fill, places in table.commands.items():
                say(f"  {fill}  # {fills(table, places)}", console)
        say("", console)
    for note in report.notes:
        say(note, console)
    beside = ", ".join(file.name for file in files[1:])
    placed = {id(run): run for table in report.tables for run in table.placed}
    for line in (f"report: {files[0]}, and {beside} beside it", *closer(list(placed.values()))):
        say(line, console)
