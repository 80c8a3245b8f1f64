"""What makes a grid of runs a sweep: finished runs are not repeated, and failed ones do not stop the others.

A run is known by the content of its configuration (`run_key`), not by its number or its time. Everything here is
files in the folder of runs, so it works with any of Hydra's launchers.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from dsel.cache import Cache
from dsel.component import digest, identity, without_software
from dsel.config_groups import NO_RESULT
from dsel.errors import need, need_package
from dsel.files import damage, locked, read_json, seal, unsealed, write_sealed
from dsel.record.facts import OddRecord
from dsel.record.reader import NAME, RunFolder
from dsel.references import Before
from dsel.remote_runs import INDEX as INDEX
from dsel.remote_runs import here
from dsel.secrets import redact

log = logging.getLogger(__name__)

SWEEP = "DSEL_SWEEP"
"""Environment variable with the name of the sweep that a process belongs to, for it and the processes it starts."""

LAUNCHERS = {"submitit": "dsel[slurm]", "joblib": "dsel[parallel]", "ray": "hydra-ray-launcher"}
"""What is in the name of a launcher's module, and what brings it."""

BASIC = "basic"  # Hydra's own: in this process, and the one that nobody has to ask for

FAILURES, ENDED, RUNNING = ".failed", ".ended", ".running"
RESULTS = ("selection.parquet", "selected.jsonl")  # what a finished run is good for, beside its record


def run_key(components: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What a run is known by: the components that change a result, without knobs, and the settings that do.

    The versions of libraries are no part of it, though of what is cached: an upgrade in the middle of a sweep does not
    run all of it again, and each record says what it was made with.
    """
    known = {group: identity(component) for group, component in components.items() if group not in NO_RESULT}
    return digest(without_software({**known, **settings}))


def finished(runs: Path, key: str) -> Path | None:
    """The folder of a finished run of this key, if there is one whose files are as it left them."""
    entry = runs / INDEX / f"{key}.json"
    if not entry.exists():
        return None
    try:
        noted = unsealed(read_json(entry))
        folder = runs / noted["folder"]
        if not (folder / NAME).exists():
            return None  # its folder is gone
        run = RunFolder.read(folder)
        if run.status != "finished" or run.facts.get("key") != key:
            return None
        below = folder.resolve().is_relative_to(runs.resolve())  # a folder that somebody shared may say anything
        wrong = damage(folder, noted["files"]) if below else f"{folder} is not below {runs}"
    except (OddRecord, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        wrong = f"{error}" or type(error).__name__
    if wrong is not None:
        log.warning("a finished run is damaged and runs again: %s, %s", entry, wrong)
        return None
    return folder


def remember(runs: Path, key: str, folder: Path, weights: Sequence[str] = ()) -> None:
    """Note that the run of `key` is about to be finished, in `folder`: it has when its record says so too.

    weights: the trainings in the cache that it then has no more use for (`tidy`).
    """
    (runs / INDEX).mkdir(parents=True, exist_ok=True)
    noted = {"folder": os.path.relpath(folder, runs), "files": seal(folder, RESULTS), "weights": list(weights)}
    write_sealed(runs / INDEX / f"{key}.json", noted)


def tidy(runs: Path, key: str, cache: Cache) -> None:
    """Remove the trained weights of a finished run: it may have been killed before it could do so itself."""
    for name in unsealed(read_json(runs / INDEX / f"{key}.json")).get("weights", []):
        if isinstance(name, str) and re.fullmatch("[0-9a-f]{24}", name):
            cache.clear("fits", name)
            cache.withdraw("fits", name)


def alone(runs: Path, key: str) -> AbstractContextManager[None]:
    """The right to run the job of `key`, which one process has at a time, whichever sweep it belongs to."""
    return locked(runs / RUNNING / f"{key}.lock", f"another launch is running this job ({key})")


def begin() -> None:
    """Give this process and its children a sweep to belong to."""
    os.environ.setdefault(SWEEP, os.urandom(6).hex())


def failed(runs: Path, overrides: Sequence[str], error: str) -> None:
    """Note a failed run of this process's sweep."""
    (runs / FAILURES).mkdir(parents=True, exist_ok=True)
    line = json.dumps(redact({"overrides": list(overrides), "error": error})) + "\n"
    with (runs / FAILURES / f"{os.environ[SWEEP]}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)


def ended(runs: Path, folder: Path) -> None:
    """Note that this process's sweep has a finished run in `folder`, of this launch or an earlier one."""
    (runs / ENDED).mkdir(parents=True, exist_ok=True)
    line = json.dumps({"folder": os.path.relpath(folder, runs)}) + "\n"
    with (runs / ENDED / f"{os.environ[SWEEP]}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)


class Launcher(Before):
    """Ends the program before a sweep whose launcher's package is missing, and before a run that none would launch."""

    @staticmethod
    def look(config: DictConfig) -> None:
        module = str(config.hydra.launcher._target_).rpartition(".")[0]
        chosen = config.hydra.runtime.choices["hydra/launcher"]
        launched = config.hydra.mode == RunMode.MULTIRUN or config.plan or chosen == BASIC
        need(launched, f"hydra/launcher={chosen} launches the runs of a sweep: add -m, also for one run")
        for plugin, install in LAUNCHERS.items():
            if plugin in module:
                need_package(module, install=install, why=f"hydra/launcher={chosen}")


class End(Callback):
    """Hydra's callback at the end of a multirun, which is then known by its finished and its failed runs.

    failures: the `overrides` and the `error` of each failed one. finished: the folders of the others.
    """

    failures: ClassVar[list[dict[str, Any]]] = []
    finished: ClassVar[list[Path]] = []

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        runs = Path(here(str(config.runs), str(config.scratch)))
        failures, others = (runs / kind / f"{os.environ[SWEEP]}.jsonl" for kind in (FAILURES, ENDED))
        if failures.exists():
            End.failures = _readable(failures)
        if others.exists():
            End.finished = [runs / json.loads(line)["folder"] for line in others.read_text("utf-8").splitlines()]
            others.unlink()  # what it says is shown now


def _readable(path: Path) -> list[dict[str, Any]]:
    """The failures that are noted in a file; a line that cannot be read is one without a reason."""
    found: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            noted = json.loads(line)
            found.append({"overrides": [str(o) for o in noted["overrides"]], "error": str(noted["error"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            found.append({"overrides": [], "error": f"a run failed, and its line in {path} is damaged"})
    return found


def show_finished(folders: Sequence[Path]) -> None:
    """The table of the finished runs, and the command that uploads those that W&B kept here."""
    from dsel.summary import show_sweep

    found = []
    for folder in folders:
        try:
            found.append(RunFolder.read(folder))
        except OddRecord as why:
            log.warning("left out %s: %s", folder, why)
    if found:
        show_sweep(found)


def show_failures(found: Sequence[Mapping[str, Any]]) -> None:
    """List on stderr which runs failed, why, and the command that runs each again."""
    runs = "run" if len(found) == 1 else "runs"
    sys.stderr.write(f"dsel: {len(found)} {runs} of this sweep failed\n")
    for run in found:
        command = shlex.join(["python", "-m", "dsel.run", *run["overrides"]])
        sys.stderr.write(f"  {run['error']}\n    again: {command}\n")
