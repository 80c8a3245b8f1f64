"""k-means, then the members at each cluster's median distance (KCenterMedian in the code of Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dsel.selector.base import Selection, Static
from dsel.selector.kmeans_closest import first_of_each_cluster
from dsel.study import Study


@dataclass
class KMeansMedian(Static):
    """Neither the most typical members nor the outliers: those whose distance is nearest to the median."""

    needs: ClassVar[frozenset[str]] = frozenset({"clustering"})

    def select(self, study: Study) -> Selection:
        found = study.clustering
        distances = np.sqrt(found.distances.astype(np.float64))
        medians = np.array([np.median(distances[found.labels == c]) if s else 0.0 for c, s in enumerate(found.sizes)])
        return first_of_each_cluster(found.labels, np.abs(distances - medians[found.labels]), study.budget)
