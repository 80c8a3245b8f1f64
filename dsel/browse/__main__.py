"""dsel show RUN: one page of what a run has chosen, and of what it has not.

This module stays light: `--help` and every complaint about the command line come before anything heavy loads.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dsel.errors import ConfigError, need, need_package, need_path, world
from dsel.remote_runs import need_here
from dsel.secrets import cover
from dsel.verbosity import to_stderr, without_flags

NAME = "show.html"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (dsel show --help shows the options)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dsel show",
        description="One HTML page of a run: the map of its pool, why each example was chosen, and what was not.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, or its URL")
    parser.add_argument(
        "--pool", metavar="FILE", help="what the run chose from, for the texts of all that it did not choose"
    )
    parser.add_argument("--out", metavar="FILE", help=f"the page to write (default: RUN/{NAME})")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    return parser


def run(arguments: Sequence[str]) -> Path:
    """Write the page that the command line asks for. Raises `ConfigError` with one line for what cannot be done."""
    options = _parser().parse_args(arguments)
    folder = need_here(options.run, option="RUN")
    folder = folder.parent if folder.name == "record.json" else folder
    need((folder / "record.json").is_file(), f"{options.run}: not a run folder, it has no record.json")
    if options.pool is not None:
        pool_file = need_path(options.pool, option="--pool")
        recorded = (pool_file / "record.json").exists()
        need(not recorded, f"--pool {options.pool}: a run folder, name the file or folder that its examples are from")
    out = folder / NAME if options.out is None else Path(options.out).expanduser()
    need(not out.is_dir(), f"--out {options.out}: a folder, name the file to write")
    need(out.parent.is_dir(), f"--out {options.out}: no such folder: {out.parent}")
    need_package("plotly", install="plotly", why="dsel show")

    from dsel.browse.gather import gather
    from dsel.browse.page import render
    from dsel.compare.subset import read_pool
    from dsel.files import write_text
    from dsel.record.facts import OddRecord
    from dsel.record.reader import RunFolder

    try:
        found = RunFolder.read(folder)
    except OddRecord as why:
        raise ConfigError(f"{folder / 'record.json'}: {why}") from why
    shown = gather(found, None if options.pool is None else read_pool(options.pool))
    write_text(out, render(shown, command=shlex.join(["dsel", "show", *arguments])))
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: anything wrong with what was asked for ends in one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cover()
    try:
        given = without_flags(given)
        to_stderr()  # which rows of a pool are no part of it
        page = run(given)
    except ConfigError as error:
        sys.stderr.write(f"dsel: {error}\n")
        sys.exit(2)
    except OSError as error:
        sys.stderr.write(f"dsel: {world(error) or error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    sys.stdout.write(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB, opens in any browser)\n")
    if "--open" in given:
        webbrowser.open(page.resolve().as_uri())


if __name__ == "__main__":
    main()
