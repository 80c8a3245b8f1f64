"""A deterministic part of `make fuzz`, and that it finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import fuzz

PART = {"damaged-files": 250, "odd-rows": 150, "text": 400, "records": 300, "logs": 250, "reports": 3, "subsets": 20}


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_inputs_that_nobody_thought_of(name: str, tmp_path: Path) -> None:
    done, failed = fuzz.fuzz(name, tmp_path, seconds=120, inputs=PART[name])
    assert failed == 0, "\n".join(path.read_text() for path in tmp_path.glob("*.txt"))
    assert done == PART[name]


@pytest.mark.parametrize("way", ["raises", "crashes", "hangs"])
def test_failures_are_found_and_kept(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is told by the environment to fail at every input."""
    monkeypatch.setenv("DSEL_FUZZ_FAILS", way)
    monkeypatch.setattr(fuzz, "HANG", 2)
    done, failed = fuzz.fuzz("text", tmp_path, seconds=60, inputs=5)
    assert (done, failed) == (5, 5)
    (kept,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(list(kept.iterdir())) == 1
    words = {"raises": "ZeroDivisionError", "crashes": "ended with -", "hangs": "nothing for 2 seconds"}
    assert words[way] in (tmp_path / f"{kept.name}.txt").read_text()
