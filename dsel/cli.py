"""dsel: one program for all commands. Each is a module with a `main`, loaded when it is asked for.

What is no command is an override of a run: `dsel selector=random` is `dsel run selector=random`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from dsel import usage
from dsel.constraints import like
from dsel.errors import ConfigError
from dsel.usage import COMMANDS
from dsel.verbosity import without_flags


def main() -> None:
    """The entry point: gives the arguments to the command that they name."""
    try:
        name, *rest = without_flags(sys.argv[1:]) or ["help"]
        if name in ("help", "-h", "--help"):
            usage.say(usage.help_on(rest[0]) if rest else usage.screen())
        elif name == "--version":
            usage.say([usage.version()])
        elif name in COMMANDS:
            _start(name, rest)
        elif "=" in name or name.startswith("-"):
            _start("run", [name, *rest])
        else:
            raise ConfigError(_unknown(name))
    except ConfigError as error:
        sys.stderr.write(f"dsel: {error}\n")
        sys.exit(2)


def _start(name: str, rest: Sequence[str]) -> None:
    module = import_module(COMMANDS[name].module)
    sys.argv[1:] = [*COMMANDS[name].given, *rest]
    module.main()


def _unknown(name: str) -> str:
    if Path(name).exists():
        return f"{name}: no command; to choose from a file: dsel select {name} --budget 1000"
    return f"{name}: no such command{like(name, list(COMMANDS))}; there are {', '.join(COMMANDS)}"
