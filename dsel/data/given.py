"""A pool from rows that a program has at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsel.component import knob
from dsel.data.local import Local
from dsel.data.rows import Part
from dsel.pool import Pool

ROW = "row"


@dataclass
class Given(Local):
    """Rows as `data=local` reads them from files, with the same options; the pool's truth says which `row` each is.

    rows: the rows, each a mapping of its own.
    """

    rows: Sequence[Mapping[str, Any]] = knob(())
    name: str = "given"

    def check(self) -> None:
        self.check_options()

    def extra_identity(self) -> dict[str, Any]:
        return {"path": None}

    def load(self) -> Pool:
        examples, skipped = self._read()
        number = {id(row): i for i, row in enumerate(self.rows)}
        numbered = [replace(each, truth={ROW: number[id(each.original)]}) for each in examples]
        return Pool.build(self.name, numbered, skipped=skipped)

    def _sources(self) -> Iterator[Part]:
        yield Part(None, self.name, self._where(), self.rows)  # type: ignore[arg-type]

    def _where(self) -> str:
        return "what was given"
