"""The same number from every source (Uniform in the code of Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsel.selector.base import Selection, Static
from dsel.selector.sampling import allocate, sample
from dsel.study import Study


@dataclass
class Uniform(Static):
    """Without replacement what a source that is too small cannot give is shared out among the others.

    replace: draw each source's share with replacement instead, so that small sources are repeated (Uniform_Upsample).
    """

    replace: bool = False

    def select(self, study: Study) -> Selection:
        labels, _ = study.pool.rows.codes("source")
        if not self.replace:
            return Selection(sample(labels, None, study.budget, study.rng, allocation="equal"))
        k = int(labels.max()) + 1
        shares = allocate(study.budget, np.full(k, study.budget), np.ones(k))
        drawn = [study.rng.choice(np.flatnonzero(labels == s), size=share) for s, share in enumerate(shares)]
        return Selection(np.concatenate(drawn), repeats=True)
