"""However badly timed an interrupt is, other threads can log afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsel import distributed, interrupt
from dsel.interrupt import TO_GO_ON, Ended, deaf, ending, heed, held, told

# What Hydra's set-up of each job does, emptying the loggers' caches, and an interrupt at any point of it.
STRESS = """
import logging, os, random, signal, threading, time
from dsel.interrupt import wait_for_logging

wait_for_logging()
log, caught, end = logging.getLogger("x"), 0, time.monotonic() + 3
signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
while caught < 300 and time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.0025))
        soon = time.monotonic() + 1  # one that came in a destructor is lost: Python has nowhere to raise it
        while time.monotonic() < soon:
            log.manager._clear_cache()
            log.isEnabledFor(logging.INFO)
            sum(range(200))
    except KeyboardInterrupt:
        caught += 1
    log.manager._clear_cache()
    other = threading.Thread(target=log.isEnabledFor, args=[logging.INFO], daemon=True)
    other.start()
    other.join(5)
    if other.is_alive():
        print("locked after", caught, flush=True)
        os._exit(1)
print(caught)
"""


def test_an_interrupt_never_leaves_logging_locked() -> None:
    done = subprocess.run([sys.executable, "-c", STRESS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 50


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "print"])
def test_a_handler_that_somebody_chose_stays(handler: str) -> None:
    code = f"""
import signal
from dsel.interrupt import wait_for_logging
signal.signal(signal.SIGINT, {handler})
wait_for_logging()
assert signal.getsignal(signal.SIGINT) == {handler}
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout) == (handler == "print")


def test_an_interrupt_outside_of_logging_comes_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt.wait_for_logging()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
        interrupt._asked.clear()


LOST = """
import signal
from dsel.interrupt import heed, wait_for_logging

class Going:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

wait_for_logging()
heed()
Going()
try:
    heed()
except KeyboardInterrupt:
    print("heeded")
"""


def test_an_interrupt_that_python_loses_is_heeded() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60)
    assert done.stdout == "heeded\n", done.stderr


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_scheduler_ends_a_run_once_and_its_handlers_are_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Ended, match=number.name), ending():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # again while it ends: nothing more happens
    assert signal.getsignal(number) is before
    with ending():
        assert not told()
        heed()


def test_what_is_held_ends_where_it_heeds() -> None:
    done = []
    with pytest.raises(Ended), ending():
        with held():
            signal.raise_signal(signal.SIGTERM)
            done.append("step")
            assert told()
        done.append("weights")
        heed()
        done.append("more")
    assert done == ["step", "weights"]


def test_what_a_signal_led_to_is_its_own() -> None:
    with pytest.raises(Ended), ending(), held():
        signal.raise_signal(signal.SIGUSR1)
        raise ValueError("a worker that heard it, too")


def test_an_ignored_signal_stays_so() -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with ending():
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("number", "runs", "requeued"),
    [("SIGTERM", True, True), ("SIGTERM", False, False), ("SIGUSR2", False, True), ("SIGUSR1", False, True)],
)
def test_submitit_queues_a_job_again_that_nobody_has_ended(
    number: str, runs: bool, requeued: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def checkpoint_and_try_requeue(number: int, frame: object) -> None:
        asked.append(number)

    monkeypatch.setattr(interrupt, "still_runs", lambda: runs)
    before = signal.signal(signal.SIGUSR2, checkpoint_and_try_requeue)
    try:
        with pytest.raises(SystemExit) as ended, ending():
            signal.raise_signal(getattr(signal, number))
        assert signal.getsignal(signal.SIGUSR2) is checkpoint_and_try_requeue
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert ended.value.code == TO_GO_ON and bool(asked) == requeued


def test_processes_started_deaf_do_not_hear_what_slurm_sends_to_all() -> None:
    code = "import signal, time; print(1, flush=True); time.sleep(1); print(2)"
    with deaf():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=30)[0] == "2\n" and process.returncode == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & interrupt.USERS


def test_a_job_still_runs_where_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "squeue"
    asked.write_text("#!/bin/sh\nprintf '7 PENDING\\n9 RUNNING\\n8 COMPLETING\\n'\n")
    asked.chmod(0o755)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not distributed.still_runs()
    for job, runs in (("9", True), ("8", False), ("7", False), ("1", False)):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert distributed.still_runs() == runs, job
    monkeypatch.setenv("PATH", "")
    assert not distributed.still_runs()
