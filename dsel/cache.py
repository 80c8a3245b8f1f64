"""A content-addressed store of artifacts: each is a folder, computed once however many runs race for it."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from dsel.component import digest, plain
from dsel.files import damage, locked, read_json, remember_digests, remove, seal, sync, unsealed, write_sealed
from dsel.remote import Remote, is_url
from dsel.remote_cache import KEY as KEY
from dsel.remote_cache import RemoteCache

log = logging.getLogger(__name__)

OF_THIS_MACHINE = ("tasks",)  # kinds whose files name folders: they are of no use elsewhere
FETCHED = ".fetched"  # of a folder with a download


class Cache:
    """Artifacts under `folder/<kind>/<digest of the key>/`.

    An artifact is built in `<digest>.partial` under a file lock and renamed when it is complete and on disk, so that
    what has its final name is whole. The operating system drops the lock of a process that dies; the next one finds
    the partial folder and goes on from what is in it. `key.json` holds the key and the digest of every file; they are
    checked when an artifact is found, and one that does not hold is set aside as `<digest>.damaged` and built again.

    Where there is a `remote`, what is missing here is downloaded from there, and what is built here is uploaded.
    """

    def __init__(self, folder: str | Path, remote: Remote | None = None):
        self.folder = Path(folder).expanduser()
        self.remote = None if remote is None else RemoteCache(remote)
        self._leases: dict[Path, Lease] = {}
        remember_digests(self.folder / "digests")  # of the files that keys are made of, and of its own

    def check(self) -> None:
        """Raise `ConfigError` where the URL cannot be read."""
        if self.remote is not None:
            self.remote.remote.check(write=False)

    def path(self, kind: str, key: Any) -> Path:
        """Where the artifact of `key` is, or will be."""
        return self.folder / kind / digest(key)

    def has(self, kind: str, key: Any) -> bool:
        """Whether the artifact is here or at the URL. Nothing of it is read."""
        final, remote = self.path(kind, key), self._remote(kind)
        return final.is_dir() or (remote is not None and remote.has(_name(final)))

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
            there = True
        else:
            there = self._fetch_or_build(kind, key, build, needs, wait)
        if remote := self._remote(kind):
            remote.upload(_name(final), final)
        return final, there

    def fetch(self, kind: str, key: Any, needs: Sequence[str] = ()) -> bool:
        """Whether the artifact is here, downloaded now if need be."""
        final = self.path(kind, key)
        if found(final, needs) or (remote := self._remote(kind)) is None:
            return found(final, needs)
        with self.lock(final, kind):
            return found(final, needs) or self._download(remote, final, key, needs)

    def withdraw(self, kind: str, name: str) -> None:
        """Remove the artifact called `name` from the URL, where there is one. (`clear` removes what is here.)"""
        if remote := self._remote(kind):
            remote.withdraw(f"{kind}/{name}")

    def _fetch_or_build(
        self, kind: str, key: Any, build: Callable[[Path], None], needs: Sequence[str], wait: bool
    ) -> bool:
        final, remote = self.path(kind, key), self._remote(kind)
        with self.lock(final, kind):
            if found(final, needs):
                return True
            set_aside(final)
            if remote is not None and self._download(remote, final, key, needs):
                return True
            partial = final.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            with nullcontext() if remote is None else remote.keeping(_name(final), partial):
                build(partial)
            publish(partial, final, key, wait=wait)
            return False

    def _download(self, remote: RemoteCache, final: Path, key: Any, needs: Sequence[str]) -> bool:
        """To be called under the artifact's lock."""
        fetched = final.with_suffix(FETCHED)
        if not remote.fetch(_name(final), fetched, set(needs)):
            return False
        publish(fetched, final, key)
        return True

    def _remote(self, kind: str) -> RemoteCache | None:
        return None if kind in OF_THIS_MACHINE else self.remote

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
                for suffix in (".partial", ".damaged", FETCHED):
                    remove(final.with_suffix(suffix))
                return True
        except Timeout:
            return False

    def lock(self, final: Path, kind: str) -> AbstractContextManager[None]:
        """The right to build an artifact, which one process has at a time."""
        return locked(final.with_suffix(".lock"), f"another run is computing this {kind} ({final.name})")


def at(place: str, scratch: str) -> Cache:
    """The cache in a folder; where `place` is a URL, the one in the folder `scratch` with that URL behind it."""
    return Cache(scratch, Remote(place, "cache")) if is_url(place) else Cache(place)


def _name(final: Path) -> str:
    """What an artifact is called at a URL."""
    return f"{final.parent.name}/{final.name}"


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
