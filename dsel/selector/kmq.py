"""k-means-quality: draws by quality inside clusters (Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dsel.selector.base import Selection, Static
from dsel.selector.sampling import Allocation, Draw, need_drawable, sample
from dsel.study import Study


@dataclass
class KMQ(Static):
    """`selector=kmq`: k-means-quality, the static method of Yu et al. 2024 (§2.2, Eq. 3): `sample` with quality.

    allocation: clusters share the budget in proportion to their size (the paper) or `equal` (its released code, which
    also falls short of the budget; here it is met exactly). draw: see `sample`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"clustering", "quality"})
    allocation: Allocation = "proportional"
    draw: Draw = "softmax"

    def select(self, study: Study) -> Selection:
        labels, quality = study.clustering.labels, study.quality_or_fail()
        need_drawable(self.draw, quality, labels)
        chosen = sample(labels, quality, study.budget, study.rng, allocation=self.allocation, draw=self.draw)
        return Selection(chosen, clusters=labels[chosen], scores=quality[chosen])
