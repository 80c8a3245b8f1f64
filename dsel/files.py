"""Files that are there whole or not at all, on disk before they have their names, and known by their digests."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from dsel.progress import progress
from dsel.secrets import redact

log = logging.getLogger(__name__)

BLOCK = 2**22  # bytes hashed at once
LONG = 512  # MB that may take seconds to read
SIDECAR, DIGEST = ".xxh3", "digest"

_known: dict[Path, tuple[tuple[int, int, int], str]] = {}  # what this process has read: (size, mtime, inode) and digest


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`; when the block ends well it is synced to disk and takes that name.

    A reader, and whoever comes after a crash, finds the old file or the new one. The suffix is `path`'s own.
    """
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Has the lock file `path`, as one process does at a time; says `waiting` where another one has it.

    The operating system drops the lock of a process that dies.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: waiting for it", waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """`write_json` of a mapping with a digest of its own, which `unsealed` compares."""
    clean = json.loads(json.dumps(redact(dict(value)), allow_nan=False))
    write_json(path, {**clean, DIGEST: _content(clean)})


def unsealed(value: Any) -> dict[str, Any]:
    """The mapping that `write_sealed` was given, out of what it wrote. Raises ValueError where that has changed."""
    if not isinstance(value, dict) or DIGEST not in value:
        raise ValueError("it has no digest")
    content = {name: part for name, part in value.items() if name != DIGEST}
    if value[DIGEST] != _content(content):
        raise ValueError("it is not what was written")
    return content


def _content(value: Mapping[str, Any]) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON without secrets, whole or not at all."""
    write_text(path, json.dumps(redact(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` as it is, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_piece(path: Path, write: Callable[[Path], None]) -> None:
    """A piece of unfinished work: `write(file)` makes it, and a digest beside it lets `piece` know it again."""
    with replacing(path) as temporary:
        write(temporary)
        write_json(path.with_name(path.name + SIDECAR), digest_of(temporary))


def piece(path: Path) -> Path | None:
    """`path` where `save_piece` left it as it is now; None where it has to be made, a damaged one with a line."""
    sidecar = path.with_name(path.name + SIDECAR)
    if not path.exists():
        return None
    try:
        whole = read_json(sidecar) == digest_of(path)
    except (OSError, ValueError):
        whole = False
    if not whole:
        log.warning("%s is damaged: made again", path)
        path.unlink()
    return path if whole else None


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError for what is none, whatever is wrong with it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def digest_of(path: Path) -> str:
    """XXH3 of a file's bytes, 32 hexadecimal digits; read once a process, as long as size and time stay."""
    import xxhash

    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if path in _known and _known[path][0] == state:
        return _known[path][1]
    _known[path] = state, hashed(path, xxhash.xxh3_128())
    return _known[path][1]


def hashed(path: Path, digest: Any) -> str:
    """What `digest`, a new one of hashlib or xxhash, makes of a file's bytes, in hexadecimal digits."""
    block = bytearray(BLOCK)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        megabytes = os.fstat(file.fileno()).st_size >> 20
        with (
            progress(f"reading {path.name}", total=megabytes, unit="MB") if megabytes > LONG else nullcontext() as tell
        ):
            while count := file.readinto(block):
                digest.update(view[:count])
                if tell:
                    tell(count >> 20)
    return str(digest.hexdigest())


def seal(folder: Path, names: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Sync all files of `folder`, or those called `names`, to disk; returns name → [size, digest] of each."""
    there = folder.rglob("*") if names is None else (folder / name for name in names)
    files = sorted(p for p in there if p.is_file())
    for place in {*files, *(p.parent for p in files), folder}:
        sync(place)
    return {p.relative_to(folder).as_posix(): [p.stat().st_size, digest_of(p)] for p in files}


def damage(folder: Path, sealed: Mapping[str, list[Any]]) -> str | None:
    """What is wrong with the files of `folder`, which `seal` saw as `sealed`; None where nothing is."""
    for name, (size, digest) in sealed.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, not {size:,}"
        if digest_of(path) != digest:
            return f"{name} is not what was written"
    return None


def remove(folder: Path) -> None:
    """Remove a folder: under another name first, so that a kill leaves none half empty under its own."""
    gone = folder.with_name(f"{folder.name}.gone-{os.urandom(4).hex()}")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on disk. File systems that cannot say so are believed."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        import errno

        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


def finite(value: Any) -> Any:
    """`value` with NaN and infinities as None and NumPy scalars as Python's: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
