"""dsel cache and dsel runs: what is on the disk, how large it is and when it was used last; and its removal.

Nothing goes that a living process uses: artifacts have leases and locks, runs a process. Those are of this machine:
of what is at a URL, nobody knows who uses it elsewhere, and it takes a word more to remove it (`--there`).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

from dsel.cache import KEY, Cache
from dsel.ending import in_one_line
from dsel.errors import ConfigError, need, need_path
from dsel.files import remove
from dsel.record.facts import OddRecord
from dsel.record.reader import NAME, RunFolder
from dsel.remote import Remote, is_url
from dsel.remote_cache import RemoteCache
from dsel.remote_runs import need_here, scratch
from dsel.secrets import cover
from dsel.show import Table, say, show_table, to_terminal

NAMED = re.compile(r"([0-9a-f]{24})(\.partial|\.fetched|\.damaged|\.gone-[0-9a-f]+)?$")  # folders of the cache
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
STEPS = ("B", "kB", "MB", "GB", "TB")
UNREAD = "no record"


@dataclass(frozen=True)
class Artifact:
    """What the cache has under one name: the artifact, and what unfinished or damaged work left of it."""

    kind: str
    name: str
    size: int
    used: float
    whole: bool


@dataclass(frozen=True)
class Run:
    """A run's folder. read: None where its record cannot be."""

    folder: Path
    read: RunFolder | None
    size: int
    changed: float

    @property
    def status(self) -> str:
        return UNREAD if self.read is None else self.read.status


def artifacts(folder: Path) -> Iterator[Artifact]:
    """All of a cache, kind by kind, the one that was not used for longest first."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        named: dict[str, list[Path]] = {}
        for path in kind.iterdir():
            if (match := NAMED.match(path.name)) and path.is_dir():
                named.setdefault(match[1], []).append(path)
        parts = [
            Artifact(kind.name, name, sum(map(_size, paths)), max(map(_used, paths)), (kind / name).is_dir())
            for name, paths in named.items()
        ]
        yield from sorted(parts, key=lambda part: part.used)


def artifacts_there(remote: Remote) -> Iterator[Artifact]:
    """The same of a cache at a URL; `used` is when it was uploaded, as nobody writes down who reads it."""
    sizes, times, whole = Counter[tuple[str, str]](), dict[tuple[str, str], float](), set[tuple[str, str]]()
    for path, found in remote.files().items():
        kind, _, inside = path.partition("/")
        folder, _, file = inside.partition("/")
        if match := NAMED.match(folder):
            name = (kind, match[1])
            sizes[name] += found.size
            times[name] = max(found.modified, times.get(name, 0.0))
            if (folder, file) == (match[1], KEY):
                whole.add(name)
    for name in sorted(sizes, key=lambda name: (name[0], times[name])):
        yield Artifact(*name, sizes[name], times[name], name in whole)


def runs(folder: Path) -> Iterator[Run]:
    """The runs in a folder, the oldest first."""
    found = []
    for path in folder.iterdir():
        if path.is_dir() and ((path / NAME).exists() or (path / ".hydra").is_dir()):
            try:
                read = RunFolder.read(path)
            except OddRecord:
                read = None
            found.append(Run(path, read, _size(path), _changed(path)))
    yield from sorted(found, key=lambda run: run.changed)


def clear_cache(folder: Path, wanted: Sequence[Artifact]) -> tuple[list[Artifact], list[Artifact]]:
    """Remove artifacts. Returns those that are gone, and those that are in use and stay."""
    cache = Cache(folder)
    gone = [each for each in wanted if cache.clear(each.kind, each.name)]
    return gone, [each for each in wanted if each not in gone]


def clear_there(remote: Remote, wanted: Sequence[Artifact]) -> tuple[list[Artifact], list[Artifact]]:
    """The same at a URL, also of what other machines may be using: they make again what they miss."""
    for each in wanted:
        RemoteCache(remote).remove(f"{each.kind}/{each.name}")
    return [*wanted], []


def seconds(age: str) -> float:
    """`30d`, `12h`, `2w`, `90m` in seconds. Raises `ConfigError`."""
    found = re.fullmatch(r"(\d+)([mhdw])", age)
    if found is None:
        raise ConfigError(f"--older-than {age}: give a number of minutes, hours, days or weeks: 90m, 12h, 30d, 2w")
    return int(found[1]) * UNITS[found[2]]


def human(size: float) -> str:
    """A size in bytes, in the unit that suits it."""
    step = 0
    while size >= 1000 and step < len(STEPS) - 1:
        size, step = size / 1000, step + 1
    return f"{size:,.1f} {STEPS[step]}" if step else f"{size:,.0f} B"


def _size(folder: Path) -> int:
    """The bytes of all files in a folder; what goes meanwhile has none."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(where, name)).st_size
            except OSError:
                continue
    return total


