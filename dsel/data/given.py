"""A pool from rows that a program has at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsel.cache import Cache
from dsel.component import knob
from dsel.data.local import Local
from dsel.data.parts import Part
from dsel.data.units import listed
from dsel.pool import Pool
from dsel.stored import Writer

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

    def load(self, cache: Cache | None = None) -> Pool:
        return self._fill(Writer(None), truth=ROW)

    def _sources(self) -> Iterator[Part]:
        rows = (row if isinstance(row, dict) else dict(row) for row in self.rows)
        yield Part(None, self.name, self._where(), batches=listed(rows))

    def _where(self) -> str:
        return "what was given"
