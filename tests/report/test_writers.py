"""What is written: Markdown that renders, LaTeX that compiles, CSV that reads back."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from dsel.report.tables import Report, Table
from dsel.report.writers import CSV_COLUMNS, document, latex, markdown, show, terminal, to_csv

AWKWARD = r"a|b <script>alert(1)</script> & 50 % of_{x}^2 \n ~ #1 $y$ *z* `q` [l](u)"


def renamed(table: Table, old: str, new: str) -> Table:
    """`table` with another label for a row."""

    def name(row: str) -> str:
        return new if row == old else row

    return dataclasses.replace(
        table,
        rows=[name(row) for row in table.rows],
        cells={(name(r), c): dataclasses.replace(cell, row=name(r)) for (r, c), cell in table.cells.items()},
        row_overrides={name(row): overrides for row, overrides in table.row_overrides.items()},
        commands={command: [(name(r), c) for r, c in places] for command, places in table.commands.items()},
    )


def rendered(text: str) -> list[list[str]]:
    """The rows of the first table in the HTML that GitHub's dialect of Markdown gives."""
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    body = re.search(r"<table>(.*?)</table>", html, flags=re.DOTALL)
    assert body
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)]


def test_markdown_renders_as_a_table_with_its_marks(table: Table) -> None:
    text = markdown(table)
    assert rendered(text) == [
        ["selector", "accuracy"],
        ["random", "<ins>42.0 ± 1.2</ins> (41.0)"],
        ["k-Center", "<strong>45.7 ± 0.9</strong>"],
        ["longest", "– (43.5)"],
        ["kmeans_closest", "30.0"],
    ]
    differences = text.partition("Difference to random")[2]
    assert rendered(differences) == [
        ["selector", "accuracy"],
        ["k-Center", "+3.7 (+8.7 %) [+3.0, +4.0]"],
        ["longest", "– (+2.5)"],
        ["kmeans_closest", "−10.0 (−25.0 %)"],
    ]
    assert "published (Somebody 2024, Table 1)" in text.replace("\\", "")
    assert "- longest: `python -m dsel.run -m experiments=quickstart selector=longest seed=0,1,2`" in text
    assert "- kmeans\\_closest; seed 1, 2: `" in text


def test_markdown_shows_labels_as_they_are(table: Table) -> None:
    import html

    rows = rendered(markdown(renamed(table, "longest", AWKWARD)))
    assert html.unescape(rows[3][0]) == AWKWARD
    assert "<script" not in rows[3][0]


def test_csv_has_every_cell_with_all_digits(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([table]))))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert [(row["row"], row["column"]) for row in rows] == list(table.cells)
    by_row = {row["row"]: row for row in rows}
    best, missing = by_row["k-Center"], by_row["longest"]
    assert float(best["mean"]) == table.cells["k-Center", "accuracy"].mean
    assert (best["rank"], best["seeds"], best["n"], best["pairs"]) == ("1", "0 1 2", "3", "3")
    assert float(best["bootstrap_low"]) == pytest.approx(3)
    assert float(best["t_low"]) == pytest.approx(11 / 3 - 4.302653 * (1 / 3))
    assert all(Path(where).is_file() for where in best["runs"].split())
    assert (missing["mean"], missing["stderr"], missing["difference"], missing["published"]) == ("", "", "", "43.5")
    assert missing["command"] == table.cells["longest", "accuracy"].command


def test_the_terminal_shows_all_of_it(table: Table, tmp_path: Path) -> None:
    out = io.StringIO()
    notes = ["Made of 7 finished runs."]
    report = Report("Made up", [table], notes=notes)
    show(report, [tmp_path / "report.html", tmp_path / "report.md"], Console(file=out, width=100))
    text = out.getvalue()
    assert "45.7 ± 0.9" in text
    assert "python -m dsel.run -m experiments=quickstart selector=longest seed=0,1,2" in text
    assert "+3.7 (+8.7 %) [+3.0, +4.0]" in text
    assert str(tmp_path / "report.html") in text
    assert notes[0] in text
    styled = Console(file=io.StringIO(), force_terminal=True, width=60)
    with styled.capture() as capture:
        styled.print(terminal(table))
    assert "\x1b[1m45.7 ± 0.9\x1b[0m" in capture.get()


def test_the_document_has_the_notes_and_the_figures(table: Table) -> None:
    from dsel.report.figures import Drawn

    text = document(Report("A title", [table], notes=["One note."]), [Drawn("map", "The map", "")], command="python")
    assert text.startswith("# A title\n\n- One note.\n\n## Made up\n")
    assert "![The map](figures/map.png)" in text


def test_latex_escapes_what_it_must(table: Table) -> None:
    text = latex(renamed(table, "longest", AWKWARD))
    row = next(line for line in text.splitlines() if line.startswith("a\\textbar"))
    assert row.count(" & ") == 1  # between the cells: the one in the label is escaped
    assert not re.search(r"(?<!\\)[%#_](?!\{)", row.replace(r"\_", ""))
    assert r"\textbf{45.7 $\pm$ 0.9}" in text
    assert r"\underline{42.0 $\pm$ 1.2}" in text
    assert r"\quad published & 41.0" in text
    assert "% missing: kmeans_closest; seed 1, 2: python -m dsel.run" in text


@pytest.mark.skipif(not (shutil.which("pdflatex") or shutil.which("tectonic")), reason="needs pdflatex or tectonic")
def test_latex_compiles_with_booktabs(table: Table, tmp_path: Path) -> None:
    (tmp_path / "report.tex").write_text(
        "\n".join([latex(table), latex(renamed(table, "longest", AWKWARD))]), encoding="utf-8"
    )
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs}\n"
        "\\begin{document}\n\\input{report}\n\\end{document}\n"
    )
    engine = "pdflatex" if shutil.which("pdflatex") else "tectonic"
    options = ["-interaction=nonstopmode", "-halt-on-error"] if engine == "pdflatex" else []
    done = subprocess.run([engine, *options, "main.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 10_000
    assert "Missing character" not in done.stdout
