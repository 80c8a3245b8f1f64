"""The longest responses: a baseline of IterIT that is hard to beat (Jia et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsel.selector.base import Selection, Static
from dsel.study import Study


@dataclass
class Longest(Static):
    """By the characters of all assistant turns; ties go to the example that comes first in the pool."""

    def select(self, study: Study) -> Selection:
        length = study.pool.response_lengths
        chosen = np.argsort(-length, kind="stable")[: study.budget]
        return Selection(chosen, scores=length[chosen].astype(np.float32))
