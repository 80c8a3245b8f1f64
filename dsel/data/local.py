"""A pool from files on disk: one or several, each with its source label."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel.data.formats import (
    BadRow,
    Format,
    Row,
    check_columns,
    check_text,
    recognise,
    rename,
    scores_of,
    to_messages,
)
from dsel.data.reader import Unreadable, files_of, read_rows
from dsel.errors import ConfigError, need, need_path
from dsel.pool import Example, Pool
from dsel.progress import progress

log = logging.getLogger(__name__)

NAMED_ROWS = 5  # how many bad rows of each reason the log names


@dataclass
class Local:
    """Instruction data in files or folders.

    path: a file, a folder, a list of them, or a mapping {source label: file or folder}. Without labels a file's
        `source` (or `dataset`) column is its label, else the file's name.
    columns: our column name → the file's, where a file's columns are not recognised as they are.
    limit: keep only the first so many usable rows.
    on_bad_row: `skip` (counted by reason, named in the log) or `error`.
    holdout: a fraction or count kept out of the pool for `evaluator=heldout_loss`.
    """

    path: Any = None
    columns: Mapping[str, str] | None = None
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
        check_columns(self.columns or {})

    def load(self) -> Pool:
        """Read, convert and check every row. Raises `ConfigError` when no row is usable."""
        rows = _Rows(self)
        examples = list(rows.examples(self._sources()))
        need(bool(examples), f"data: no usable example in {self._where()} ({rows.summary() or 'the files are empty'})")
        rows.report()
        return Pool.build(self.name, examples, skipped=rows.skipped)

    def _sources(self) -> Iterator[tuple[str | None, str, Iterable[Row | Unreadable]]]:
        """(label or None, name for messages, rows) of each file."""
        labelled = isinstance(self.path, Mapping)
        for label, path in self._paths().items():
            for file in files_of(path):
                yield label if labelled else None, str(file), read_rows(file)

    def _paths(self) -> dict[str, Path]:
        if isinstance(self.path, Mapping):
            return {str(k): need_path(v, option=f"data.path.{k}") for k, v in self.path.items()}
        paths = [self.path] if isinstance(self.path, (str, Path)) else list(self.path)
        return {str(p): need_path(p, option="data.path") for p in paths}

    def _where(self) -> str:
        return ", ".join(str(p) for p in self._paths().values())


class _Rows:
    """Turns raw rows into examples and keeps count of those that could not be used."""

    def __init__(self, config: Local):
        self.config = config
        self.skipped: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self.named: dict[str, list[str]] = {}

    def examples(self, sources: Iterable[tuple[str | None, str, Iterable[Row | Unreadable]]]) -> Iterator[Example]:
        usable = 0
        with progress("reading the pool", total=self.config.limit, unit="rows") as advance:
            for label, where, rows in sources:
                form: Format | None = None
                for number, row in enumerate(rows, start=1):
                    if usable == self.config.limit:
                        return
                    try:
                        if isinstance(row, Unreadable):
                            raise BadRow(row.reason)
                        form = form or self._recognise(row, where)
                        example = self._example(row, form, label or Path(where).name.split(".")[0], label, number)
                    except BadRow as bad:
                        self._bad(str(bad), f"{where} row {number}")
                        continue
                    usable += 1
                    advance(1)
                    yield example

    def _recognise(self, row: Row, where: str) -> Format:
        missing = sorted(c for c in (self.config.columns or {}).values() if c not in row)
        has = ", ".join(sorted(row))
        need(not missing, f"{where}: data.columns names {', '.join(missing)}, but the columns are {has}")
        return recognise(rename(row, self.config.columns or {}).keys(), where)

    def _example(self, row: Row, form: Format, stem: str, label: str | None, number: int) -> Example:
        original, row = row, rename(row, self.config.columns or {})
        messages = to_messages(row, form, self.repairs)
        own = next((row[c] for c in ("source", "dataset") if isinstance(row.get(c), str) and row[c]), None)
        source, name = label or own or stem, row.get("id")
        identifier = str(name) if isinstance(name, (str, int)) and str(name) else f"{stem}/{number}"
        check_text(source + identifier)
        return Example(identifier, messages, source, original, scores_of(row, form))

    def _bad(self, reason: str, where: str) -> None:
        if self.config.on_bad_row == "error":
            raise ConfigError(f"{where}: {reason} (data.on_bad_row=skip leaves such rows out)")
        self.skipped[reason] += 1
        self.named.setdefault(reason, []).append(where)

    def summary(self) -> str:
        return ", ".join(f"{count} × {reason}" for reason, count in self.skipped.most_common())

    def report(self) -> None:
        for reason, places in self.named.items():
            shown = "; ".join(places[:NAMED_ROWS])
            more = f"; and {len(places) - NAMED_ROWS} more" if len(places) > NAMED_ROWS else ""
            log.warning("skipped %d rows (%s): %s%s", len(places), reason, shown, more)
            log.debug("skipped rows (%s): %s", reason, "; ".join(places))
        for repair, count in self.repairs.items():
            log.info("%s: %d", repair, count)
