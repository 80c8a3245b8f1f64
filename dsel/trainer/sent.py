"""A job as it is sent to other processes, and what they say of it: files in a folder that all of them see."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from dsel.files import read_json, write_json
from dsel.pool import Example, Pool
from dsel.trainer.job import Job

FOLDER = "sent"  # in a training's
JOB, EXAMPLES = "job.json", "examples.jsonl"
SAID = "said_{}.jsonl"  # by a worker, by its number


def send(job: Job, examples: Pool, folder: Path) -> None:
    """Write a job, and what a training reads of its examples."""
    model = job.model
    built = getattr(model, "built", None)
    where = {} if built is None else {"path": str(built)}
    write_json(folder / JOB, {**_plain(job), "model": {**_plain(model), **where}, "trainer": _plain(job.trainer)})
    rows = zip(examples.ids, examples.messages, strict=True)
    with (folder / EXAMPLES).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def received(folder: Path) -> tuple[Job, Pool]:
    """The job that was sent, and its examples."""
    plain = read_json(folder / JOB)
    model, trainer = _made(plain.pop("model")), _made(plain.pop("trainer"))
    plain.pop("class")
    job = Job(**{**plain, "model": model, "trainer": trainer, "part": tuple(plain["part"])})
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


def _plain(component: Any) -> dict[str, Any]:
    kind = type(component)
    name = f"{kind.__module__}:{kind.__qualname__}"
    return {"class": name, **{f.name: getattr(component, f.name) for f in fields(component) if f.init}}


def _made(plain: Mapping[str, Any]) -> Any:
    module, name = plain["class"].split(":")
    kind = getattr(importlib.import_module(module), name)
    return kind(**{key: value for key, value in plain.items() if key != "class"})
