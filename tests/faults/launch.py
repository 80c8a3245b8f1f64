"""Starts `dsel.run` many times without paying for its imports each time: a warm process forks for every run."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults import inject

MODULES = (
    "torch numpy pyarrow.parquet datasets transformers trl peft sklearn.decomposition sklearn.feature_extraction.text "
    "faiss lm_eval lm_eval.models.huggingface lm_eval.tasks matplotlib.pyplot numba dsel.run dsel.experiment "
    "dsel.learner dsel.trainer.sft dsel.report.__main__ dsel.compare.__main__"
).split()


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), output, and seconds from the fault to the end."""

    code: int
    out: str
    seconds: float

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.out


def warm() -> None:
    """Import what runs import. To be called once, before anything starts a thread."""
    import importlib

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in MODULES:
        importlib.import_module(name)


def launch(
    arguments: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str] = {},
    point: Sequence[str] = (),
    fault: str = "",
    module: str = "dsel.run",
    timeout: float = 300,
) -> Ended:
    """Run `python -m <module>` with `arguments` in a fork, with `fault` at `point`; its output goes to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    output, struck = folder / "output.txt", folder / "struck"
    struck.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _become(arguments, output, {**environment, inject.STRUCK: str(struck)}, point, fault, module)
    end, status = time.monotonic() + timeout, 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(124, output.read_text(errors="replace") + "\nHUNG", timeout)
        time.sleep(0.01)
    seconds = time.time() - float(struck.read_text()) if struck.exists() else 0.0
    if point and not struck.exists():
        return Ended(125, output.read_text(errors="replace") + f"\nTHE POINT WAS NEVER REACHED: {point}", 0.0)
    return Ended(os.waitstatus_to_exitcode(status), output.read_text(errors="replace"), seconds)


def _become(
    arguments: Sequence[str],
    output: Path,
    environment: Mapping[str, str],
    point: Sequence[str],
    fault: str,
    module: str,
) -> None:
    """What the fork does: never returns."""
    import runpy

    code = 70
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        if point:
            os.environ[inject.FAULT] = json.dumps({"point": list(point), "fault": fault})
        inject.begin()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(error.code + "\n")
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # as an interpreter would
        traceback.print_exc()
        code = 1
    finally:
        import atexit
        import threading

        sys.stdout.flush()
        sys.stderr.flush()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join(5)
        atexit._run_exitfuncs()
        os._exit(code)
