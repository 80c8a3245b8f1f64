"""python -m dsel.compare A B: what two subsets share, and how they differ.

This module stays light: `--help` and every complaint about the command line come before anything heavy loads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from dsel.errors import ConfigError, need, need_path
from dsel.secrets import cover


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (python -m dsel.compare --help shows the options)")


def _parser() -> argparse.ArgumentParser:
    kinds = "a run folder, its selected.jsonl or selection.parquet, or any data file that data=local reads"
    parser = _Parser(prog="python -m dsel.compare", description="What two subsets share, and how they differ.")
    parser.add_argument("a", metavar="A", help=kinds)
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument(
        "--pool",
        metavar="FILE|RUN",
        help="what coverage is measured against: a data file or folder, or a run folder, whose pool is loaded again",
    )
    parser.add_argument("--out", metavar="FOLDER", help="also write comparison.json and comparison.md there")
    parser.add_argument(
        "--examples", metavar="N", type=int, default=5, help="how many to show of those only in one (default: 5)"
    )
    return parser


def run(arguments: list[str]) -> None:
    """Compare as the command line says. Raises `ConfigError` with one line for what cannot be done."""
    options = _parser().parse_args(arguments)
    need(options.examples >= 0, f"--examples {options.examples}: give a whole number, 0 or above")
    for option, path in (("A", options.a), ("B", options.b), ("--pool", options.pool)):
        if path is not None:
            need_path(path, option=option)
    out = None if options.out is None else Path(options.out).expanduser()
    need(out is None or out.is_dir() or not out.exists(), f"--out {options.out}: a file is in the way")

    from dsel.compare.comparison import compare
    from dsel.compare.report import show, write
    from dsel.compare.subset import read, read_pool

    a, b = read(options.a), read(options.b)
    result = compare(a, b, read_pool(options.pool) if options.pool else None, examples=options.examples)
    show(result)
    if out is not None:
        for file in write(result, out):
            sys.stdout.write(f"written: {file}\n")


def main() -> None:
    cover()
    try:
        run(sys.argv[1:])
    except ConfigError as error:
        sys.stderr.write(f"dsel: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
