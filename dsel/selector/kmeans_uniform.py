"""k-means, then uniform draws inside each cluster: kM-Random of Yu et al. 2024, the published "kmeans-uniform"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dsel.selector.base import Selection, Static
from dsel.selector.sampling import Allocation, sample
from dsel.study import Study


@dataclass
class KMeansUniform(Static):
    """allocation: clusters share the budget in proportion to their size (the paper) or `equal` (its code).

    The budget is met exactly: fractions go to the largest remainders and what a small cluster cannot give goes to the
    others, where the released code draws int(budget / k) from each cluster and falls short.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"clustering"})
    allocation: Allocation = "proportional"

    def select(self, study: Study) -> Selection:
        labels = study.clustering.labels
        chosen = sample(labels, None, study.budget, study.rng, allocation=self.allocation)
        return Selection(chosen, clusters=labels[chosen])
