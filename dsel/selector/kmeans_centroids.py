"""One cluster for each example of the budget, and of each the member nearest to its centroid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dsel.selector.base import Selection, Static
from dsel.study import Study


@dataclass
class KMeansCentroids(Static):
    """KMeansCentroids in the code of Yu et al. 2024: k is the budget, whatever `clusterer.k` says.

    The published code may name a point twice; here a cluster gives one of its own. Where there are fewer distinct
    points than clusters, the examples nearest to a centroid fill up.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "clusterer"})

    def clusters(self, budget: int) -> int:
        return budget

    def select(self, study: Study) -> Selection:
        found = study.clusters(self.clusters(study.budget))
        order = np.lexsort((found.distances, found.labels))
        first = np.diff(found.labels[order], prepend=-1) > 0
        chosen = np.concatenate([order[first], _nearest(order[~first], found.distances)])[: study.budget]
        return Selection(chosen, clusters=found.labels[chosen])


def _nearest(candidates: np.ndarray, distances: np.ndarray) -> np.ndarray:
    return candidates[np.argsort(distances[candidates], kind="stable")]
