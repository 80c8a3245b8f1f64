"""The best by a scorer, whatever else they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dsel.selector.base import Selection, Static
from dsel.study import Study


@dataclass
class Quality(Static):
    """Ties go to the example that comes first in the pool."""

    needs: ClassVar[frozenset[str]] = frozenset({"quality"})

    def select(self, study: Study) -> Selection:
        quality = study.quality_or_fail()
        chosen = np.argsort(-quality, kind="stable")[: study.budget]
        return Selection(chosen, scores=quality[chosen])
