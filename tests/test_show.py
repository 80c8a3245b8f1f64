"""Tables in a terminal, whatever is in them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dsel.show import Table, plain, say, show_table, to_terminal


def shown(table: Table, width: int = 60) -> list[str]:
    out = io.StringIO()
    show_table(table, Console(file=out, width=width))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_cells_parts_and_titles_are_there() -> None:
    parts = [("2", "bold"), (" (3)", "dim")]
    table = Table([("a", "1"), None, ("b", parts, "more")], "title", ("x", "y"), "lr")
    title, _, head, _, first, _, second, _ = shown(table)
    assert title == "title"
    assert head.split()[1:4:2] == ["x", "y"]
    assert "a │ 1" in first and "b │ 2 (3) │ more" in second
    assert plain(parts) == "2 (3)"


def test_a_table_without_a_head_has_none() -> None:
    lines = shown(Table([("only", "row")]))
    assert len(lines) == 3 and "only │ row" in lines[1]


def test_texts_are_shown_as_they_are_and_harmless() -> None:
    nasty = "[red]a[/red] :smile: \x1b[2J \n b"
    (row,) = (line for line in shown(Table([(nasty,)], nasty, ("x",))) if line.startswith("│"))
    assert "[red]a[/red] :smile: [2J b" in row
    out = io.StringIO()
    say(nasty, Console(file=out, width=10))
    assert out.getvalue() == "[red]a[/red] :smile:  [2J   b\n"


def test_nothing_ends_a_line_of_a_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # which some shells and test runners set
    show_table(Table([("word " * 100,)]), to_terminal())
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_table_without_rows_is_an_empty_one() -> None:
    assert shown(Table([], "title"))[0] == "title"
