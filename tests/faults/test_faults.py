"""A part of `make faults`: some faults of each kind in real runs, each launched again and compared."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def test_some_faults_of_each_kind() -> None:
    """In a process of its own: it forks for every run, which a process with threads must not."""
    command = [sys.executable, "-m", "tests.faults", "--some"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