def _used(folder: Path) -> float:
    """When an artifact was used last: it is touched then, and its key is read."""
    times = [folder.stat().st_mtime]
    key = folder / KEY
    if key.exists():
        times += [key.stat().st_mtime, key.stat().st_atime]
    return max(times)


def _changed(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, folder / NAME) if path.exists())


def _old_enough(moment: float, age: str | None) -> bool:
    return age is None or time.time() - moment > seconds(age)


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} ({self.prog} --help shows the options)")


def _usual() -> str:
    """The folder, or the URL, of the cache that runs use where nothing else is said."""
    return os.environ.get("DSEL_CACHE") or "~/.cache/dsel"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dsel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cache = commands.add_parser("cache", help="what is kept to be used again")
    cache.add_argument("kinds", metavar="KIND", nargs="*", help="embeddings, scores, fits, … (default: all)")
    cache.add_argument("--cache", metavar="FOLDER|URL", default=_usual(), help="(default: %(default)s)")
    cache.add_argument("--older-than", metavar="AGE", help="only what was not used for so long: 90m, 12h, 30d, 2w")
    cache.add_argument("--there", action="store_true", help="of a cache at a URL: what is there, not its copy here")
    cache.add_argument("--clear", action="store_true", help="remove it, but for what a run on this machine is using")
    runs = commands.add_parser("runs", help="the runs of a folder")
    runs.add_argument("folder", metavar="FOLDER|URL", nargs="?", default="runs", help="(default: runs)")
    runs.add_argument("--older-than", metavar="AGE", help="only what was not changed for so long: 90m, 12h, 30d, 2w")
    runs.add_argument("--status", metavar="STATUS", help="only those: finished, failed, interrupted, killed, …")
    runs.add_argument("--clear", action="store_true", help="remove them, but for those that are running")
    return parser


def _cache(options: argparse.Namespace) -> None:
    remote = Remote(options.cache.rstrip("/"), "--cache") if is_url(options.cache) else None
    need(remote is not None or not options.there, f"--there: {options.cache} is no URL")
    if remote is not None:
        remote.check(write=False)
        there = list(artifacts_there(remote))
        if options.there:
            _kept(options, there, remote.url, partial(clear_there, remote))
            return
    console, place = to_terminal(), options.cache if remote is None else scratch()
    nothing = place in (_usual(), scratch()) and not Path(place).expanduser().exists()
    if nothing:
        say(f"{place}: nothing yet", console)
    where = place if nothing else str(need_path(place, option="--cache"))
    if remote is not None:
        what = f"{len(there):,} artifacts, {human(sum(each.size for each in there))}"
        say(f"{remote.url} has {what}; --there shows those; this is their copy on this machine: {where}", console)
    if not nothing:
        _kept(options, list(artifacts(Path(where))), where, partial(clear_cache, Path(where)))


