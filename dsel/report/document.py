"""A whole report: the files it is written to, and what is shown of it in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsel.files import write_text
from dsel.report.figures import draw
from dsel.report.page import render
from dsel.report.tables import Report
from dsel.report.writers import compared_title, document, fills, latex, legend, terminal, to_csv
from dsel.secrets import redact

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
    """Print the tables, what is missing, and where the files are."""
    from rich.console import Console

    if console is None:
        console = Console()
        if not console.is_terminal:  # a file or a pipe: lines as long as they are
            console = Console(width=10_000)
    for table in report.tables:
        console.print(table.title, style="bold", markup=False, highlight=False)
        console.print(terminal(table))
        for sentence in [*legend(table), *table.notes]:
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        if table.compared:
            console.print(f"{compared_title(table)}:", markup=False, highlight=False, soft_wrap=True)
            console.print(terminal(table, differences=True))
        if table.commands:
            console.print("missing runs:")
            for fill, places in table.commands.items():
                console.print(f"  {fill}  # {fills(table, places)}", markup=False, highlight=False, soft_wrap=True)
        console.print()
    for note in report.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    beside = ", ".join(file.name for file in files[1:])
    console.print(f"report: {files[0]}, and {beside} beside it", soft_wrap=True, highlight=False)
