"""Ctrl-C that leaves no lock behind."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

SOON = 0.01  # seconds

_asked = threading.Event()  # somebody has pressed Ctrl-C


def wait_for_logging() -> None:
    """From here on SIGINT raises KeyboardInterrupt as ever, but never out of the middle of the logging module.

    Python's own handler may raise right after a lock was taken and before the block that gives it back. Nobody misses
    most locks of a program that ends, but logging's is wanted by every thread: an interrupt at that point leaves W&B's
    waiting for it, and the process, for ever. An interrupt that comes inside of logging is sent again a little later.
    Where SIGINT has another handler, or is ignored, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def heed() -> None:
    """Raise KeyboardInterrupt if there was one: Python loses those that come in a destructor or in a weak reference's
    callback. To be called where a run goes from one thing to the next.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    inside = frame
    while inside is not None:
        if inside.f_code.co_filename == logging.__file__:
            again = threading.Timer(SOON, signal.raise_signal, [number])
            again.daemon = True
            again.start()
            return
        inside = inside.f_back
    signal.default_int_handler(number, frame)
