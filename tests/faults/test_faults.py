"""A part of `make faults`: some faults of each kind in real runs, each launched again and compared."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT
from tests.faults import inject


def test_some_faults_of_each_kind() -> None:
    """In a process of its own: it forks for every run, which a process with threads must not."""
    command = [sys.executable, "-m", "tests.faults", "--some"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_every_place_of_a_fault_is_there() -> None:
    """Those of tests marked slow too: a function that was renamed would be known when they run."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'"((?:dsel|numpy|pathlib|os)[\w.]*:[\w.]+)[ "]', text)}
    assert len(named) > 20
    for name in named:
        owner, attribute = inject._found(name)
        assert hasattr(owner, attribute), name
