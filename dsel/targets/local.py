"""Targets from files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsel.cache import Cache
from dsel.constraints import Count, File, Text
from dsel.data.local import Local, reworded
from dsel.errors import need
from dsel.pool import Pool
from dsel.targets.base import Target


def _of_targets(text: str) -> str:
    """What is said of the options of `data` is said of those of `targets`."""
    return re.sub(r"\bdata(?=\.[a-z_]+|: )", "targets", text)


@dataclass
class LocalTargets:
    """Any instruction files, as `data=local` reads them.

    path: a file, a folder, a list of them, or {task: file}. split, columns, format: as of `data=local`. limit: only the
    first so many rows. task, subtask: columns of the file that name them; without `task`, it is the source.
    """

    path: File | Sequence[File] | Mapping[Text, File | Sequence[File]] | None = None
    split: Text | None = "train"
    columns: Mapping[str, Text] | None = None
    format: Text | None = None
    limit: Count | None = None
    task: Text | None = None
    subtask: Text | None = None

    def check(self) -> None:
        with reworded(_of_targets):
            self._data().check_options()
            need(self.path is not None, "targets.path is not set: name a file of examples of what is wanted")
            self._data().check()

    def extra_identity(self) -> dict[str, Any]:
        return self._data().extra_identity()

    def take(self, pool: Pool, cache: Cache) -> tuple[Pool, Target | None]:
        with reworded(_of_targets):
            return pool, Target.of(self._data().load(cache), task=self.task, subtask=self.subtask)

    def _data(self) -> Local:
        return Local(
            path=self.path,
            split=self.split,
            columns=self.columns,
            format=self.format,
            limit=self.limit,
            name="targets",
        )
