"""Draws in batches; clusters whose last draws scored well get more of the next (code of Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dsel.errors import need
from dsel.selector.arrays import Indices
from dsel.selector.base import Selection, Static
from dsel.selector.kmq import sample
from dsel.study import Study


def draw(
    labels: ArrayLike, quality: ArrayLike, budget: int, rng: np.random.Generator, *, per_cluster: int = 10
) -> tuple[Indices, np.ndarray]:
    """Batches of `per_cluster` times k draws; a cluster's weight in the next is its share of the last one's quality.

    labels int[n], quality [n], not negative. Inside a cluster as in `kmq.sample`. The weights of the first batch are
    equal. Returns the choice int64[budget] and the weight each was drawn with, float64[budget].
    """
    groups, scores = np.asarray(labels), np.asarray(quality, dtype=np.float64)
    k = int(groups.max()) + 1
    weights, chosen, drawn_with = np.full(k, 1 / k), np.empty(0, dtype=np.int64), np.empty(0)
    while len(chosen) < budget:
        size = min(per_cluster * k, budget - len(chosen))
        batch = sample(groups, scores, size, rng, weights=weights, exclude=chosen)
        chosen, drawn_with = np.append(chosen, batch), np.append(drawn_with, weights[groups[batch]])
        gained = np.bincount(groups[batch], scores[batch], minlength=k)
        if gained.sum() > 0:
            weights = gained / gained.sum()
    return chosen, drawn_with


@dataclass
class KMeansDynamic(Static):
    """`selector=kmeans_dynamic`: `draw`. Quality below zero is shifted up to start at zero."""

    needs: ClassVar[frozenset[str]] = frozenset({"clustering", "quality"})
    per_cluster: int = 10

    def check(self) -> None:
        need(self.per_cluster >= 1, f"selector.per_cluster={self.per_cluster}: must be at least 1")

    def select(self, study: Study) -> Selection:
        labels, quality = study.clustering.labels, study.quality_or_fail()
        shifted = quality - min(0.0, float(quality.min()))
        chosen, weights = draw(labels, shifted, study.budget, study.rng, per_cluster=self.per_cluster)
        return Selection(chosen, clusters=labels[chosen], weights=weights, scores=quality[chosen])
