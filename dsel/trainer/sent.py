"""A job as it is sent to other processes, and what they say of it: files in a folder that all of them see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsel.described import describe, make
from dsel.files import read_json, write_json
from dsel.pool import Example, Pool
from dsel.trainer.job import Job

FOLDER = "sent"  # in a training's
JOB, EXAMPLES = "job.json", "examples.jsonl"
SAID = "said_{}.jsonl"  # by a worker, by its number


def send(job: Job, examples: Pool, folder: Path) -> None:
    """Write a job, and what a training reads of its examples."""
    write_json(folder / JOB, describe(job))
    rows = zip(examples.ids, examples.messages, strict=True)
    with (folder / EXAMPLES).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def received(folder: Path) -> tuple[Job, Pool]:
    """The job that was sent, and its examples."""
    job = make(read_json(folder / JOB))
    with (folder / EXAMPLES).open(encoding="utf-8") as file:
        rows = (json.loads(line) for line in file)
        return job, Pool.build("sent", [Example(name, messages, "", {}) for name, messages in rows])


class Said:
    """What a worker says: lines of JSON that it writes one at a time, and its parent reads as they come."""

    def __init__(self, path: Path):
        self.path = path
        self._position = 0

    def say(self, *what: Any) -> None:
        """Add a line; a worker's."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")

    def read(self) -> Iterator[list[Any]]:
        """The lines since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            whole, end, _ = file.read().rpartition(b"\n")
        self._position += len(whole) + len(end)
        for line in whole.splitlines():
            yield json.loads(line)

    def all(self) -> list[list[Any]]:
        """All lines, also those that were read."""
        return list(Said(self.path).read())
