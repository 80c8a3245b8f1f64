"""What makes a grid of runs a sweep: finished runs are not repeated, and failed ones do not stop the others.

A run is known by the content of its configuration (`run_key`), not by its number or its time. Everything here is
files in the folder of runs, so it works with any of Hydra's launchers.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dsel.component import digest, identity
from dsel.files import write_json
from dsel.secrets import redact

log = logging.getLogger(__name__)

SWEEP = "DSEL_SWEEP"
"""Environment variable with the name of the sweep that a process belongs to, for it and the processes it starts."""

INDEX, FAILURES = ".finished", ".failed"


def run_key(components: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What a run is known by: the components but the tracker, without knobs, and the settings that change a result."""
    known = {group: identity(component) for group, component in components.items() if group != "tracker"}
    return digest({**known, **settings})


def finished(runs: Path, key: str) -> Path | None:
    """The folder of a finished run of this key, if there is one."""
    entry = runs / INDEX / f"{key}.json"
    if not entry.exists():
        return None
    folder = runs / json.loads(entry.read_text(encoding="utf-8"))["folder"]
    record = folder / "record.json"
    whole = record.exists() and json.loads(record.read_text(encoding="utf-8"))["status"] == "finished"
    return folder if whole else None


def remember(runs: Path, key: str, folder: Path) -> None:
    """Note that the run of `key` has finished, in `folder`."""
    (runs / INDEX).mkdir(parents=True, exist_ok=True)
    write_json(runs / INDEX / f"{key}.json", {"folder": os.path.relpath(folder, runs)})


def begin() -> None:
    """Give this process and its children a sweep to belong to."""
    os.environ.setdefault(SWEEP, os.urandom(6).hex())


def failed(runs: Path, overrides: Sequence[str], error: str) -> None:
    """Note a failed run of this process's sweep."""
    (runs / FAILURES).mkdir(parents=True, exist_ok=True)
    line = json.dumps(redact({"overrides": list(overrides), "error": error})) + "\n"
    with (runs / FAILURES / f"{os.environ[SWEEP]}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)


class End(Callback):
    """Hydra's callback at the end of a multirun: `failures` then has the `overrides` and `error` of each failed run."""

    failures: ClassVar[list[dict[str, Any]]] = []

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        path = Path(config.runs) / FAILURES / f"{os.environ[SWEEP]}.jsonl"
        if path.exists():
            End.failures = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def show_failures(found: Sequence[Mapping[str, Any]]) -> None:
    """List on stderr which runs failed, why, and the command that runs each again."""
    runs = "run" if len(found) == 1 else "runs"
    sys.stderr.write(f"dsel: {len(found)} {runs} of this sweep failed\n")
    for run in found:
        command = shlex.join(["python", "-m", "dsel.run", *run["overrides"]])
        sys.stderr.write(f"  {run['error']}\n    again: {command}\n")
