"""Puts a fault at a named point of a process: a signal, or an error of the file system.

A point is a list of events, `module:function` or `module:function pattern` for calls with an argument like the pattern.
When the last of them, in this order, has come back, the signal is sent; an error is raised instead of the last call.
The process that is to have the fault is told by DSEL_FAULT, as JSON: {"point": [...], "fault": "SIGINT"}; it is not
handed on to those it starts. DSEL_SMALL makes constants smaller: {"module:NAME": value}.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

FAULT, SMALL, STRUCK = "DSEL_FAULT", "DSEL_SMALL", "DSEL_STRUCK"


def begin() -> None:
    """Read the environment, and lie in wait."""
    for name, value in json.loads(os.environ.get(SMALL, "{}")).items():
        owner, attribute = _found(name)
        setattr(owner, attribute, value)
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


def main(run: Callable[[], None]) -> None:
    begin()
    run()


if __name__ == "__main__":
    from dsel.run import main as dsel

    sys.argv[0] = "dsel"
    main(dsel)
