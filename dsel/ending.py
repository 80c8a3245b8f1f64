"""How a command ends where it cannot go on: in one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dsel.errors import ConfigError, world
from dsel.explain import explain
from dsel.interrupt import TO_GO_ON, Ended
from dsel.secrets import redact

TRACES = "HYDRA_FULL_ERROR"
AGAIN = "interrupted: the same command goes on from what is in the cache"


@contextmanager
def explained() -> Iterator[None]:
    """Makes a `ConfigError` of what Hydra says of a configuration."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


@contextmanager
def in_one_line(interrupted: str = AGAIN) -> Iterator[None]:
    """Ends the program with one line on stderr and exit code 2 for a fault of the user, the data or the world.

    HYDRA_FULL_ERROR=1 shows the traceback, and is as it was afterwards. interrupted: what is said after a Ctrl-C. After
    a signal that a scheduler sends, the same is said and the exit code is 75.
    """
    before = os.environ.get(TRACES)
    os.environ[TRACES] = "1"  # exceptions come to us instead of being printed by Hydra
    try:
        yield
    except Ended as ended:
        sys.stderr.write(f"{ended.number.name}, {interrupted}\n")
        sys.exit(TO_GO_ON)
    except KeyboardInterrupt:
        sys.exit(interrupted)
    except Exception as error:
        ours = isinstance(error, (ConfigError, HydraException, OmegaConfBaseException))
        known = explain(error) if ours else world(error)
        if known is None or before == "1":
            raise
        sys.stderr.write(f"dsel: {redact(known)}\n")
        sys.exit(2)
    finally:
        if before is None:
            os.environ.pop(TRACES, None)
        else:
            os.environ[TRACES] = before
