"""How much a command says: `-q` or `-v` on its command line, or DSEL_LOG, which the processes it starts inherit."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from dsel.errors import need
from dsel.secrets import RedactingFormatter

LEVEL = "DSEL_LOG"
FLAGS = {"-q": "WARNING", "--quiet": "WARNING", "-v": "DEBUG", "--verbose": "DEBUG"}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def without_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments but -q and -v, of which the last one counts from here on. Raises `ConfigError` for an odd level."""
    for argument in arguments:
        if argument in FLAGS:
            os.environ[LEVEL] = FLAGS[argument]
    need(level() in LEVELS, f"{LEVEL}={level()}: give one of {', '.join(LEVELS)}")
    return [argument for argument in arguments if argument not in FLAGS]


def level() -> str:
    """The level from which on our own lines are said."""
    return os.environ.get(LEVEL) or "INFO"


def is_quiet() -> bool:
    """Whether no more than warnings and results are wanted."""
    return level() in ("WARNING", "ERROR")


def to_stderr() -> None:
    """Our lines on stderr, other libraries' only where they warn: for commands that Hydra sets up no logging for."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("dsel").setLevel(level())
