"""Files that are there whole or not at all, on disk before they have their names, and known by their digests."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

from dsel.progress import progress
from dsel.secrets import redact

log = logging.getLogger(__name__)

BLOCK = 2**22  # bytes hashed at once
LONG = 512  # MB that may take seconds to read
SIDECAR, DIGEST = ".xxh3", "digest"
DIGESTS = "digests.json"  # of a checkpoint's files: the last one that is written

State = tuple[int, int, int]
"""Size, time and number of a file."""

LARGE = 2**24  # bytes, of a file whose digest is worth remembering
DAY = 86400  # seconds for which a file that is as it was is not read again to see whether its disk has damaged it
SETTLED = 2  # seconds after which a file that is written to has another time

_known: dict[tuple[Path, str], tuple[tuple[int, int, int], str]] = {}
"""What this process has read: of a file and a kind of digest its (size, mtime, inode) and the digest."""
_memory: list[Path] = []  # the folder where digests are remembered, if there is one


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
    write_json(path, with_digest(value))


def with_digest(value: Mapping[str, Any]) -> dict[str, Any]:
    """What `write_sealed` writes: the mapping without secrets, and its digest."""
    clean = json.loads(json.dumps(redact(dict(value)), allow_nan=False))
    return {**clean, DIGEST: _content(clean)}


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


def append_line(path: Path, value: Any) -> None:
    """Add a line of JSON to a journal; it is on disk when this comes back.

    It begins on a new line, as the one before may be half a line that a killed process left.
    """
    with path.open("ab") as file:
        file.write(f"\n{json.dumps(value)}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[Any]:
    """What `append_line` has written, without what is no whole line; nothing where there is no file."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError for what is none, whatever is wrong with it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def digest_of(path: Path) -> str:
    """XXH3 of a file's bytes, 32 hexadecimal digits; as long as size and time stay read once a process, or a day."""
    import xxhash

    return _read_once(path, "xxh3", xxhash.xxh3_128, DAY)


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits; read once, as long as its size, time and inode stay."""
    return _read_once(path, "sha256", hashlib.sha256, math.inf)


def remember_digests(folder: Path) -> None:
    """Have digests of large files kept in `folder`, for other processes too."""
    _memory[:] = [folder]


def _read_once(path: Path, kind: str, new: Callable[[], Any], seconds: float) -> str:
    """The digest of a file that was read in this process or, `LARGE` ones, by any in the last so many seconds.

    Where they are no more than so many, it has to have been read since this machine started: what was written before
    may not have reached the disk, if it lost its power.
    """
    state, boot = state_of(path), started() or "" if seconds < math.inf else ""
    if (known := _known.get((path, kind))) and known[0] == state:
        return known[1]
    note, reads = None, dict[str, float]()
    if _memory and state[0] >= LARGE:
        note = _memory[0] / f"{hashlib.sha256(f'{kind} {path.resolve()}'.encode()).hexdigest()[:24]}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = unsealed(read_json(note))
            if noted["state"] == list(state):
                reads = {each: then for each, then in noted["read"].items() if 0 <= time.time() - then < seconds}
            if boot in reads:
                _known[path, kind] = state, str(noted["digest_of"])
                return str(noted["digest_of"])
    read = time.time()
    digest = hashed(path, new())
    _known[path, kind] = state, digest
    # What was written to a moment ago may be again, within one tick of the file system's clock.
    if note is not None and state == state_of(path) and read - state[1] / 1e9 > SETTLED:
        with suppress(OSError):  # a cache that cannot be written here
            note.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(note, {"path": str(path), "state": state, "read": {**reads, boot: read}, "digest_of": digest})
    return digest


def state_of(path: Path) -> State:
    """What changes when a file is written to, or another takes its place."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


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


@cache
def started() -> str | None:
    """What tells this start of the machine from any other; None where nothing does."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def seal(folder: Path, names: Sequence[str] | None = None, *, wait: bool = True) -> dict[str, list[Any]]:
    """Sync all files of `folder`, or those called `names`, to disk; returns name → [size, digest] of each.

    wait: False leaves `LARGE` ones to be written when the system does. If it stops before that, they are read anew
    when it has started again (`digest_of`), and found to be damaged.
    """
    there = folder.rglob("*") if names is None else (folder / name for name in names)
    files = sorted(p for p in there if p.is_file())
    later = set() if wait or started() is None else {p for p in files if p.stat().st_size >= LARGE}
    for place in {*files, *(p.parent for p in files), folder} - later:
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
    import numpy as np  # which commands that only look at files do without

    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
