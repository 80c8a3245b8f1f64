"""What is written: Markdown that renders, LaTeX that compiles, CSV that reads back."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from dsel.report.document import show
from dsel.report.match import Composer
from dsel.report.page import render
from dsel.report.spec import read
from dsel.report.tables import Report, Table, build
from dsel.report.writers import CSV_COLUMNS, document, latex, markdown, terminal, to_csv
from dsel.show import show_table
from tests.report.conftest import SECTION
from tests.report.made import made_run

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
    shown = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    body = re.search(r"<table>(.*?)</table>", shown, flags=re.DOTALL)
    assert body
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)]


def test_markdown_renders_as_a_table_with_its_marks(table: Table) -> None:
    text = markdown(table)
    assert rendered(text) == [
        ["selector", "accuracy"],
        ["random", "42.0 ± 1.2 (41.0)"],
        ["k-Center", "<strong>45.7 ± 0.9</strong>"],
        ["longest", "– (43.5)"],
        ["kmeans_closest", "30.0"],
    ]
    differences = text.partition("Difference to random")[2]
    assert rendered(differences) == [
        ["selector", "accuracy"],
        ["k-Center", "+3.7 (+8.7 %) [+2.2, +5.1], p = 0.008"],
        ["longest", "–; published +2.5"],
        ["kmeans_closest", "−10.0 (−25.0 %) over 1 common seed"],
    ]
    assert "published (Somebody 2024, Table 1)" in text.replace("\\", "")
    assert "- longest: `python -m dsel.run -m experiments=quickstart selector=longest seed=0,1,2`" in text
    assert "- kmeans\\_closest; seed 1, 2: `" in text


def test_markdown_shows_labels_as_they_are(table: Table) -> None:
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
    assert (best["best"], by_row["random"]["best"]) == ("1", "0")
    assert float(best["test_stderr"]) == pytest.approx(1)
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
    assert "+3.7 (+8.7 %) [+2.2, +5.1], p = 0.008" in text
    assert str(tmp_path / "report.html") in text
    assert notes[0] in text
    styled = Console(file=io.StringIO(), force_terminal=True, width=60)
    with styled.capture() as capture:
        show_table(terminal(table), styled)
    assert "\x1b[1m45.7 ± 0.9\x1b[0m" in capture.get()


def formats(table: Table, folder: Path) -> dict[str, str]:
    """The table in every form there is, as words with single blanks."""
    out = io.StringIO()
    show(Report("Made up", [table]), [folder / "report.html"], Console(file=out, width=300))
    found = {
        "terminal": out.getvalue(),
        "markdown": markdown(table).replace("\\", ""),
        "latex": latex(table),
        "html": html.unescape(render(Report("Made up", [table]), [], folder, command="")),
    }
    return {name: " ".join(text.replace("−", "-").replace("$-$", "-").split()) for name, text in found.items()}


def test_every_form_says_which_interval_it_is_and_what_bold_means(table: Table, tmp_path: Path) -> None:
    for name, text in formats(table, tmp_path).items():
        for words in ("[+2.2, +5.1]", "0.008", "over training seeds, on one test set", "Bold: the best of a column"):
            assert words in text, (name, words)
        assert re.search(r"Student's 95 \\?% t interval", text), name
        assert "Standard error of one run over the examples of the test set" in text, name
        assert "bootstrap" not in text, name


def test_every_form_says_what_stands_beside_something_else(tmp_path: Path) -> None:
    """An average over fewer tasks than the published one, a figure measured otherwise, and several comparisons."""
    composer = Composer(["experiments=wizardlm_main"])
    runs = [
        made_run(
            tmp_path / f"{selector}{seed}", "experiments=wizardlm_main", f"selector={selector}", seed=seed,
            values={"mmlu_chat": 0.4 + 0.01 * i + 0.001 * seed * i, "gsm8k_cot": 0.2},
        )
        for i, selector in enumerate(["random", "kcenter", "longest"])
        for seed in range(3)
    ]  # fmt: skip
    columns = {"MMLU": "mmlu_chat", "GSM8K": "gsm8k_cot", "HumanEval": "humaneval_pass10", "average": "average"}
    section = {
        **SECTION, "columns": columns, "differs": {"mmlu_chat": "in 8 bits"},
        "published": {"random": {"MMLU": 42.4, "GSM8K": 13.3, "HumanEval": 28.5, "average": 28.1}},
    }  # fmt: skip
    table = build(read(section).tables[0], runs, composer)
    for name, text in formats(table, tmp_path).items():
        for words in (
            "MMLU: published in 8 bits.", "27.9", "for the 2 comparisons of a column",
            "Published averages are recomputed over the tasks of the runs: without HumanEval.",
        ):  # fmt: skip
            assert words in text, (name, words)
        assert "28.1" not in text, name
    rows = [row for row in csv.DictReader(io.StringIO(to_csv([table]))) if row["column"] == "average"]
    assert {row["averaged"] for row in rows} == {"mmlu_chat gsm8k_cot"}
    assert {row["published_notes"] for row in rows} == {"MMLU: published in 8 bits."}
    heads = formats(table, tmp_path)
    assert "MMLU <sup>a</sup>" in heads["markdown"] and "MMLU<sup>a</sup>" in heads["html"]
    assert r"MMLU\textsuperscript{a}" in heads["latex"] and "MMLU (a)" in heads["terminal"]


def test_the_document_has_the_notes_and_the_figures(table: Table) -> None:
    from dsel.report.drawing import Drawn

    text = document(Report("A title", [table], notes=["One note."]), [Drawn("map", "The map", "")], command="python")
    assert text.startswith("# A title\n\n- One note.\n\n## Made up\n")
    assert "![The map](figures/map.png)" in text


def test_latex_escapes_what_it_must(table: Table) -> None:
    text = latex(renamed(table, "longest", AWKWARD))
    row = next(line for line in text.splitlines() if line.startswith("a\\textbar"))
    assert row.count(" & ") == 1  # between the cells: the one in the label is escaped
    assert not re.search(r"(?<!\\)[%#_](?!\{)", row.replace(r"\_", ""))
    assert r"\textbf{45.7 $\pm$ 0.9}" in text
    assert r"& 42.0 $\pm$ 1.2 \\" in text
    assert r"\quad 95\,\% $t$ interval & [+2.2, +5.1] \\" in text
    assert r"\quad $p$ & 0.008 \\" in text
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
