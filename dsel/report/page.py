"""One self-contained HTML page: it works from a file, and asks nothing of the network.

Template, style and script are the files beside this module. Jinja escapes all that comes from runs, and the page's own
policy allows no script but ours and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dsel.record.reader import RunFolder
from dsel.report import costs
from dsel.report.drawing import Drawn
from dsel.report.tables import Cell, Report, Table, show_p, show_pairs
from dsel.report.writers import COSTS, compared_title, fills, legend

HERE = Path(__file__).parent


def render(report: Report, figures: Sequence[Drawn], folder: Path, *, command: str) -> str:
    """The page, for a file in `folder`: links to records are relative to it."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    def link(run: RunFolder) -> str:
        if run.where.startswith(("https://", "http://")):
            return run.where
        return quote(Path(os.path.relpath(Path(run.where).resolve(), folder.resolve())).as_posix())

    def linked(text: Any, run: RunFolder) -> Markup:
        return Markup('<a href="{}" title="{}">{}</a>').format(link(run), f"seed {run.seed}: its record", text)

    def head(table: Table, *, published: bool = False) -> Markup:
        def marks(column: str) -> Markup:
            letters = ",".join(table.marks(column)) if published else ""
            return Markup("<sup>{}</sup>").format(letters) if letters else Markup("")

        names = {"": table.head or "row"} | {column: table.heading(column) for column in table.columns}
        button = Markup('<th scope="col"><button type="button">{}{}</button></th>')
        cells = [button.format(name, marks(column)) for column, name in names.items()]
        if published and table.costs:
            cells.append(button.format(costs.heading(table.costs), ""))
        return Markup("<tr>{}</tr>").format(Markup("").join(cells))

    def only(cell: Cell) -> RunFolder:
        return cell.runs[next(iter(cell.values))]

    def filled_by(table: Table, row: str, column: str) -> int:
        return next(i for i, places in enumerate(table.commands.values(), 1) if (row, column) in places)

    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("page.html").render(
        report=report,
        figures=figures,
        command=command,
        policy=policy,
        script=Markup(script),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        linked=linked,
        head=head,
        only=only,
        filled_by=filled_by,
        legend=legend,
        compared_title=compared_title,
        show_p=show_p,
        show_pairs=show_pairs,
        fills=fills,
        costs=costs,
        costs_title=COSTS,
    )
