"""Workers of maps for other processes to build: they need no library, and may end on the way."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dsel.errors import ConfigError
from dsel.reading import parted, with_counts
from dsel.shards import Read

log = logging.getLogger("dsel.readers")


@dataclass(frozen=True)
class Lengths:
    """The length of each text, and in `seen` a file for each process with the texts that it was given.

    faults: what happens at a text, by the text: `kill` and `once` (the first process alone) by a signal, or an error.
    """

    seen: Path
    faults: dict[str, str]
    suffix: str = ".npy"
    shard_size: int = 4
    pause: float = 0.0
    in_process: ClassVar[bool] = False

    def build(self) -> Read:
        self._fault("", self.faults.get(""))
        log.info("built")
        (self.seen / f"built-{os.getpid()}").touch()
        sys.stdout.write("what a library prints is no line of ours\n")
        return self.read

    def read(self, rows: list[Any]) -> Any:
        for text in rows:
            self._fault(text, self.faults.get(text))
        time.sleep(self.pause)
        with (self.seen / f"read-{os.getpid()}").open("a") as file:
            file.writelines(f"{text}\n" for text in rows)
        if self.suffix == ".json":
            return [f"{text}\u2028\ud83d!" for text in rows]
        values = np.array([[len(text), 0.1 * len(text)] for text in rows], dtype=np.float32)
        return with_counts(values, [[len(text), len(text), 0] for text in rows])

    def _fault(self, text: str, fault: str | None) -> None:
        first = self.seen / f"first-{text}"
        if fault == "kill" or (fault == "once" and not first.exists()):
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "memory" and not first.exists():
            first.touch()
            raise MemoryError("no more of it")
        if fault == "config":
            raise ConfigError("set another option")
        if fault == "error":
            raise RuntimeError("out of luck")
        if fault == "exit":
            os.write(2, b"last words\n")
            os._exit(3)


@dataclass(frozen=True)
class Together:
    """All that some workers make of a row, as a line of JSON."""

    workers: list[Any]
    suffix: ClassVar[str] = ".json"
    shard_size: ClassVar[int] = 6

    def build(self) -> Read:
        reads = [worker.build() for worker in self.workers]
        return lambda rows: [json.dumps(found) for found in zip(*(_plain(read(rows)) for read in reads), strict=True)]


def _plain(found: Any) -> list[Any]:
    return found if isinstance(found, list) else parted(found)[0].tolist()


@dataclass(frozen=True)
class Alone(Lengths):
    """One that other processes would be no help to."""

    in_process: ClassVar[bool] = True
