"""python -m dsel.compare A B: what two subsets share, and how they differ.

This module stays light: `--help` and every complaint about the command line come before anything heavy loads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from dsel.errors import ConfigError, need, need_path
from dsel.remote_runs import need_here
from dsel.secrets import cover
from dsel.verbosity import to_stderr, without_flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (dsel compare --help shows the options)")


def _parser() -> argparse.ArgumentParser:
    kinds = "a run folder or its URL, its selected.jsonl or selection.parquet, or any data file that data=local reads"
    parser = _Parser(prog="dsel compare", description="What two subsets share, and how they differ.")
    parser.add_argument("a", metavar="A", help=kinds)
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument(
        "--pool",
        metavar="FILE|RUN",
        help="what coverage is measured against: a data file or folder, '{label: file, …}' as data.path takes it, or a "
        "run folder, whose pool is loaded again; that of two runs on one pool unless given, none: no pool",
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
    pool = _pool(options.pool)
    named = [] if pool is None else list(pool.values()) if isinstance(pool, dict) else [pool]
    options.a, options.b = (str(need_here(path, option=o)) for o, path in (("A", options.a), ("B", options.b)))
    for path in named:
        need_path(path, option="--pool")
    out = None if options.out is None else Path(options.out).expanduser()
    need(out is None or out.is_dir() or not out.exists(), f"--out {options.out}: a file is in the way")

    from dsel.answer import beyond
    from dsel.compare.comparison import compare
    from dsel.compare.report import show, write
    from dsel.compare.subset import common_pool, read, read_pool
    from dsel.show import say, to_terminal

    a, b, why = read(options.a), read(options.b), ""
    whole = read_pool(pool) if pool is not None else None
    if options.pool is None:
        whole, why = common_pool(a, b)
    result = compare(a, b, whole, examples=options.examples, notes=[why] if why else [])
    show(result)
    if out is not None:
        for file in write(result, out):
            sys.stdout.write(f"written: {file}\n")
    for line in beyond(a.run, b.run):
        say(line, to_terminal())


def _pool(given: str | None) -> str | dict[str, str] | None:
    """The path that `--pool` names, or files by their labels; None for none."""
    if given is None or given == "none":
        return None
    if not given.startswith("{"):
        return given
    from omegaconf import OmegaConf

    try:
        found = OmegaConf.to_container(OmegaConf.create(given))
    except Exception as error:  # whatever the YAML parser says
        raise ConfigError(f"--pool {given}: not a mapping such as '{{label: file}}'") from error
    whole = isinstance(found, dict) and bool(found) and all(isinstance(path, str) for path in found.values())
    need(whole, f"--pool {given}: not a mapping such as '{{label: file}}'")
    return {str(label): str(path) for label, path in found.items()}  # type: ignore[union-attr]


def main() -> None:
    cover()
    try:
        arguments = without_flags(sys.argv[1:])
        to_stderr()  # which rows of a file are no part of it
        run(arguments)
    except ConfigError as error:
        sys.stderr.write(f"dsel: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
