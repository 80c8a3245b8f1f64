"""What a process that an engine has started says to its parent: lines of the log, and what it failed with."""

from __future__ import annotations

import logging
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dsel.errors import ConfigError, LostWorker, world
from dsel.secrets import redact
from dsel.verbosity import level

Say = Callable[..., None]
"""Hands a few values that JSON can hold to the parent: first what they are."""

LAST_WORDS = 4000  # letters, of what a worker that says nothing has printed

log = logging.getLogger(__name__)


class Tell(logging.Handler):
    """Hands lines of the log on to the parent."""

    def __init__(self, say: Say):
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say("log", record.name, record.levelno, redact(record.getMessage()))


def log_to(say: Say) -> None:
    """From here on, the log of this process is the parent's."""
    logging.basicConfig(level=logging.WARNING, handlers=[Tell(say)], force=True)
    logging.getLogger("dsel").setLevel(level())


def without_future_warnings() -> None:
    """As in the parent."""
    warnings.simplefilter("ignore", FutureWarning)


def failure(error: Exception) -> tuple[Any, ...]:
    """When it was, what kind it is of, in one line, and the traceback: what is said of an error that ends a worker.

    Kinds: `config` for a `ConfigError`, `memory` where there was not enough, `world` for another error of the world,
    None for any other.
    """
    known = str(error) if isinstance(error, ConfigError) else world(error)
    short = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    kind = "config" if isinstance(error, ConfigError) else "memory" if short else "world" if known else None
    line = known or f"{type(error).__name__}: {error}"
    return time.time(), kind, redact(line), redact(traceback.format_exc())


def raised(failed: Sequence[Any], worker: str, of: str) -> NoReturn:
    """Raise in the parent what `failure` said of a worker of a map or of a training.

    Raises:
        ConfigError: what is wrong with the configuration.
        LostWorker: anything else, with a traceback in the log where nobody knows it.
    """
    _, kind, line, trace = failed
    if kind == "config":
        raise ConfigError(line)
    if kind is None:
        log.error("%s:\n%s", worker, trace)
    raise LostWorker(f"{worker} of {of} failed: {line}")


def killed_by(code: int) -> str:
    """What to say of a process whose exit code is a signal's."""
    name = signal.Signals(-code).name
    memory = ": often because there is no more memory (see dmesg)" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"
