"""All of the pool: the row that every table of subsets needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsel.errors import need
from dsel.selector.base import Selection, Static
from dsel.study import Study


@dataclass
class Full(Static):
    """`selector=full budget=1.0`, in the pool's order."""

    def select(self, study: Study) -> Selection:
        n = len(study.pool)
        need(study.budget == n, f"selector=full chooses all {n} examples: say budget=1.0, or another selector")
        return Selection(np.arange(n))
