"""Programs that a model wrote, run where they can do little harm: a process each, confined as far as the system allows.

Each has limits of time, memory, processes and file size, an empty folder that goes away, no environment, and no network
and no sight of other processes where Linux gives user namespaces. That is a seat belt, not a prison: the files of the
user who runs it can be read. It runs only where `evaluator.allow_code_execution=true` says so.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dsel.progress import progress

log = logging.getLogger(__name__)

CPU_SECONDS, SECONDS = 3, 10  # of a program's own time (HumanEval's limit), and on the clock of a busy machine
MEMORY, PROCESSES, FILE_SIZE = 4 * 2**30, 32, 2**24  # bytes; threads count as processes; bytes

FORKS = f"""
import os, time
for _ in range({PROCESSES + 8}):
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
"""


def passes(program: str) -> bool:
    """Whether a program comes to its end: no exception, no exit of its own, within the limits."""
    return _run(program)[1]


def pass_rates(programs: Sequence[Sequence[str]]) -> list[list[bool]]:
    """Whether each of several programs for each of several tasks passes."""
    say_what_is_open()
    flat = [program for of_task in programs for program in of_task]
    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as workers,
        progress("running programs", total=len(flat), unit="programs") as advance,
    ):
        results = []
        for result in workers.map(passes, flat):
            results.append(result)
            advance(1)
    ends = np.cumsum([len(of_task) for of_task in programs])
    return [results[end - len(of_task) : end] for end, of_task in zip(ends, programs, strict=True)]


def pass_at(n: int, passed: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k of n samples passes, when `passed` do (Chen et al. 2021, Eq. 1)."""
    return 1.0 - math.comb(n - passed, k) / math.comb(n, k)


class CodeEval:
    """Stands in for the metric `code_eval` of the library evaluate, which runs programs in this process's own world."""

    def compute(
        self, *, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1,), **_: Any
    ) -> tuple[dict[str, float], dict[int, list[bool]]]:
        """({"pass@k": mean over tasks}, passed by task) of programs, each run with its task's tests behind it."""
        programs = [[f"{p}\n{tests}" for p in own] for own, tests in zip(predictions, references, strict=True)]
        results = pass_rates(programs)
        able = [kk for kk in k if all(len(own) >= kk for own in results)]
        scores = {f"pass@{kk}": float(np.mean([pass_at(len(own), sum(own), kk) for own in results])) for kk in able}
        return scores, dict(enumerate(results))


@contextmanager
def in_place_of_code_eval() -> Iterator[None]:
    """Inside the block, tasks that load evaluate's `code_eval` get `CodeEval`: nothing is fetched, all is confined."""
    import evaluate

    load = evaluate.load
    evaluate.load = lambda path, *args, **more: CodeEval() if path == "code_eval" else load(path, *args, **more)
    try:
        yield
    finally:
        evaluate.load = load


@cache
def say_what_is_open() -> None:
    """Say, once, what of the confinement this system does not give."""
    words, _ = _run("")
    _, many = _run(FORKS)
    still = [*(["the network"] if "network" not in words else []), *(["more processes"] if many else [])]
    if still:
        log.warning(
            "programs written by the model are run with limits, but %s cannot be kept from them here (%s)",
            *(" and ".join(still), "root, or no user namespaces"),
        )


def _run(program: str) -> tuple[list[str], bool]:
    """(What of the confinement could be had, whether the program came to its end)."""
    token = secrets.token_hex(16).encode() + b"\n"
    limits = [str(number) for number in (CPU_SECONDS, MEMORY, PROCESSES, FILE_SIZE)]
    command = [sys.executable, "-I", "-B", str(Path(__file__).with_name("confined.py")), *limits]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(token + program.encode("utf-8", "replace"), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
    return said.removesuffix(token).decode("utf-8", "replace").split(), said.endswith(token)
