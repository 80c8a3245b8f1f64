"""What every source of targets gives."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dsel.cache import Cache
from dsel.errors import need
from dsel.pool import Pool


@dataclass(frozen=True)
class Target:
    """M examples of what the model is to be good at, each of a task, and of a subtask of it.

    pool: the examples. tasks, subtasks: the names of each one's, M of them; a subtask's name is its task's where there
    are none.
    """

    pool: Pool
    tasks: Sequence[str]
    subtasks: Sequence[str]

    def __len__(self) -> int:
        return len(self.pool)

    def by_task(self) -> list[npt.NDArray[np.int64]]:
        """Which examples each task has, by number, in the order in which tasks first occur."""
        return _members(self.tasks)

    def by_subtask(self) -> list[npt.NDArray[np.int64]]:
        """The same of subtasks, of which two tasks may have one of the same name."""
        return _members(list(zip(self.tasks, self.subtasks, strict=True)))

    @staticmethod
    def of(pool: Pool, *, task: str | None = None, subtask: str | None = None, option: str = "targets") -> Target:
        """The examples of `pool` with names from columns of their files; without any, sources are tasks.

        Raises:
            ConfigError: for a column that some row has not.
        """
        tasks = list(pool.sources) if task is None else _column(pool, task, f"{option}.task")
        subtasks = tasks if subtask is None else _column(pool, subtask, f"{option}.subtask")
        return Target(pool, tasks, subtasks)


@runtime_checkable
class Targets(Protocol):
    """Where targets come from."""

    def check(self) -> None:
        """Raise `ConfigError` when they cannot be had here. Loads nothing heavy."""

    def take(self, pool: Pool, cache: Cache) -> tuple[Pool, Target | None]:
        """The pool to choose from, without what are targets now, and these; None where nothing is a target."""
        ...


def need_once(names: Sequence[str], option: str) -> None:
    """Raise `ConfigError` for a name that stands there twice, whose examples would be targets twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    need(not twice, f"{option}: named more than once: {', '.join(twice)}")


def _members(names: Sequence[Hashable]) -> list[npt.NDArray[np.int64]]:
    found: dict[Hashable, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(name, []).append(i)
    return [np.array(rows, dtype=np.int64) for rows in found.values()]


def _column(pool: Pool, name: str, option: str) -> list[str]:
    rows = [json.loads(text) for text in pool.originals["json"]]
    missing = [number for number, row in zip(pool.ids, rows, strict=True) if row.get(name) is None]
    has, which = ", ".join(rows[0]) if rows else "", ", ".join(missing[:3])
    need(not missing, f"{option}={name}: {len(missing)} rows have no such column ({which}); they have {has}")
    return [str(row[name]) for row in rows]
