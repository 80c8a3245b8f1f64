"""The same number from every source (Uniform in the code of Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsel.selector.base import Selection, Static
from dsel.selector.kmq import sample
from dsel.study import Study


@dataclass
class Uniform(Static):
    """Without replacement; what a source that is too small cannot give is shared out among the others."""

    def select(self, study: Study) -> Selection:
        _, labels = np.unique(study.pool.sources, return_inverse=True)
        return Selection(sample(labels, None, study.budget, study.rng, allocation="equal"), clusters=None)
