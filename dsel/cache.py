"""A content-addressed store of artifacts: each is a folder, computed once however many runs race for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsel.component import digest, plain

log = logging.getLogger(__name__)


class Cache:
    """Artifacts under `folder/<kind>/<digest of the key>/`.

    An artifact is built in `<digest>.partial` under a file lock and renamed when it is complete, so that what
    has its final name is whole. The operating system drops the lock of a process that dies; the next one finds
    the partial folder and goes on from what is in it.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()

    def path(self, kind: str, key: Any) -> Path:
        """Where the artifact of `key` is, or will be."""
        return self.folder / kind / digest(key)

    def artifact(self, kind: str, key: Any, build: Callable[[Path], None]) -> tuple[Path, bool]:
        """Folder of the artifact and whether it was there already.

        `build(folder)` fills the folder when it was not; it may be called again on what a killed run left.
        """
        from filelock import FileLock, Timeout

        final = self.path(kind, key)
        if final.is_dir():
            return final, True
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(final.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another run is computing this %s (%s): waiting for it", kind, final.name)
            lock.acquire()
        try:
            if final.is_dir():
                return final, True
            partial = final.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            build(partial)
            write_json(partial / "key.json", plain(key))
            partial.rename(final)
            return final, False
        finally:
            lock.release()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON so that a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
