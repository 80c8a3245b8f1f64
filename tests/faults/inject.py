"""Puts a fault at a named point of a process: a signal, or an error of the file system.

A point is a list of events, `module:function` or `module:function pattern` for calls with an argument like the pattern.
When the last of them, in this order, has come back, the signal is sent; an error is raised instead of the last call.
`python -m tests.faults.inject …` is a `dsel.run` that lies in wait. What it is told by:

DSEL_FAULT, the fault, as JSON: {"point": [...], "fault": "SIGINT"}, not handed on to those it starts;
DSEL_STRUCK, the file that is to say when it struck;
DSEL_SMALL, constants made smaller: {"module:NAME": value};
DSEL_SHARDS, a file that gets a line for every shard that is given its name.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import importlib
import json
import os
import runpy
import signal
import time
from pathlib import Path
from typing import Any

FAULT, SMALL, STRUCK, SHARDS = "DSEL_FAULT", "DSEL_SMALL", "DSEL_STRUCK", "DSEL_SHARDS"


def begin() -> None:
    """Read the environment, and lie in wait."""
    for name, value in json.loads(os.environ.get(SMALL, "{}")).items():
        owner, attribute = _found(name)
        setattr(owner, attribute, value)
    if SHARDS in os.environ:
        _note_shards(os.environ[SHARDS])
    if FAULT in os.environ:
        fault = json.loads(os.environ.pop(FAULT))
        wanted: list[str] = fault["point"]
        for event in dict.fromkeys(wanted):
            _watch(event, wanted, fault["fault"])


def _watch(event: str, wanted: list[str], fault: str) -> None:
    name, _, pattern = event.partition(" ")
    owner, attribute = _found(name)
    original = getattr(owner, attribute)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        due = wanted and wanted[0] == event and (not pattern or any(fnmatch.fnmatch(str(a), pattern) for a in args))
        if due and len(wanted) == 1 and not fault.startswith("SIG"):
            wanted.clear()
            _strike()
            raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)), next((str(a) for a in args), ""))
        result = original(*args, **kwargs)
        if due:
            wanted.pop(0)
            if not wanted:
                _strike()
                os.kill(os.getpid(), getattr(signal, fault))
        return result

    static = isinstance(owner.__dict__.get(attribute), staticmethod) if isinstance(owner, type) else False
    setattr(owner, attribute, staticmethod(call) if static else call)


def _note_shards(file: str) -> None:
    replace = Path.replace

    def call(self: Path, target: Any) -> Path:
        result = replace(self, target)
        if Path(target).name.startswith("shard-"):
            with open(file, "a") as log:  # noqa: PTH123 (Path may be what is watched)
                log.write(f"{target}\n")
        return result

    Path.replace = call  # type: ignore[assignment, method-assign]


def _strike() -> None:
    """Leave the moment of the fault in the file that DSEL_STRUCK names."""
    with open(os.environ[STRUCK], "w") as file:  # noqa: PTH123 (Path may be what is watched)
        file.write(str(time.time()))


def _found(name: str) -> tuple[Any, str]:
    module, path = name.split(":")
    owner, *rest = [importlib.import_module(module), *path.split(".")]
    while len(rest) > 1:
        owner = getattr(owner, rest.pop(0))
    return owner, rest[0]


if __name__ == "__main__":
    begin()
    runpy.run_module("dsel.run", run_name="__main__", alter_sys=True)
