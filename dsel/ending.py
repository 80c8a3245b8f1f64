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
from dsel.secrets import redact


@contextmanager
def explained() -> Iterator[None]:
    """Makes a `ConfigError` of what Hydra says of a configuration."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


@contextmanager
def in_one_line() -> Iterator[None]:
    """Ends the program with one line on stderr and exit code 2 for a fault of the user, the data or the world.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """
    wants_traces = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of being printed by Hydra
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from what is in the cache")
    except Exception as error:
        ours = isinstance(error, (ConfigError, HydraException, OmegaConfBaseException))
        known = explain(error) if ours else world(error)
        if known is None or wants_traces:
            raise
        sys.stderr.write(f"dsel: {redact(known)}\n")
        sys.exit(2)
