"""k-means, then the members at each cluster's median distance (KCenterMedian in the code of Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dsel.selector.base import Selection, Static
from dsel.selector.kmeans_closest import first_of_each_cluster
from dsel.study import Study


@dataclass
class KMeansMedian(Static):
    """Neither the most typical members nor the outliers: those whose distance is nearest to the median."""

    needs: ClassVar[frozenset[str]] = frozenset({"clustering"})

    def select(self, study: Study) -> Selection:
        found = study.clustering
        squared = found.distances.astype(np.float64)  # squared distances, as the published code compares them
        medians = cluster_medians(found.labels, squared)
        return first_of_each_cluster(found.labels, np.abs(squared - medians[found.labels]), study.budget)


def cluster_medians(labels: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The median of `values` [n] in each cluster, float64[k]; NaN for an empty one."""
    order = np.lexsort((values, labels))
    sizes = np.bincount(labels)
    ends = np.cumsum(sizes)
    low, high = ends - sizes + (sizes - 1) // 2, ends - sizes + sizes // 2
    last = len(values) - 1
    middle = (values[order[np.clip(low, 0, last)]] + values[order[np.clip(high, 0, last)]]) / 2
    return np.where(sizes > 0, middle, np.nan)
