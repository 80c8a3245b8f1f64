"""A pool from files on disk: one or several, each with its source label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel.data.formats import check_columns, format_named
from dsel.data.reader import files_of, read_rows
from dsel.data.roles import check_roles
from dsel.data.rows import Part, Rows
from dsel.errors import need, need_path
from dsel.pool import Pool


@dataclass
class Local:
    """Instruction data in files or folders.

    path: a file, a folder, a list of them, or a mapping {source label: file or folder}. Without labels a file's
        `source` (or `dataset`) column is its label, else the file's name.
    columns: our column name → the file's, where a file's columns are not recognised as they are.
    format: the columns of the format to read (`messages`, `question/answer`, …), where a row fits several.
    roles: name of a role in the files → system, user, assistant or tool, beyond the names that are known.
    limit: keep only the first so many usable rows.
    on_bad_row: `skip` (counted by reason, named in the log) or `error`.
    holdout: a fraction or count kept out of the pool for `evaluator=heldout_loss`.
    """

    path: Any = None
    columns: Mapping[str, str] | None = None
    format: str | None = None
    roles: Mapping[str, str] | None = None
    limit: int | None = None
    on_bad_row: str = "skip"
    holdout: float = 0
    name: str = "local"

    def check(self) -> None:
        self.check_options()
        need(self.path is not None, "data.path is not set: name a file, a folder, a list, or {label: file}")
        for path in self._paths().values():
            files_of(path)

    def check_options(self) -> None:
        need(self.on_bad_row in ("skip", "error"), f"data.on_bad_row={self.on_bad_row}: give skip or error")
        whole = self.limit is None or (isinstance(self.limit, int) and self.limit > 0)
        need(whole, f"data.limit={self.limit}: give a whole number above 0, or null")
        check_columns(self.columns)
        check_roles(self.roles)
        if self.format is not None:
            format_named(str(self.format))

    def load(self) -> Pool:
        """Read, convert and check every row. Raises `ConfigError` when no row is usable."""
        rows = Rows(self)
        examples = rows.examples(self._sources())
        need(bool(examples), f"data: no usable example in {self._where()} ({rows.summary() or 'the files are empty'})")
        rows.report()
        return Pool.build(self.name, examples, skipped=rows.skipped)

    def _sources(self) -> Iterator[Part]:
        """The files to read, each with its source."""
        labelled = isinstance(self.path, Mapping)
        for label, path in self._paths().items():
            for file in files_of(path):
                own = label if labelled else None
                yield Part(own, own or file.name.split(".")[0], str(file), read_rows(file))

    def _paths(self) -> dict[str, Path]:
        if isinstance(self.path, Mapping):
            return {str(k): need_path(v, option=f"data.path.{k}") for k, v in self.path.items()}
        paths = [self.path] if isinstance(self.path, (str, Path)) else list(self.path)
        return {str(p): need_path(p, option="data.path") for p in paths}

    def _where(self) -> str:
        return ", ".join(str(p) for p in self._paths().values())
