"""Artifacts of the cache at a URL, where other machines find them.

An artifact there is `<kind>/<digest of its key>/key.json`, which is its `key.json` here with the name of the folder
beside it that has the files. That folder is named by their digests, and uploaded before: what `key.json` names is
whole, whoever dies, and of two machines that made the same one, the last has its own files named, never a mixture.
`<digest>.partial/` has what is finished of an artifact that is being made, for who goes on with it when a machine dies.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsel.component import digest
from dsel.errors import ConfigError
from dsel.files import DIGESTS, SIDECAR, State, damage, remove, unsealed, with_digest
from dsel.remote import Remote, is_inside

log = logging.getLogger(__name__)

KEY = "key.json"
FILES = "in"  # the entry of a remote `key.json` with the folder of its files
EVERY = 300.0  # seconds between copies of what is finished of an unfinished artifact
SHARE = 0.05  # of the time that these copies may take


@dataclass
class RemoteCache:
    """The artifacts at a URL. What cannot be had or kept there is said, and made or kept here."""

    remote: Remote
    _there: set[str] = field(default_factory=set)  # those that are known to be whole there
    _damaged: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        """Whether there is an artifact of this name (`<kind>/<digest>`); its files are not looked at."""
        return name not in self._damaged and self._manifest(name) is not None

    def fetch(self, name: str, to: Path, needs: set[str]) -> bool:
        """Download an artifact with the files it `needs` to the folder `to`: whether it is there now.

        What an interrupted download has left is used, each file is compared with its digest.
        """
        try:
            manifest = None if name in self._damaged else self._manifest(name)
            if manifest is None or not needs <= manifest["files"].keys():
                return False
            files: dict[str, list[Any]] = manifest["files"]
            to.mkdir(parents=True, exist_ok=True)
            missing = [file for file, sealed in files.items() if damage(to, {file: sealed})]
            title = f"downloading {name.partition('/')[0]}"
            self.remote.get({f"{name}/{manifest[FILES]}/{file}": to / file for file in missing}, title)
            wrong = damage(to, files)
        except ConfigError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                log.warning("%s is not downloaded, and made here: %s", name, error)
                return False
            wrong = "a file is missing"
        if wrong is not None:
            log.warning("%s/%s is damaged (%s): made again, and uploaded again", self.remote.url, name, wrong)
            self._damaged.add(name)
            remove(to)
            return False
        for path in [path for path in to.rglob("*") if path.is_file()]:
            if path.relative_to(to).as_posix() not in files:  # of another upload, which this one followed
                path.unlink()
        self._there.add(name)
        log.info("%s: downloaded from %s", name, self.remote.url)
        return True

    def upload(self, name: str, final: Path) -> None:
        """Upload a whole artifact, unless it is there."""
        if name in self._there:
            return
        try:
            if not self.has(name):
                content = unsealed(json.loads((final / KEY).read_text(encoding="utf-8")))
                files = digest(content["files"])
                title = f"uploading {name.partition('/')[0]}"
                self.remote.put({f"{name}/{files}/{file}": final / file for file in content["files"]}, title)
                self.remote.write(f"{name}/{KEY}", json.dumps(with_digest({**content, FILES: files})).encode())
                log.info("%s: uploaded to %s", name, self.remote.url)
            self._there.add(name)
            self._damaged.discard(name)
            self.remote.remove(f"{name}.partial")
        except (OSError, ValueError, KeyError, ConfigError) as error:  # OSError: another process has removed it here
            log.warning("%s stays on this machine, until a run finds it there: %s", name, error)

    def withdraw(self, name: str) -> None:
        """Remove an artifact, and what is left of its making: nobody has a use for it."""
        try:
            self.remove(name)
        except ConfigError as error:
            log.warning("%s is not removed: %s", name, error)

    def remove(self, name: str) -> None:
        """The same. Raises `ConfigError` where that cannot be done."""
        self._there.discard(name)
        for part in (f"{name}/{KEY}", name, f"{name}.partial"):
            self.remote.remove(part)

    @contextmanager
    def keeping(self, name: str, partial: Path) -> Iterator[None]:
        """Inside, the artifact is made in the folder `partial`: it begins with what another machine had finished.

        What is finished of it is uploaded every now and then, and when the block fails.
        """
        there = f"{name}.partial"
        if not any(partial.iterdir()):
            self._restore(there, partial)
        over, sent, fault = threading.Event(), dict[str, State](), list[str]()

        def copy() -> None:
            try:
                self._copy(there, partial, sent)
            except (ConfigError, OSError) as error:  # OSError: the file has gone meanwhile
                if not fault:
                    fault.append(f"{error}")
                    log.warning("what is finished of %s is on this machine alone: %s", name, error)

        def now_and_then() -> None:
            pause = EVERY
            while not over.wait(pause):
                start = time.monotonic()
                copy()
                pause = max(EVERY, (time.monotonic() - start) / SHARE)

        thread = threading.Thread(target=now_and_then, name=f"copies of {name}", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            over.set()
            thread.join()
            copy()
            raise
        finally:
            over.set()
            thread.join()

    def _restore(self, there: str, partial: Path) -> None:
        try:
            found = self.remote.files(there)
            files = {name: partial / name.removeprefix(f"{there}/") for name in found}
            self.remote.get(files, "downloading what is finished")
            if found:
                log.info("%s: going on from what is there (%d files)", there, len(found))
        except ConfigError as error:
            log.warning("%s cannot be had: %s", there, error)

    def _copy(self, there: str, partial: Path, sent: dict[str, State]) -> None:
        """Upload what has changed, and remove what has gone: in groups, one after the other (`finished_parts`)."""
        now = set[str]()
        for group in finished_parts(partial):
            files = {f"{there}/{path.relative_to(partial).as_posix()}": path for path in group}
            self.remote.update(files, sent, "uploading what is finished")
            now |= files.keys()
        for name in sent.keys() - now:
            self.remote.remove(name)
            del sent[name]

    def _manifest(self, name: str) -> dict[str, Any] | None:
        """The `key.json` of an artifact; None where there is none, or none that holds."""
        content = self.remote.read(f"{name}/{KEY}")
        if content is None:
            return None
        try:
            found = unsealed(json.loads(content))
            names = [found[FILES], *found["files"]]
            if not all(map(is_inside, names)):
                raise ValueError("it names files that are elsewhere")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("%s/%s/%s is damaged (%s): made again", self.remote.url, name, KEY, error)
            self._damaged.add(name)
            return None
        return found


def finished_parts(partial: Path) -> Iterator[list[Path]]:
    """What is finished of an artifact in the making, in the order in which it has to be copied.

    All of it is verified by who goes on from it: shards have digests beside them, checkpoints one of all their files,
    and rows of a file that is filled in place one in its journal, which has to be the older copy.
    """
    digests = sorted(path for path in partial.rglob(f"*{SIDECAR}") if _named(path).exists())
    yield digests
    yield [_named(path) for path in digests]
    journals = sorted(partial.rglob("shard-*.jsonl"))
    yield journals
    yield sorted(
        {file for path in journals for file in path.parent.glob("*.npy") if not file.name.startswith((".", "shard-"))}
    )
    checkpoints = sorted(path for path in partial.rglob(DIGESTS))
    yield [file for path in checkpoints for file in path.parent.rglob("*") if file.is_file() and file != path]
    yield checkpoints


def _named(sidecar: Path) -> Path:
    return sidecar.with_name(sidecar.name.removesuffix(SIDECAR))
