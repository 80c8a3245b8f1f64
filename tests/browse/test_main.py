"""The command: what it writes, and what it says when it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsel.browse.__main__ import main
from tests.browse.made import made_pool, made_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("runs") / "run", made_pool(60), budget=12)


def refused(*arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert ended.value.code == 2 and not said.out and said.err.count("\n") == 1
    return said.err


def test_the_page_is_written_into_the_runs_folder_or_elsewhere(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder)])
    main([str(folder / "record.json"), "--out", str(tmp_path / "page.html")])
    said = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d\.\d MB", "5 MB", line) for line in said] == [
        f"written: {folder}/show.html (5 MB, opens in any browser)",
        f"written: {tmp_path}/page.html (5 MB, opens in any browser)",
    ]
    assert (folder / "show.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_help_is_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "dsel show" in capsys.readouterr().out


def test_what_cannot_be_shown_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in refused(tmp_path / "nothing", capsys=capsys)
    assert "not a run folder" in refused(tmp_path, capsys=capsys)
    assert "dsel show --help" in refused(capsys=capsys)
    assert "dsel show --help" in refused(folder, "--pol", "x", capsys=capsys)
    assert "--pool=" in refused(folder, "--pool", tmp_path / "nothing", capsys=capsys)
    assert "a run folder, name the file" in refused(folder, "--pool", folder, capsys=capsys)
    assert "a folder, name the file" in refused(folder, "--out", tmp_path, capsys=capsys)
    assert "no such folder" in refused(folder, "--out", tmp_path / "a" / "b.html", capsys=capsys)
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "record.json").write_text('{"format": 99}')
    assert "later one" in refused(odd, capsys=capsys)
    (odd / "record.json").write_text("[]")
    assert "not the record of a run" in refused(odd, capsys=capsys)
