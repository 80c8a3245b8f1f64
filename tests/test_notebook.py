"""The notebook in docs/: its cells run from top to bottom, offline, and what is said of it holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from hydra.utils import instantiate

from tests.conftest import ROOT, offline
from tests.test_config import composed

PATH = ROOT / "docs" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def test_it_is_ten_cells_without_outputs(notebook: dict[str, Any]) -> None:
    assert (notebook["nbformat"], len(notebook["cells"])) == (4, 10)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code") and cell["source"]
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


def test_another_data_set_is_one_line(notebook: dict[str, Any]) -> None:
    text = "".join(line for cell in notebook["cells"] if cell["cell_type"] == "code" for line in cell["source"])
    assert len(re.findall(r"^# pool = datasets\.load_dataset\(", text, flags=re.M)) == 1
    assert "generate" not in re.sub(r"^(from dsel|pool = datasets).*$", "", text, flags=re.M)  # nothing else is of it


def test_its_other_line_suits_the_cells(
    notebook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With rows of the columns that the data set has on the hub, which is not to be had here; all but the trainings."""

    def load(name: str, *, split: str) -> datasets.Dataset:
        assert (name, split) == (composed("data=no_robots").data.hub, "train")
        said = [(f"Say {i} in {i % 7} words", f"It is {i}" + " indeed" * (i % 5)) for i in range(1600)]
        return datasets.Dataset.from_list(
            [
                {
                    "prompt": asked,
                    "prompt_id": f"{asked}!",
                    "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}],
                    "category": "Chat",
                }
                for asked, answer in said
            ]
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setenv("DSEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    commands: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command[3:]))
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and "record.json" not in text:
            text = re.sub(r"^# (pool = datasets\.load_dataset)", r"\1", text, flags=re.M)
            exec(compile(text, cell["id"], "exec"), names)
    assert {name: len(rows) for name, rows in names["chosen"].items()} == {"random": 200, "diverse": 200}
    assert "Jaccard index" in capsys.readouterr().out
    for command in commands:
        data = instantiate(composed(*command).data, _convert_="all")
        assert len(data.load()) == 200


def test_its_cells_run(
    notebook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert {name: len(rows) for name, rows in names["chosen"].items()} == {"random": 200, "diverse": 200}
    assert all(0 < loss["value"] < 10 and loss["unit"] == "nats" for loss in names["losses"].values())
    said = capsys.readouterr().out
    assert "distinct prompts" in said and "nats, lower is better" in said and "Jaccard index" in said
