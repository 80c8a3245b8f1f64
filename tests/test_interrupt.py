"""However badly timed an interrupt is, other threads can log afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dsel import interrupt

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
