"""dsel select FILE --budget N: choose rows of your own data, and write them to a file.

This module stays light: `--help` and every complaint about the command line come before anything heavy loads.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import NoReturn

from dsel.distributed import tell_libraries
from dsel.ending import in_one_line
from dsel.errors import ConfigError, need, need_path
from dsel.interrupt import wait_for_logging
from dsel.secrets import cover
from dsel.verbosity import to_stderr, without_flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (dsel select --help shows the options)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dsel select",
        description="Choose examples of your own data, and write them to a file in the form that they had.",
        epilog="-q says less, -v more. `dsel help selector` lists the methods, `dsel help kmq` the options of one.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", help="JSON, JSON lines, CSV, Parquet or Arrow, or a folder of such files")
    add("--budget", metavar="N", required=True, type=float, help="examples to choose; up to 1 a share of all")
    add("-o", "--out", metavar="FILE", help=".jsonl, .json, .csv or .parquet (default: FILE.selected.jsonl beside it)")
    add("--target", metavar="FILE", action="append", default=[], help="examples of what the model shall be good at")
    add("--selector", metavar="NAME", help="the method (default: near-duplicates go, then a share of each cluster)")
    add("--embedder", metavar="NAME", help="what makes vectors of texts (default: tfidf_svd, which needs no model)")
    add("--scorer", metavar="NAME", help="the quality, for methods that need one (default: log_length, of responses)")
    add("--seed", metavar="N", type=int, default=0, help="of all that is drawn (default: 0)")
    add("--columns", metavar="OURS=YOURS,…", help="where columns are not recognised: prompt=question,completion=answer")
    add("--picture", metavar="FILE", help="also a picture of the pool and what was chosen of it: .png, .svg or .pdf")
    add(
        "--set", metavar="OPTION=VALUE", action="append", default=[], dest="overrides",
        help="any option of `dsel run`: selector.draw=uniform (may be given several times)",
    )  # fmt: skip
    return parser


def run(arguments: list[str]) -> None:
    """Choose as the command line says. Raises `ConfigError` with one line for what cannot be done."""
    options = _parser().parse_args(arguments)
    for file in options.files:
        need_path(file, option="FILE")
    for file in options.target:
        need_path(file, option="--target")
    from dsel.subset import figure, rows

    first = Path(options.files[0]).expanduser()
    out = rows.beside(first) if options.out is None else Path(options.out).expanduser()
    rows.check(out, [*options.files, *options.target])
    picture = None if options.picture is None else Path(options.picture).expanduser()
    if picture is not None:
        figure.check(picture)

    from dsel.show import say, show_table, to_terminal
    from dsel.subset.choose import Asked, choose, named
    from dsel.subset.describe import circumstances, table

    chosen_from = named(selector=options.selector, embedder=options.embedder, scorer=options.scorer)
    own = [*chosen_from, *options.overrides]
    asked = Asked(options.budget, options.seed, own, _columns(options.columns))
    chosen = choose(asked, files=options.files, target_files=options.target)
    replaced = " (in place of the file that was there)" if out.exists() else ""
    rows.write(chosen.problem.pool.take(chosen.indices).originals["json"], out)
    if picture is not None:
        figure.draw(chosen, picture)
    console = to_terminal()
    show_table(table(chosen, ", ".join(Path(file).name for file in options.files)), console)
    say(circumstances(chosen), console)
    say(f"written: {out}{replaced}", console)
    if picture is not None:
        say(f"written: {picture}", console)


def _columns(given: str | None) -> dict[str, str] | None:
    if given is None:
        return None
    pairs = [part.partition("=") for part in given.split(",")]
    whole = all(ours.strip() and equals and yours.strip() for ours, equals, yours in pairs)
    need(whole, f"--columns {given}: give our name and yours of each, as in prompt=question,completion=answer")
    return {ours.strip(): yours.strip() for ours, _, yours in pairs}


def main() -> None:
    tell_libraries()
    warnings.simplefilter("ignore", FutureWarning)  # between libraries, about each other
    cover()
    wait_for_logging()
    with in_one_line():
        arguments = without_flags(sys.argv[1:])
        to_stderr()
        run(arguments)


if __name__ == "__main__":
    main()
