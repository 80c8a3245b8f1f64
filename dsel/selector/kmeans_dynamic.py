"""Draws in batches; clusters whose last draws scored well get more of the next (code of Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Indices
from dsel.constraints import Count
from dsel.selector.base import Selection, Static
from dsel.selector.sampling import Draw, need_drawable, sample, update
from dsel.study import Study


def draw(
    labels: ArrayLike,
    quality: ArrayLike,
    budget: int,
    rng: np.random.Generator,
    *,
    per_cluster: int = 10,
    estimate: str = "mean",
    draw: Draw = "softmax",
) -> tuple[Indices, np.ndarray]:
    """Batches of `per_cluster` times k draws, shared by weights that are estimated again from each batch's draws.

    labels int[n], quality [n], not negative; `draw` inside a cluster as in `sampling.sample`. The weights of the first
    batch are equal. Then, by `estimate`: `mean`, a cluster's weight is multiplied by the mean quality of its last
    draws, and one that had none keeps its weight; `sum`, it is the sum of that quality, so that a cluster which had no
    draw once has none ever after (the released code). As draws come by weight, the two agree where they are many.
    Returns the choice int64[budget] and the weight each was drawn with, float64[budget].
    """
    groups, scores = np.asarray(labels), np.asarray(quality, dtype=np.float64)
    k = int(groups.max()) + 1
    weights, chosen, drawn_with = np.full(k, 1 / k), np.empty(0, dtype=np.int64), np.empty(0)
    while len(chosen) < budget:
        size = min(per_cluster * k, budget - len(chosen))
        batch = sample(groups, scores, size, rng, weights=weights, exclude=chosen, draw=draw)
        chosen, drawn_with = np.append(chosen, batch), np.append(drawn_with, weights[groups[batch]])
        if not scores[batch].any():
            continue  # nothing good in sight, no cluster better than another
        if estimate == "mean":
            weights, _ = update(weights, groups[batch], scores[batch], normalise="none")
        else:
            gained = np.bincount(groups[batch], scores[batch], minlength=k)
            weights = gained / gained.sum()
    return chosen, drawn_with


@dataclass
class KMeansDynamic(Static):
    """`selector=kmeans_dynamic`: `draw`. Quality below zero is shifted up to start at zero."""

    needs: ClassVar[frozenset[str]] = frozenset({"clustering", "quality"})
    per_cluster: Count = 10
    estimate: Literal["mean", "sum"] = "mean"
    draw: Draw = "softmax"

    def select(self, study: Study) -> Selection:
        labels, quality = study.clustering.labels, study.quality_or_fail()
        shifted = quality - min(0.0, float(quality.min()))
        need_drawable(self.draw, shifted, labels)
        chosen, weights = draw(
            *(labels, shifted, study.budget, study.rng),
            per_cluster=self.per_cluster,
            estimate=self.estimate,
            draw=self.draw,
        )
        return Selection(chosen, clusters=labels[chosen], weights=weights, scores=quality[chosen])
