"""The one exception users see, and the checks that raise it before anything heavy loads."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shlex
from pathlib import Path

ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # ends of lines, controls, halves of signs


class ConfigError(Exception):
    """What was asked for cannot be done. The message is one line: what is wrong, where, what to do.

    What it quotes out of files may hold anything: all that is no text of one line is escaped.
    """

    def __init__(self, message: str):
        super().__init__(plain(message))


class LostWorker(Exception):
    """A process that this one had started failed, or was killed. The message is one line, with what it said itself."""

    def __init__(self, message: str):
        super().__init__(plain(message))


def plain(text: str) -> str:
    """`text` as a line can show it: line ends as spaces, other signs without a shape escaped as Python does."""
    return ODD.sub(lambda found: found[0].encode("unicode_escape").decode(), " ".join(text.split("\n")))


def need_package(module: str, *, install: str, why: str) -> None:
    """Raise `ConfigError` when `module` cannot be imported, without importing it. install: what brings it, for pip."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of what it is in
        found = None
    if found is None:
        raise ConfigError(f"{why} needs the package {module!r}: pip install {shlex.quote(install)}")


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
        meant = found.absolute()
        looked = "" if str(meant) == str(path) else f" (looked for {meant})"
        raise ConfigError(f"{option}={path}: no such file or folder{looked}")
    return found


OF_SUBMITIT = ("UncompletedJobError", "FailedJobError")  # of a sweep's job that ended without a word, or never began

WORLD = {  # what systems and libraries say (a regular expression) → what it comes to
    errno.ENOSPC: (
        r"No space left on device|\d+ requested and \d+ written",  # the second is what NumPy says of it
        "the disk is full: free some space, or take another with runs=…, cache=…",
    ),
    errno.EDQUOT: (
        "Disk quota exceeded",
        "the quota is used up: free some, or take another disk with runs=…, cache=…",
    ),
    errno.EROFS: ("Read-only file system", "it cannot be written: name another folder with runs=… or cache=…"),
    errno.EACCES: ("Permission denied", "no permission: change it, or name another folder with runs=… or cache=…"),
    errno.EPERM: ("Operation not permitted", "it is not permitted: name another folder with runs=… or cache=…"),
    errno.EIO: ("Input/output error", "the disk failed: see its log, and name another folder with runs=… or cache=…"),
    errno.EMFILE: ("Too many open files", "too many files are open: raise the limit (ulimit -n)"),
    errno.ENAMETOOLONG: ("File name too long", "a name is too long for this disk"),
    errno.ENOMEM: ("Cannot allocate memory", "there is no more memory"),
}


def world(error: BaseException) -> str | None:
    """One line for an error of the world around us (a full disk, no permission, no memory): what, where, what to do.

    None for any other. Looked at is `error` and what caused it: libraries wrap the system's words in their own.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LostWorker):
            return str(cause)
        if type(cause).__name__ in OF_SUBMITIT:
            lines = str(cause).strip().splitlines() or [type(cause).__name__]
            if not lines[0].startswith("Job "):  # what sbatch says
                return f"this job cannot be submitted: {lines[-1]}"
            return f"{lines[0]}: the other jobs go on; the same command runs again what has not finished"
        text = " ".join(str(cause).split())
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            advice = "smaller batches need less, for instance trainer.micro_batch_size"
            return f"out of memory ({text[:150] or 'of this process'}): {advice}"
        for number, (saying, meaning) in WORLD.items():
            if (isinstance(cause, OSError) and cause.errno == number) or re.search(saying, text):
                where = getattr(cause, "filename", None) or text[:200]
                return f"{where}: {meaning}"
        cause = cause.__cause__ or cause.__context__
    return None


def need(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)