def _kept(
    options: argparse.Namespace,
    every: Sequence[Artifact],
    where: str,
    clear: Callable[[Sequence[Artifact]], tuple[list[Artifact], list[Artifact]]],
) -> None:
    """Show, or remove, what is asked for of all artifacts of a cache. clear: gives what is gone, and what is left."""
    console = to_terminal()
    kinds = sorted({each.kind for each in every})
    for kind in options.kinds:
        need(kind in kinds, f"{kind}: the cache has none of that kind; there are {', '.join(kinds) or 'none'}")
    wanted = [
        each
        for each in every
        if (not options.kinds or each.kind in options.kinds) and _old_enough(each.used, options.older_than)
    ]
    if options.clear:
        gone, left = clear(wanted)
        say(f"removed: {len(gone):,} artifacts, {human(sum(each.size for each in gone))}", console)
        if left:
            say(f"in use, and left: {len(left):,} artifacts, {human(sum(each.size for each in left))}", console)
        return
    if not wanted:
        say(f"{where}: nothing" + ("" if options.older_than is None else f" that old ({options.older_than})"), console)
        return
    rows: list[tuple[str, ...] | None] = []
    for kind in sorted({each.kind for each in wanted}):
        rows.append((kind, *_summed([each for each in wanted if each.kind == kind])))
    rows += [None, ("all", *_summed(wanted))]
    times = ("first upload", "last upload") if options.there else ("not used since", "last used")
    header = ("kind", "artifacts", "unfinished", "size", *times)
    show_table(Table(rows, where, header, "lrrrll"), console)
    say("the same with --clear removes them; --older-than 30d looks at what was not used for as long", console)


def _summed(some: Sequence[Artifact]) -> tuple[str, ...]:
    used = [each.used for each in some]
    unfinished = sum(not each.whole for each in some)
    size = human(sum(each.size for each in some))
    return (f"{len(some) - unfinished:,}", f"{unfinished:,}", size, _date(min(used)), _date(max(used)))


def _runs(options: argparse.Namespace) -> None:
    if options.folder == "runs" and not Path("runs").exists():
        say("there are no runs here yet: dsel run makes each a folder in runs/", to_terminal())
        return
    remote = Remote(options.folder.rstrip("/"), "FOLDER") if is_url(options.folder) else None
    folder = need_here(options.folder, option="FOLDER", wanted=lambda name: name.name == NAME)
    every = runs(folder) if remote is None else _sized(list(runs(folder)), remote)
    wanted = [
        run
        for run in every
        if (options.status or run.status) == run.status and _old_enough(run.changed, options.older_than)
    ]
    console = to_terminal()
    if options.clear:
        narrowed = options.status is not None or options.older_than is not None
        need(narrowed, "--clear: say which runs, with --status failed or --older-than 30d")
        idle = [run for run in wanted if run.status != "running"]
        for run in idle:
            if remote is not None:
                remote.remove(f"{run.folder.name}/{NAME}")  # without it, it is no run
                remote.remove(run.folder.name)
            remove(run.folder)
        say(f"removed: {len(idle):,} runs, {human(sum(run.size for run in idle))}", console)
        if len(idle) < len(wanted):
            say(f"running, and left: {len(wanted) - len(idle):,} runs", console)
        return
    if not wanted:
        say(f"{options.folder}: no such runs", console)
        return
    rows: list[tuple[str, ...] | None] = [_row(run) for run in wanted]
    rows += [None, ("all", "", "", f"{len(wanted):,} runs", "", human(sum(run.size for run in wanted)))]
    header = ("run", "method", "budget", "status", "result", "size")
    show_table(Table(rows, options.folder, header, "llrllr"), console)


def _sized(found: Sequence[Run], remote: Remote) -> list[Run]:
    """Runs at a URL, of which only the records are here."""
    sizes = Counter[str]()
    for name, each in remote.files().items():
        sizes[PurePosixPath(name).parts[0]] += each.size
    return [replace(run, size=sizes[run.folder.name]) for run in found]


def _row(run: Run) -> tuple[str, ...]:
    size = human(run.size)
    if run.read is None:
        return (run.folder.name, "", "", run.status, "", size)
    facts, figure = run.read.facts, run.read.objective
    result = "" if figure is None else f"{run.read.headline} {figure:.4f}"
    budget = f"{facts['budget']:,}" if "budget" in facts else ""
    return (run.folder.name, run.read.choice("selector") or "", budget, run.status, result, size)


def run(arguments: list[str]) -> None:
    """List or remove as the command line says. Raises `ConfigError` with one line for what cannot be done."""
    options = _parser().parse_args(arguments)
    {"cache": _cache, "runs": _runs}[options.command](options)


def main() -> None:
    cover()
    with in_one_line():
        run(sys.argv[1:])


if __name__ == "__main__":
    main()
