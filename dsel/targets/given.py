"""Targets that a program has at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsel.component import knob
from dsel.data.given import Given
from dsel.targets.local import LocalTargets


@dataclass
class GivenTargets(LocalTargets):
    """Rows as `targets=local` reads them from files, with the same options; rows: each a mapping of its own."""

    rows: Sequence[Mapping[str, Any]] = knob(())

    def check(self) -> None:
        self._data().check_options()

    def extra_identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
        return {"path": None, "rows": digest.hexdigest()[:24]}

    def _data(self) -> Given:
        return Given(columns=self.columns, format=self.format, limit=self.limit, name="targets", rows=self.rows)
