"""Ctrl-C, and the signals by which a scheduler ends a run that it will start again: no lock is left behind."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dsel.distributed import still_runs

SOON = 0.01  # seconds
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
USERS = set(SIGNALS[1:])  # Slurm sends these to every process of a job, which by default they end
TO_GO_ON = 75  # EX_TEMPFAIL: the exit code that tells a scheduler's script to start the run again
REQUEUES = "checkpoint_and_try_requeue"  # submitit's handler

_asked = threading.Event()  # somebody has pressed Ctrl-C
_told: list[int] = []  # the signals to end that were heard, until `ending` is over
_ends = threading.Event()  # and raised
_held: list[None] = []  # one for each `held` that is open


class Ended(KeyboardInterrupt):
    """The end of a run by a signal: it is to go on when it is started again."""

    def __init__(self, number: int):
        self.number = signal.Signals(number)
        super().__init__(f"ended by {self.number.name}")


def wait_for_logging() -> None:
    """From here on SIGINT raises KeyboardInterrupt as ever, but never out of the middle of the logging module.

    Python's own handler may raise right after a lock was taken and before the block that gives it back. Nobody misses
    most locks of a program that ends, but logging's is wanted by every thread: an interrupt at that point leaves W&B's
    waiting for it, and the process, for ever. An interrupt that comes inside of logging is sent again a little later.
    Where SIGINT has another handler, or is ignored, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


@contextmanager
def ending() -> Iterator[None]:
    """Inside, SIGTERM, SIGUSR1 and SIGUSR2 raise `Ended`, the first time; where one is ignored, it stays so.

    Afterwards they do what they did. Where that is submitit's handler, an `Ended` has it queue the job again, unless
    Slurm does so or the job is cancelled.

    Raises:
        Ended: of a signal that was heard, whatever else it led to.
        SystemExit: in its place, in a job of submitit.
        Exception: what submitit raises where the job may not be queued again.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, _end)
    try:
        try:
            yield
        except Exception:  # a process that this one needs may have heard it too
            heed()
            raise
    except Ended as ended:
        requeue = next((handler for handler in before.values() if getattr(handler, "__name__", "") == REQUEUES), None)
        if not callable(requeue):
            raise
        if ended.number != signal.SIGTERM or still_runs():
            requeue(ended.number, None)
        sys.exit(TO_GO_ON)
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        _told.clear()
        _ends.clear()


@contextmanager
def held() -> Iterator[None]:
    """Inside, a signal to end is heeded by nobody but who asks for it (`told`), at a point of its own choice."""
    heed()
    _held.append(None)
    try:
        yield
    finally:
        _held.pop()


def told() -> bool:
    """Whether there was a signal to end."""
    return bool(_told)


def heed() -> None:
    """Raise KeyboardInterrupt if there was one: Python loses those that come in a destructor or in a weak reference's
    callback, and a signal to end may have been `held`. To be called where a run goes from one thing to the next.
    """
    if _told:
        _ends.set()
        raise Ended(_told[0])
    if _asked.is_set():
        raise KeyboardInterrupt


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started inside do not hear the signals that Slurm sends to all of a job, until `hear`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, USERS) if USERS else set()
    try:
        yield
    finally:
        if USERS:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear() -> None:
    """In a process that was started `deaf`: from here on those signals are heard, and held."""
    _held.append(None)
    for number in USERS:
        signal.signal(number, _end)
    if USERS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, USERS)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    if not _postponed(number, frame):
        signal.default_int_handler(number, frame)


def _end(number: int, frame: FrameType | None) -> None:
    _told.append(number)
    if not (_held or _ends.is_set() or _postponed(number, frame)):
        heed()


def _postponed(number: int, frame: FrameType | None) -> bool:
    """Whether `frame` is inside of the logging module; then the signal is sent again."""
    inside = frame
    while inside is not None:
        if inside.f_code.co_filename == logging.__file__:
            again = threading.Timer(SOON, signal.raise_signal, [number])
            again.daemon = True
            again.start()
            return True
        inside = inside.f_back
    return False
