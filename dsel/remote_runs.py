"""Folders of runs at a URL: each run is written here, and copied there whenever a stage ends.

A run that is made here is in `<scratch>/runs/<the URL's parts>`; what commands read of runs there, whoever
made them, is in `<scratch>/read/<the URL's parts>`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from dsel.errors import ConfigError, need, need_path
from dsel.files import State, unsealed
from dsel.record.facts import NAME
from dsel.remote import Object, Remote, Unreachable, is_inside, is_url, parts

log = logging.getLogger(__name__)

SCRATCH = "DSEL_SCRATCH"  # the environment variable that conf/config.yaml's `scratch` is
INDEX = ".finished"  # `dsel.sweep`'s: what finished runs are found by
WEIGHTS = "model"  # of a run's folder: what no command reads

Wanted = Callable[[PurePosixPath], bool]


class Runs:
    """The folder of runs that a configuration names. folder: where it is on this machine."""

    def __init__(self, runs: str, scratch: str):
        self.folder = Path(here(runs, scratch))
        self.remote = Remote(runs.rstrip("/"), "runs") if is_url(runs) else None
        self._sent: dict[str, State] = {}

    def check(self) -> None:
        """Raise `ConfigError` where the URL cannot be written."""
        if self.remote is not None:
            self.remote.check(write=True)

    def keep(self, folder: Path) -> None:
        """Copy what has changed in the folder of a run that goes on. Where that fails, a later copy has it too."""
        try:
            self._copy(folder)
        except (OSError, ConfigError) as error:  # OSError: a file went meanwhile
            log.warning("%s is not copied for now: %s", folder.name, error)

    def finish(self, folder: Path, key: str) -> None:
        """Copy a finished run, and last of all the entry that it is found by.

        Raises:
            ConfigError: it could not be, and is here alone.
        """
        if self.remote is not None:
            entry = self.folder / INDEX / f"{key}.json"
            try:
                self._copy(folder)
                self.remote.write(f"{INDEX}/{entry.name}", entry.read_bytes())
            except Unreachable as error:
                raise ConfigError(
                    f"{error}; the run is complete, in {folder} alone: a sweep copies it again"
                ) from error

    def fetch(self, key: str) -> bool:
        """Download the finished run of this key, where the URL has one: whether it has."""
        content = None if self.remote is None else self.remote.read(f"{INDEX}/{key}.json")
        if content is None or self.remote is None:
            return False
        try:
            name = unsealed(json.loads(content))["folder"]
            need(is_inside(name) and name not in ("", "."), "it names a folder that is elsewhere")
        except (ValueError, KeyError, ConfigError, RecursionError) as error:
            log.warning("%s/%s/%s.json is damaged (%s)", self.remote.url, INDEX, key, error)
            return False
        found = {file: each for file, each in self.remote.files(name).items() if _read(PurePosixPath(file))}
        _update(self.remote, found, self.folder)
        (self.folder / INDEX).mkdir(parents=True, exist_ok=True)
        (self.folder / INDEX / f"{key}.json").write_bytes(content)
        return bool(found)

    def _copy(self, folder: Path) -> None:
        """Upload the files that have changed since the last time, the record last: what it says is there."""
        if self.remote is None:
            return
        files = {path.relative_to(self.folder).as_posix(): path for path in _files(folder)}
        record = {name: path for name, path in files.items() if path == folder / NAME}
        for part in ({name: path for name, path in files.items() if name not in record}, record):
            self.remote.update(part, self._sent, f"uploading {folder.name}")


def here(runs: str, scratch: str) -> str:
    """The folder of this machine that stands for a folder of runs: itself where it is no URL."""
    return str(_copied(runs, Path(scratch, "runs"))) if is_url(runs) else runs


def _copied(url: str, folder: Path) -> Path:
    """Where in `folder` the copy of what is at a URL is."""
    return folder.expanduser().joinpath(*parts(url, "runs"))


def scratch() -> str:
    """The folder for copies that commands use, and runs where nothing else is said."""
    return os.environ.get(SCRATCH) or "~/.cache/dsel"


def need_here(runs: str | Path, *, option: str, wanted: Wanted | None = None) -> Path:
    """The folder or file that is named, on this machine: what is at a URL is downloaded, unless that was done before.

    Args:
        runs: A run, a folder of runs or a file, or its URL.
        option: What names it, for messages.
        wanted: Which files, by their names below the URL; all but saved weights where it is not said.

    Raises:
        ConfigError: nothing is there, or it cannot be reached.
    """
    if not is_url(str(runs)):
        return need_path(runs, option=option)
    remote, folder = Remote(str(runs).rstrip("/"), option), _copied(str(runs), Path(scratch(), "read"))
    remote.check(write=False)
    listed = remote.files()
    need(bool(listed), f"{option}={remote.url}: nothing is there")
    chosen = {name: each for name, each in listed.items() if (wanted or _read)(PurePosixPath(name))}
    folder.mkdir(parents=True, exist_ok=True)
    _update(remote, chosen, folder)
    for path in [*folder.rglob(NAME), *folder.rglob("*.wandb")]:  # of runs that are there no more
        if path.relative_to(folder).as_posix() not in listed:
            path.unlink()
    return folder


def original(path: str | Path) -> str:
    """What a copy that `need_here` made is the copy of: its URL; the path itself of any other."""
    copies = Path(scratch(), "read").expanduser()
    if not Path(path).is_relative_to(copies):
        return str(path)
    protocol, *names = Path(path).relative_to(copies).parts
    return f"{protocol}://{'/' if protocol in ('file', 'local') else ''}{'/'.join(names)}"


def _read(name: PurePosixPath) -> bool:
    """Whether commands have a use for a file of a run."""
    return WEIGHTS not in name.parts[:-1]


def _update(remote: Remote, files: dict[str, Object], folder: Path) -> None:
    """Download the files that are not here as they are there; each is here whole or as it was."""
    older = {name: each for name, each in files.items() if _is_older(folder / name, each)}
    arriving = {name: _arriving(folder / name) for name in older}
    try:
        remote.get(arriving, f"downloading {remote.url}")
        for name, path in arriving.items():
            if older[name].modified:
                os.utime(path, (older[name].modified,) * 2)
            path.replace(folder / name)
    finally:
        for path in arriving.values():
            path.unlink(missing_ok=True)


def _is_older(path: Path, there: Object) -> bool:
    """Whether a file is not here, or was changed there after it was changed here."""
    return not path.exists() or path.stat().st_mtime < there.modified


def _arriving(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}-{path.name}")


def _files(folder: Path) -> Iterator[Path]:
    """The files of a run; those that are being written, and links, are none."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            yield path
