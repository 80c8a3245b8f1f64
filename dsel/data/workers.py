"""Processes that read and convert units of files side by side; what they find comes in the units' order.

A process of its own is also what keeps a damaged Parquet or Arrow file from ending ours (`dsel.guard`).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import struct
import subprocess
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dsel import guard
from dsel.data.account import Account
from dsel.data.convert import Chunk
from dsel.data.rows import Meaning
from dsel.data.units import Batch, Unit, batches
from dsel.errors import ConfigError
from dsel.originals import Originals

if TYPE_CHECKING:
    from pyarrow import RecordBatch

log = logging.getLogger(__name__)

SERVE = "from dsel.data.workers import serve; serve()"
MOST = 16  # processes
AHEAD = 2  # chunks of a unit that wait until they are wanted
PAUSE = 0.2  # seconds after which who waits looks whether it is over


def processors() -> int:
    """How many processes can work side by side."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST, there))


# --- the process --------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer each question on stdin, a unit and how it is read, with the chunks of its rows."""
    guard.serve(_answer)


def _answer(asked: dict[str, Any]) -> Iterator[tuple[bytes, Any]]:
    unit, meaning, said = Unit(**asked["unit"]), Meaning(**asked["meaning"]), _Said()
    logging.getLogger("dsel").addHandler(said)
    logging.getLogger("dsel").setLevel(asked["level"])
    try:
        raw = _checked(unit, said) if unit.kind in ("parquet", "arrow") else None
        for batch in batches(unit, raw):
            chunk = _converted(batch, meaning)
            yield from said.frames()
            yield b"=", guard.packed(chunk.rows)
            yield b"o", chunk.originals.content
            told = {"is_json": chunk.originals.is_json, "account": chunk.account.plain()}
            yield b"a", json.dumps(told).encode()
        yield from said.frames()
    except ConfigError as error:
        yield from said.frames()
        yield b"c", str(error).encode("utf-8", "surrogatepass")
    except _Fault:
        yield b"?", traceback.format_exc().encode("utf-8", "replace")
    finally:
        logging.getLogger("dsel").removeHandler(said)


class _Fault(Exception):
    """An error of ours, and not of a file."""


def _converted(batch: Batch, meaning: Meaning) -> Chunk:
    try:
        return batch.converted(meaning)
    except Exception as error:
        raise _Fault from error


def _checked(unit: Unit, said: _Said) -> Iterator[RecordBatch]:
    from dsel.checked import checked

    for piece in checked(unit.path, unit.kind, None, True, False, unit.part):
        if isinstance(piece, str):
            said.lines.append((logging.WARNING, "dsel.guard", f"{unit.path}: {piece}"))
        else:
            yield piece


class _Said(logging.Handler):
    """Keeps what is logged for the process that asked."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.name, record.getMessage()))

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        lines, self.lines = self.lines, []
        return ((b"~", json.dumps(line).encode()) for line in lines)


# --- who asks -----------------------------------------------------------------------------------------------


@dataclass
class _Task:
    """A unit that is to be read, and what came of it: chunks, lines for the log, an error or its end (None)."""

    question: dict[str, Any]
    found: queue.Queue[Any] = field(default_factory=lambda: queue.Queue(AHEAD))


class Workers:
    """So many processes, each with a thread here that asks it for one unit after the other.

    `chunks` yields what they find in the order of the units. They are started when there is something to ask, and end
    with the block.
    """

    def __init__(self, count: int):
        self.count = count
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def chunks(self, units: Sequence[tuple[Unit, Meaning]]) -> Iterator[tuple[int, Chunk]]:
        """The chunks of all units in their order, each with the unit's number. Raises `ConfigError` where one does."""
        level = logging.getLogger("dsel").getEffectiveLevel()
        tasks = [_Task({"path": u.path, "unit": asdict(u), "meaning": asdict(m), "level": level}) for u, m in units]
        todo: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        for task in tasks:
            todo.put(task)
        free = threading.Semaphore(self.count + 2)  # units that are begun and not all taken
        self._threads = [
            threading.Thread(target=self._ask, args=(todo, free), name=f"reader {number}", daemon=True)
            for number in range(min(self.count, len(tasks)))
        ]
        for thread in self._threads:
            thread.start()
        for number, task in enumerate(tasks):
            while (found := task.found.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                if isinstance(found, Chunk):
                    yield number, found
                else:
                    level, name, line = found
                    logging.getLogger(name).log(level, "%s", line)
            tasks[number] = _Task({})  # its chunks are not needed any more
            free.release()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, todo: queue.SimpleQueue[_Task], free: threading.Semaphore) -> None:
        child: subprocess.Popen[bytes] | None = None
        try:
            while not self._over.is_set():
                if not free.acquire(timeout=PAUSE):
                    continue
                try:
                    task = todo.get_nowait()
                except queue.Empty:
                    return
                child = child or guard.start(SERVE)
                for found in self._answers(child, task.question):
                    self._put(task, found)
                    if isinstance(found, BaseException):  # what it would still say belongs to nobody
                        guard.stop(child)
                        child = None
                        break
        finally:
            if child is not None:
                guard.stop(child)

    def _put(self, task: _Task, found: Any) -> None:
        while not self._over.is_set():
            try:
                task.found.put(found, timeout=PAUSE)
                return
            except queue.Full:
                continue

    def _answers(self, child: subprocess.Popen[bytes], question: dict[str, Any]) -> Iterator[Any]:
        path, kind = question["path"], question["unit"]["kind"]
        native = (
            f"{path}: not a readable {guard.NAMES[kind]} file" if kind in guard.NAMES else f"{path}: cannot be read"
        )
        parts: list[bytes] = []
        try:
            guard.tell(child, question)
            while not self._over.is_set():
                head = guard.exactly(child.stdout, 9)
                mark, content = head[:1], guard.exactly(child.stdout, struct.unpack("<Q", head[1:])[0])
                if mark in b"=o":
                    parts.append(content)
                elif mark == b"a":
                    told, rows = json.loads(content), _unpacked(parts[0])
                    originals = Originals(rows.num_rows, told["is_json"], parts[1])
                    yield Chunk(rows, originals, Account.of(told["account"]))
                    parts = []
                elif mark == b"~":
                    yield json.loads(content)
                elif mark == b"c":
                    yield ConfigError(content.decode("utf-8", "surrogatepass"))
                elif mark == b"?":
                    yield RuntimeError(f"{path}: {content.decode()}")
                elif mark == b"!":
                    yield ConfigError(f"{native} ({content.decode()})")
                else:
                    yield None
                    return
        except (EOFError, OSError):
            yield ConfigError(f"{native} ({guard.stop(child)})")
        except Exception as error:  # of ours: who waits for the rows is to have it
            yield error


def _unpacked(content: bytes) -> RecordBatch:
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_next_batch()
