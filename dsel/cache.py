"""A content-addressed store of artifacts: each is a folder, computed once however many runs race for it."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from dsel.component import digest, plain
from dsel.files import damage, locked, read_json, remember_digests, remove, seal, sync, unsealed, write_sealed

log = logging.getLogger(__name__)

KEY = "key.json"


class Cache:
    """Artifacts under `folder/<kind>/<digest of the key>/`.

    An artifact is built in `<digest>.partial` under a file lock and renamed when it is complete and on disk, so that
    what has its final name is whole. The operating system drops the lock of a process that dies; the next one finds
    the partial folder and goes on from what is in it. `key.json` holds the key and the digest of every file; they are
    checked when an artifact is found, and one that does not hold is set aside as `<digest>.damaged` and built again.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        self._leases: dict[Path, Lease] = {}
        remember_digests(self.folder / "digests")  # of the files that keys are made of, and of its own

    def path(self, kind: str, key: Any) -> Path:
        """Where the artifact of `key` is, or will be."""
        return self.folder / kind / digest(key)

    def artifact(
        self,
        kind: str,
        key: Any,
        build: Callable[[Path], None],
        *,
        needs: Sequence[str] = (),
        lease: bool = False,
        wait: bool = True,
    ) -> tuple[Path, bool]:
        """Folder of the artifact and whether it was there already, whole and with the files it `needs`.

        `build(folder)` fills the folder when it was not; it may be called again on what a killed run left.
        lease: nobody removes it as long as this object is there. wait: see `seal`; False for what is soon made again.
        """
        final = self.path(kind, key)
        if lease and final not in self._leases:
            with suppress(OSError):  # a cache that others fill, and that cannot be written here
                self._leases[final] = Lease(final)
        if found(final, needs):
            with suppress(OSError):
                os.utime(final)  # when it was used last
            return final, True
        with self.lock(final, kind):
            if found(final, needs):
                return final, True
            set_aside(final)
            partial = final.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            build(partial)
            publish(partial, final, key, wait=wait)
            return final, False

    def clear(self, kind: str, name: str) -> bool:
        """Remove the artifact called `name` with all that unfinished or damaged work left of it.

        Returns whether it is removed: what somebody uses or is computing is not.
        """
        from filelock import FileLock, Timeout

        final = self.folder / kind / name
        lock = FileLock(final.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                if not Lease(final).remove():
                    return False
                for suffix in (".partial", ".damaged"):
                    remove(final.with_suffix(suffix))
                return True
        except Timeout:
            return False

    def lock(self, final: Path, kind: str) -> AbstractContextManager[None]:
        """The right to build an artifact, which one process has at a time."""
        return locked(final.with_suffix(".lock"), f"another run is computing this {kind} ({final.name})")


class Lease:
    """Keeps an artifact from being removed while this process uses it.

    Leases of one artifact are shared; it may be changed or removed by who is `alone`. The operating system drops those
    of a process that dies.
    """

    def __init__(self, final: Path):
        final.parent.mkdir(parents=True, exist_ok=True)
        self.final = final
        self._file = final.with_suffix(".use").open("ab")  # closed, and the lease over, when nobody has this object
        fcntl.flock(self._file, fcntl.LOCK_SH)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else has a lease, and for the length of the block nobody gets one."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def remove(self) -> bool:
        """Give the lease up, and remove the artifact unless somebody else uses it: the last one does.

        Returns whether it is removed.
        """
        with self.alone() as alone:
            if alone:
                for left in [self.final, *self.final.parent.glob(f"{self.final.name}.gone-*")]:
                    remove(left)
        self._file.close()
        return alone

    def drop(self, name: str) -> None:
        """Remove one file of the artifact, unless somebody else uses it."""
        with self.alone() as alone:
            if alone and (self.final / name).exists():
                content = unsealed(read_json(self.final / KEY))
                content["files"].pop(name, None)
                write_sealed(self.final / KEY, content)
                (self.final / name).unlink()


def found(final: Path, needs: Sequence[str] = ()) -> bool:
    """Whether an artifact is there, whole, with the files it `needs`."""
    return final.is_dir() and problem(final) is None and set(needs) <= set(_files(final))


def problem(final: Path) -> str | None:
    """What is wrong with the artifact in `final`; None where nothing is."""
    try:
        return damage(final, _files(final))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{KEY} cannot be read ({type(error).__name__})"


def _files(final: Path) -> dict[str, list[Any]]:
    """What `seal` said of the artifact's files when it was published."""
    return unsealed(read_json(final / KEY))["files"]


def set_aside(final: Path) -> None:
    """Give what has the name `final`, if it is a damaged artifact, another one. To be called under its lock."""
    wrong = problem(final) if final.exists() else None
    if wrong is not None:
        log.warning("%s is damaged (%s): set aside, and made again", final, wrong)
        aside = final.with_suffix(".damaged")
        remove(aside)
        final.rename(aside)


def publish(partial: Path, final: Path, key: Any, *, wait: bool = True) -> None:
    """Give a complete artifact its name, once it is on disk (wait: see `seal`). To be called under its lock.

    One of that name, which lacked files (`Lease.drop`), gets those it lacks and is not otherwise touched: somebody may
    be reading it.
    """
    for left in (partial / KEY, *partial.glob(".*")):  # of a killed run
        left.unlink(missing_ok=True)
    files = seal(partial, wait=wait)
    if final.exists():
        known = _files(final)
        for name in files.keys() - known.keys():
            (partial / name).rename(final / name)
        write_sealed(final / KEY, {"key": plain(key), "files": {**files, **known}})
        remove(partial)
        return
    write_sealed(partial / KEY, {"key": plain(key), "files": files})
    partial.rename(final)
    sync(final.parent)
