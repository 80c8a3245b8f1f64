"""The one exception users see, and the checks that raise it before anything heavy loads."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


class ConfigError(Exception):
    """What was asked for cannot be done. The message is one line: what is wrong, where, what to do."""


def need_package(module: str, *, extra: str, why: str) -> None:
    """Raise `ConfigError` when `module` cannot be imported, without importing it."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{why} needs the package {module!r}: pip install 'dsel[{extra}]'")


def need_env(variable: str, *, why: str) -> str:
    """The value of an environment variable; `ConfigError` when it is unset or empty."""
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigError(f"{why} needs a key: set the environment variable {variable}")
    return value


def need_path(path: str | Path, *, option: str) -> Path:
    """`path` with `~` expanded; `ConfigError` naming `option` when nothing is there."""
    try:
        found = Path(path).expanduser()
        exists = found.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no permission, no such user, no such name on any disk
        raise ConfigError(f"{option}={path}: cannot be looked at ({error})") from error
    if not exists:
        raise ConfigError(f"{option}={path}: no such file or folder (looked in {Path.cwd()})")
    return found


def need(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)
