"""Files of native formats, read where a crash is no more than an error: in a process of their own.

A damaged Parquet or Arrow file can end the process that reads it, ask for all memory there is, keep it busy for ever,
or hold a few bytes that stand for terabytes. So a child process reads, checks what it read (`dsel.checked`), and sends
back sound record batches, one after the other; when it dies or takes too long, that is one line about the file, and the
next file gets a new child.

A request is a line of JSON. Each answer is a frame: a letter, a length and the content. `=` is an Arrow stream of
record batches (the first one is empty and tells the schema), `~` something to tell the user, `.` the end, `!` what is
wrong with the file, which is the end too.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsel.errors import ConfigError

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Table

log = logging.getLogger(__name__)

SERVE = "from dsel.guard import serve; serve()"

MEMORY = 4 * 2**30  # bytes of addresses that the child may take, beyond twice the file's size
PIPE = 2**20  # bytes between it and us
SECONDS = 60  # for the next batch, and as many for each 100 MB of the file
NAMES = {"parquet": "Parquet", "groups": "Parquet", "arrow": "Arrow"}

_idle: list[subprocess.Popen[bytes]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they answer the one that started them


def read_parquet(path: Path, columns: Sequence[str] | None = None, *, rows: bool = True) -> Table:
    """The table in a Parquet file, or its columns without `rows`. Raises `ConfigError`, in one line."""
    import pyarrow as pa

    found = batches(path, "parquet", columns, rows=rows, text=True)
    first = next(found)
    return pa.Table.from_batches([first, *found])


def batches(
    path: Path,
    kind: str,
    columns: Sequence[str] | None = None,
    *,
    rows: bool = True,
    text: bool = False,
    part: tuple[int, int, int] | None = None,
) -> Iterator[RecordBatch]:
    """The record batches of a file, in order, the first one without rows; none is too large to be held.

    kind: `parquet`, `arrow`, or `groups`: the row groups of a Parquet file as one batch. columns: read only these.
    rows: False for the columns alone. text: whether strings that are not UTF-8 are an error, too. part: a row group of
    a Parquet file, and which of its rows, from the first to the one after the last. Raises `ConfigError`, in one line.
    """
    import pyarrow as pa

    if not path.is_file():
        raise ConfigError(f"{path}: not a file")
    fault = f"{path}: not a readable {NAMES[kind]} file"
    names = None if columns is None else list(columns)
    asked = {"kind": kind, "columns": names, "rows": rows, "text": text, "part": part}
    child = _ask({"path": str(path.absolute()), **asked})
    ended = False
    try:
        while not ended:
            head = exactly(child.stdout, 9)
            content = exactly(child.stdout, struct.unpack("<Q", head[1:])[0])
            ended = head[:1] in b".!"
            if head[:1] == b"=":
                yield from pa.ipc.open_stream(content)
            elif head[:1] == b"!":
                raise ConfigError(f"{fault} ({content.decode()})")
            elif head[:1] == b"~":
                log.warning("%s: %s", path, content.decode())
    except EOFError as error:
        how = stop(child)
        raise ConfigError(f"{fault} ({how})") from error
    finally:  # also where nobody wants the rest: what it would send yet belongs to nobody
        if ended:
            _idle.append(child)
        else:
            stop(child)


def row_groups(path: Path) -> tuple[list[int], list[int]]:
    """Rows and bytes of the row groups of a Parquet file. Raises `ConfigError`, in one line."""
    (found,) = batches(path, "groups")
    return found.column("rows").to_pylist(), found.column("bytes").to_pylist()


def serve(answer: Callable[[dict[str, Any]], Iterator[tuple[bytes, Any]]] | None = None) -> None:
    """The child: answers each line on stdin with frames on stdout.

    answer: makes the frames of a question, which names the `path` of a file; without one they are its batches.
    """
    answer = answer or _batches
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes stdin
    out = os.fdopen(os.dup(1), "wb")

    def send(kind: bytes, content: Any) -> None:
        _alarm(0)  # who waits now is not the reader
        out.write(kind + struct.pack("<Q", len(content)))
        out.write(content)
        out.flush()
        _alarm(patience)

    for line in sys.stdin.buffer:
        asked = json.loads(line)
        patience = 0
        try:
            size = os.stat(asked["path"]).st_size  # noqa: PTH116
            _limit(MEMORY + 2 * size)
            patience = SECONDS + round(SECONDS * size / 1e8)
            _alarm(patience)
            for kind, content in answer(asked):
                send(kind, content)
            patience = 0
            send(b".", b"")
        except Exception as error:  # pyarrow reports damage in a dozen ways
            patience = 0
            send(b"!", fault_of(error).encode("utf-8", errors="replace"))


def fault_of(error: Exception) -> str:
    """What a library says is wrong with a file, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def _batches(asked: dict[str, Any]) -> Iterator[tuple[bytes, Any]]:
    from dsel.checked import checked

    names = ("path", "kind", "columns", "rows", "text", "part")
    for piece in checked(*(asked[name] for name in names)):
        yield (b"~", piece.encode()) if isinstance(piece, str) else (b"=", packed(piece))


def packed(batch: RecordBatch) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _ask(question: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A child that was told what to read; one that died while it had nothing to do is replaced."""
    while _idle:
        child = _idle.pop()
        try:
            tell(child, question)
            return child
        except OSError:
            stop(child)
    child = start(SERVE)
    tell(child, question)
    return child


def tell(child: subprocess.Popen[bytes], question: dict[str, Any]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(question).encode() + b"\n")
    child.stdin.flush()


def start(code: str) -> subprocess.Popen[bytes]:
    """A child that runs `code`, with pipes to and from it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
    environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError, AttributeError):  # a wider pipe: fewer turns of one writing and the other reading
            fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, PIPE)  # type: ignore[arg-type]
    return child


@atexit.register
def _stop_all() -> None:
    while _idle:
        stop(_idle.pop())


def stop(child: subprocess.Popen[bytes]) -> str:
    """End the child; returns in words how it ended."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None and not pipe.closed:
            try:
                pipe.close()
            except OSError:  # what was not sent yet cannot be sent any more
                continue
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.returncode == -getattr(signal, "SIGALRM", 0):
        return "nothing comes of it"
    ended = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
    return f"it ends the process that reads it: {ended}"


def _alarm(seconds: int) -> None:
    """End this process in so many seconds, even out of a loop in native code; 0: never."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def exactly(pipe: Any, length: int) -> bytes:
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return bytes(content)
