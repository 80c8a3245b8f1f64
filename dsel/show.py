"""Tables in a terminal: one look for what a run, a plan, a comparison and a report show.

What is shown may be anybody's text: nothing in it is markup, and nothing in it is obeyed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import rich.table
from rich.console import Console
from rich.text import Text

ANY = 10_000  # columns, where no terminal ends a line

Cell = str | Sequence[tuple[str, str]]
"""Text, or parts of it with a style each (`bold`, `dim`)."""


@dataclass(frozen=True)
class Table:
    """Rows of cells, one that is None between two parts. align: an `l` or `r` for each column, all left without."""

    rows: Sequence[Sequence[Cell] | None]
    title: str = ""
    header: Sequence[str] = ()
    align: str = ""


def to_terminal() -> Console:
    """Where output goes; to a file or a pipe, lines are as long as they are, or as COLUMNS says."""
    console = Console()
    return console if console.is_terminal or os.environ.get("COLUMNS", "").isdigit() else Console(width=ANY)


def show_table(table: Table, console: Console) -> None:
    """Print a table under its title."""
    if table.title:
        say(table.title, console, style="bold")
    console.print(rendered(table))


def say(text: str, console: Console, *, style: str = "") -> None:
    """Print a line as it is, however long."""
    console.print(Text(printable(text), style), soft_wrap=True)


def rendered(table: Table) -> rich.table.Table:
    """The table as rich draws it."""
    out = rich.table.Table(show_header=any(table.header))
    columns = max([len(table.header), *(len(row) for row in table.rows if row is not None)])
    for name, side, _ in zip_longest(table.header, table.align, range(columns)):
        justify = "right" if side == "r" else "left"
        out.add_column(Text(printable(name or "")), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        if row is None:
            out.add_section()
        else:
            out.add_row(*map(_text, row))
    return out


def printable(text: str) -> str:
    """Harmless to a terminal: no escape sequences, no line breaks."""
    return "".join(c if c.isprintable() else " " for c in text)


def plain(cell: Cell) -> str:
    """A cell without its styles."""
    return cell if isinstance(cell, str) else "".join(text for text, _ in cell)


def _text(cell: Cell) -> Text:
    parts = [(cell, "")] if isinstance(cell, str) else cell
    return Text.assemble(*((printable(text), style) for text, style in parts))
