"""Files of native formats, read where a crash is no more than an error: in a process of their own.

A damaged Parquet file can end the process that reads it, ask for all memory there is, or keep it busy for ever. So one
child process reads, checks what it read, and sends back sound Arrow data; when it dies or takes too long, that is one
line about the file, and the next file gets a new child.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsel.errors import ConfigError

if TYPE_CHECKING:
    from pyarrow import Table

MEMORY = 8 * 2**30  # bytes that the child may take
SERVE = "from dsel.guard import serve; serve()"
SECONDS = 60.0  # for a file, and for each 100 MB of it

_child: subprocess.Popen[bytes] | None = None


def read_parquet(path: Path, columns: Sequence[str] | None = None, *, rows: bool = True) -> Table:
    """The table in a Parquet file, or its columns without `rows`. Raises `ConfigError`, in one line."""
    import pyarrow as pa

    if not path.is_file():
        raise ConfigError(f"{path}: not a file")
    asked = {"path": str(path.absolute()), "columns": None if columns is None else list(columns), "rows": rows}
    child = _start()
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(asked).encode() + b"\n")
        child.stdin.flush()
        patience = SECONDS * (1 + path.stat().st_size / 1e8)
        if not select.select([child.stdout], [], [], patience)[0]:
            raise ConfigError(f"{path}: not a readable Parquet file (nothing came of it in {patience:.0f} s)")
        head = _exactly(child.stdout, 9)
        content = _exactly(child.stdout, struct.unpack("<Q", head[1:])[0])
    except (EOFError, OSError) as error:
        code = _stop()
        raise ConfigError(f"{path}: not a readable Parquet file (it ends the process that reads it: {code})") from error
    except BaseException:  # too slow, or Ctrl-C: what it would answer yet belongs to nobody
        _stop()
        raise
    if head[:1] == b"!":
        raise ConfigError(f"{path}: not a readable Parquet file ({content.decode('utf-8', errors='replace')})")
    return pa.ipc.open_stream(content).read_all()


def serve() -> None:
    """The child: answers each line on stdin with `=` or `!`, a length, and the table or what is wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _limit()
    out = os.fdopen(os.dup(1), "wb")
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            file = pq.ParquetFile(asked["path"])
            found = file.read(asked["columns"], use_threads=False) if asked["rows"] else file.schema_arrow.empty_table()
            found.validate(full=True)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, found.schema) as writer:
                writer.write_table(found)
            kind, content = b"=", memoryview(sink.getvalue())
        except Exception as error:  # pyarrow reports damage in a dozen ways
            text = (str(error).splitlines() or [type(error).__name__])[0]
            kind, content = b"!", memoryview((text or type(error).__name__)[:300].encode("utf-8", errors="replace"))
        out.write(kind + struct.pack("<Q", content.nbytes))
        out.write(content)
        out.flush()


def _start() -> subprocess.Popen[bytes]:
    global _child
    if _child is None or _child.poll() is not None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
        _child = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        atexit.register(_stop)
    return _child


def _stop() -> str:
    """End the child; returns how it ended."""
    global _child
    child, _child = _child, None
    if child is None:
        return ""
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    return f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _exactly(pipe: Any, length: int) -> bytes:
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return bytes(content)
