"""Folders at a URL: a bucket (s3://, gs://) or whatever else fsspec reaches, beside a folder of this machine.

Work needs a real folder, which is mapped into memory, locked and renamed in; what is finished is copied. Keys are what
the protocol's library finds in the environment or in its own files, and retries are the library's.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from dsel.errors import ConfigError, need
from dsel.files import State, state_of
from dsel.progress import progress
from dsel.secrets import redact

log = logging.getLogger(__name__)

MARK = ".dsel"  # an object that is written to see whether that can be done
AT_ONCE = 8  # files on their way; each has some parts of 50 MB in memory
PACKAGES = {  # protocol → what reaches it, and what of ours brings that
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "dsel[s3]")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "dsel[gs]")),
}
OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # and not of the other side

NO_BUCKET = "NoSuchBucket|bucket does not exist"
REASONS = {  # what libraries say (a regular expression) → what it comes to
    r"NoCredentials|PartialCredentials|Unable to locate credentials|default credentials|Anonymous caller": (
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://), "
        "GOOGLE_APPLICATION_CREDENTIALS (gs://), or log in as its own program does"
    ),
    NO_BUCKET: "there is no such bucket: make it first, or name another",
    "PermissionError|AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken": (
        "it may not be used with these credentials"
    ),
    "EndpointConnectionError|ConnectTimeout|ReadTimeout|ConnectionClosed|ClientConnector|Could not connect|resolve host"
    "|Name or service not known|Connection refused": (
        "it cannot be reached: look at the network (and at AWS_ENDPOINT_URL, for a server of your own)"
    ),
}


class Unreachable(ConfigError):
    """A URL that cannot be read or written. The message is one line: which, why, what to do."""


@dataclass(frozen=True)
class Object:
    """What is known of a file at a URL. modified: seconds since 1970, 0 where nothing says so."""

    size: int
    modified: float


@dataclass(frozen=True)
class Remote:
    """The folder at `url`; names are relative to it. option: which option names it, for messages.

    Raises:
        Unreachable: whatever it is that cannot be done.
    """

    url: str
    option: str

    def check(self, *, write: bool) -> None:
        """Raise `Unreachable` for what a run would fail with later: no package, no credentials, no bucket, no network.

        write: also what cannot be written.
        """
        with self._reached():
            self._fs.find(self._at(MARK))  # an error where there is no bucket, nothing where there is no such object
        if write:
            self.write(MARK, b"")

    def read(self, name: str) -> bytes | None:
        """A small file's content; None where there is none."""
        with self._reached():
            try:
                return bytes(self._fs.cat_file(self._at(name)))
            except (FileNotFoundError, IsADirectoryError) as error:
                if re.search(NO_BUCKET, f"{error}"):
                    raise
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file: whole or not at all in a bucket."""
        with self._reached():
            self._make_folders([name])
            self._fs.pipe_file(self._at(name), content)

    def get(self, files: Mapping[str, Path], title: str) -> None:
        """Download files, by their names. One that was interrupted leaves part of a file."""
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        if files:
            with self._reached(), _counted(title) as callback:
                self._fs.get([*map(self._at, files)], [*map(str, files.values())], callback=callback)

    def put(self, files: Mapping[str, Path], title: str) -> None:
        """Upload files, under their names."""
        if files:
            with self._reached(), _counted(title, sum(path.stat().st_size for path in files.values())) as callback:
                self._make_folders(files)
                self._fs.put([*map(str, files.values())], [*map(self._at, files)], callback=callback)

    def update(self, files: Mapping[str, Path], sent: dict[str, State], title: str) -> None:
        """Upload those files, under their names, that are not in the state in which they were `sent`; it is noted."""
        states = {name: state_of(path) for name, path in files.items()}
        self.put({name: path for name, path in files.items() if sent.get(name) != states[name]}, title)
        sent |= states

    def files(self, below: str = "") -> dict[str, Object]:
        """All files below a name, by their own; none where it is none."""
        with self._reached():
            self._fs.invalidate_cache()
            start = self._at(below)
            try:
                found = self._fs.find(start, detail=True)
            except NotADirectoryError:
                return {}
            cut = len(self._root) + 1
            return {path[cut:]: _object(info) for path, info in found.items() if path.startswith(f"{start}/")}

    def remove(self, name: str) -> None:
        """Remove a file, or all files below a name, if there are any."""
        with self._reached(), suppress(FileNotFoundError):
            self._fs.rm(self._at(name), recursive=True)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        import fsspec

        protocol = self.url.partition("://")[0]
        with self._reached():
            own = {"auto_mkdir": True} if protocol in ("file", "local") else {}
            fs, root = fsspec.url_to_fs(self.url, **own)
        if getattr(fs, "async_impl", False):
            fs.batch_size = AT_ONCE
        return fs, root.rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._place[0]

    @property
    def _root(self) -> str:
        return self._place[1]

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _make_folders(self, names: Iterable[str]) -> None:
        """Where there are any: in buckets there are none, and their library would make a bucket."""
        if self.url.startswith(("memory://", "file://", "local://")):
            for folder in {self._at(name).rpartition("/")[0] for name in names}:
                self._fs.makedirs(folder, exist_ok=True)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in OF_THIS_DISK:
                raise
            raise Unreachable(f"{self.option}={redact(self.url)}: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        protocol = self.url.partition("://")[0]
        if isinstance(error, ImportError):
            package, extra = PACKAGES.get(protocol, (f"that fsspec has for {protocol}://", ""))
            return f"needs the package {package!r}" + (f": pip install '{extra}'" if extra else f" ({error})")
        said = " ".join(f"{type(error).__name__}: {error}".split())
        for saying, meaning in REASONS.items():
            if re.search(saying, said):
                return f"{meaning} ({redact(said)[:200]})"
        return redact(said)[:300]


def is_url(place: str) -> bool:
    """Whether a folder is named by a URL, and is not one of this machine."""
    return "://" in place


def is_inside(name: object) -> bool:
    """Whether a name that somebody has written down is of something in the folder that it is said to be in."""
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def parts(url: str, option: str) -> list[str]:
    """The protocol of a URL, its bucket, and the folders in it. Raises `ConfigError` where there is none."""
    protocol, _, path = url.partition("://")
    names = [name for name in path.split("/") if name not in ("", ".")]
    wants = "wants a bucket, or a folder in it, as in s3://bucket/folder"
    need(bool(protocol and names) and ".." not in names, f"{option}={url}: {wants}")
    return [protocol, *names]


def _object(info: Mapping[str, Any]) -> Object:
    """What fsspec's implementations say of a file, each in its own words."""
    modified = next((info[key] for key in ("LastModified", "mtime", "updated", "created") if key in info), 0.0)
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified.replace("Z", "+00:00"))
    return Object(int(info.get("size") or 0), modified.timestamp() if isinstance(modified, datetime) else modified)


@contextmanager
def _counted(title: str, total: int | None = None) -> Iterator[Any]:
    """A callback for fsspec that shows how many megabytes are through."""
    from fsspec.callbacks import Callback

    class Bytes(Callback):
        """Of one file."""

        def __init__(self, tell: Callable[[int], None]):
            super().__init__()
            self._tell = tell

        def relative_update(self, inc: int = 1) -> None:
            self._tell(inc)

    class Files(Callback):
        def branched(self, *args: Any, **kwargs: Any) -> Any:
            return Bytes(tell)

    left = 0

    def tell(count: int) -> None:
        nonlocal left
        left += count
        advance(left >> 20)
        left &= 2**20 - 1

    with progress(title, total=None if total is None else total >> 20, unit="MB") as advance:
        yield Files()
