"""k-means, then the members nearest to each centroid: kM-Closest of Yu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dsel.selector.base import Selection, Static
from dsel.selector.sampling import allocate
from dsel.study import Study


@dataclass
class KMeansClosest(Static):
    """Clusters share the budget in proportion to their size, exactly; ties go to the lowest index."""

    needs: ClassVar[frozenset[str]] = frozenset({"clustering"})

    def select(self, study: Study) -> Selection:
        found = study.clustering
        return first_of_each_cluster(found.labels, found.distances, study.budget)


def first_of_each_cluster(labels: npt.NDArray[np.int64], keys: npt.NDArray[np.floating], budget: int) -> Selection:
    """The members with the smallest `keys` [n] of each cluster, as many as its share of the budget."""
    sizes = np.bincount(labels)
    quotas = allocate(budget, sizes, sizes)
    order = np.lexsort((keys, labels))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank < np.repeat(quotas, sizes)]
    return Selection(chosen, clusters=labels[chosen])
