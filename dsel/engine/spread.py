"""A map by several processes of this machine: started, given shards, heard and ended by this one.

Each is a `python -m dsel.engine.reader`, which builds its worker once. It gets a shard with its rows when it has done
with the one before, so that a fast one takes more. Shards and what is said of them are lines of JSON in pipes. One that
dies leaves its shard to the others; when this process ends all of them do, however it ends.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from dsel.described import describe
from dsel.distributed import apart
from dsel.engine.saying import LAST_WORDS, killed_by, raised
from dsel.errors import LostWorker
from dsel.interrupt import deaf
from dsel.lazy import fetched
from dsel.secrets import redact
from dsel.shards import Shard

READER: tuple[str, ...] = ("-m", "dsel.engine.reader")  # what the interpreter runs
TRIES = 2  # workers that may die of a shard before it is said to be the shard's fault
GRACE = 5.0  # seconds that a worker has to end in, when there is no more for it to do

Said = tuple["Reader", list[Any]]
"""Who says something, and what: first its kind."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Reader:
    """A process, the shard that it has, and what it said was wrong."""

    name: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes] | None
    shard: int | None = None
    failure: list[Any] | None = None

    def give(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died, which is heard soon
            self.process.stdin.write(line)
            self.process.stdin.flush()


@dataclass
class Shards:
    """What there is to do. The next shard is made ready while the readers work, and no more of them are in memory."""

    shards: Sequence[Shard]
    rows: Sequence[Any]
    waiting: deque[int] = field(init=False)
    ready: dict[int, bytes] = field(default_factory=dict)
    died_of: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.shards)))

    def prepare(self) -> None:
        """Have the next one ready. Raises TypeError for rows that JSON cannot hold."""
        if self.waiting and (i := self.waiting[0]) not in self.ready:
            shard = self.shards[i]
            sent = {"shard": describe(shard), "rows": list(fetched(self.rows, shard.rows))}
            self.ready[i] = json.dumps(sent).encode() + b"\n"

    def hand_to(self, reader: Reader) -> bool:
        """Give it the next one, if there is any."""
        if not self.waiting:
            return False
        self.prepare()
        reader.shard = self.waiting.popleft()
        reader.give(self.ready.pop(reader.shard))
        self.prepare()
        return True


def spread(worker: Any, shards: Shards, advance: Callable[[int], None], processes: int, devices: int = 1) -> None:
    """`finish` all shards by several processes.

    Args:
        worker: as `describe` has it.
        shards: in the order in which they are begun.
        advance: is told the rows of each that is done.
        processes: how many, no more than shards.
        devices: GPUs that each of them takes.

    Raises:
        ConfigError: what one of them says is wrong with the configuration.
        LostWorker: with what another one failed with; or when all have died, or `TRIES` of them of one shard.
    """
    import torch

    said: queue.Queue[Said] = queue.Queue()
    left, idle = len(shards.shards), list[Reader]()
    lines: dict[str, Reader] = {}  # of the log, and who has said them first
    torch.cuda.empty_cache()  # the first worker has the GPU of this process
    with ExitStack() as ends:
        line = json.dumps(worker).encode() + b"\n"
        readers = [
            ends.enter_context(_started(i, told, processes, said)) for i, told in enumerate(apart(processes, devices))
        ]
        for reader in readers:
            reader.give(line)
        while left:
            reader, (kind, *what) = said.get()
            if kind == "log":
                if lines.setdefault(what[2], reader) is reader:  # what all of them say is told once
                    logging.getLogger(what[0]).log(what[1], "%s", what[2])
            elif kind == "failure":
                reader.failure = what
            elif kind == "ended":
                readers.remove(reader)
                _lost(reader, shards, len(readers))
                idle = [other for other in idle if other in readers and not shards.hand_to(other)]
            else:
                if kind == "done":
                    assert reader.shard is not None
                    shard, reader.shard = shards.shards[reader.shard], None
                    shard.note(what[0])
                    advance(len(shard.rows))
                    left -= 1
                if not shards.hand_to(reader):
                    idle.append(reader)
        for reader in readers:
            assert reader.process.stdin is not None
            with suppress(BrokenPipeError):
                reader.process.stdin.close()
        for reader in readers:
            with suppress(subprocess.TimeoutExpired):
                reader.process.wait(GRACE)


@contextmanager
def _started(i: int, told: dict[str, str], processes: int, said: queue.Queue[Said]) -> Iterator[Reader]:
    """One of the processes, until the end of the block; a thread puts what it says into `said`.

    It is in a session of its own, so that a Ctrl-C is this process's alone.
    """
    with ExitStack() as files:
        errors = files.enter_context(tempfile.TemporaryFile()) if i else None  # the first one's are this process's
        with deaf():
            process = subprocess.Popen(
                [sys.executable, *READER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path), **told},
                start_new_session=True,
            )
        reader = Reader(f"worker {i + 1} of {processes}", process, errors)
        try:
            threading.Thread(target=_hear, args=(reader, said), daemon=True).start()
            yield reader
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _hear(reader: Reader, said: queue.Queue[Said]) -> None:
    assert reader.process.stdout is not None
    for line in reader.process.stdout:
        with suppress(ValueError):  # half a line, of one that was killed
            said.put((reader, json.loads(line)))
    said.put((reader, ["ended"]))


def _lost(reader: Reader, shards: Shards, others: int) -> None:
    """Have a dead worker's shard computed by another one, or raise what was wrong."""
    of = f"{reader.name} of the map"
    if reader.failure is not None:
        _, kind, line, _ = reader.failure
        if kind != "memory":
            raised(reader.failure, reader.name, "the map")
        why = f"failed: {line}"
    else:
        code = reader.process.wait()
        why = killed_by(code) if code < 0 else f"ended without a word (exit code {code})"
        if code >= 0 and reader.errors is not None:
            reader.errors.seek(0)
            words = reader.errors.read()[-LAST_WORDS:].decode("utf-8", "replace").strip()
            log.error("%s:\n%s", reader.name, redact(words))
    if reader.shard is not None:
        name = shards.shards[reader.shard].path.name
        shards.died_of[reader.shard] += 1
        if shards.died_of[reader.shard] >= TRIES:
            raise LostWorker(f"{of} {why}; {name} has cost {TRIES} workers")
        shards.waiting.appendleft(reader.shard)
    if not others:
        raise LostWorker(f"{of} {why}; there is no other one left")
    log.warning("%s %s; what it had begun is computed again by the others", of, why)
