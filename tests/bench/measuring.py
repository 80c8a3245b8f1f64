"""What a call takes: seconds, processor time, and the most memory that was seen meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


def anonymous(process: int | str = "self") -> int:
    """Bytes of a process that no file holds (`RssAnon`), 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


@contextmanager
def most(memory: Callable[[], int] = anonymous, every: float = 0.02) -> Iterator[list[int]]:
    """The most memory inside, in a list of one, looked at every so many seconds."""
    found, over = [memory()], threading.Event()

    def look() -> None:
        while not over.wait(every):
            found[0] = max(found[0], memory())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


@dataclass
class Measured(Generic[T]):
    """A call's result, its wall and processor seconds, and memory in bytes: before it, and the most during it."""

    result: T
    seconds: float
    cpu_seconds: float
    before: int
    peak: int


def measured(work: Callable[[], T], memory: Callable[[], int] = anonymous, every: float = 0.02) -> Measured[T]:
    """One call of `work`."""
    before = memory()
    with most(memory, every) as peak:
        start, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Measured(result, seconds, cpu, before, max(peak))
