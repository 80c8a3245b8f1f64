"""QDIT: greedy selection for quality and representation at once (Bukharin & Zhao 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Indices, check_budget, finite_scores, unit_rows
from dsel.constraints import Positive, Share
from dsel.selector import neighbours
from dsel.selector.base import Selection
from dsel.selector.coverage import lazy_greedy
from dsel.study import Study


def greedy(
    embeddings: ArrayLike, quality: ArrayLike, budget: int, *, alpha: float = 0.5, device: str = "cpu"
) -> Indices:
    """Each step adds the example with the largest (1 - alpha) d(S + {i}) + alpha q_i.

    d(S) = sum over v in the pool of max over a in S of cos(v, a); embeddings [n, d], rows of any length;
    quality [n], taken as it is: its scale against d, which is at most n, is the caller's choice (Yu et al.
    2024 and their code, method QDIT). alpha=0 is facility location, alpha=1 the quality ranking. Returns
    int64[budget] in the order chosen, exactly that of the plain greedy; time, memory, ties and `device` as in
    `facility_location.greedy`.

    Raises ValueError for NaN or zero rows and scores not finite, named, and for alpha or budget out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    x = unit_rows(embeddings)
    q = finite_scores(quality, len(x))
    return lazy_greedy(x, check_budget(budget, len(x)), weight=1 - alpha, bonus=alpha * q, device=device)


@dataclass
class QDIT(neighbours.OnPairs):
    """`selector=qdit`: `greedy` on quality divided by `quality_scale` (null: by the largest quality in the pool)."""

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "quality"})
    alpha: Share = 0.5
    quality_scale: Positive | None = None

    def select(self, study: Study) -> Selection:
        quality, x, budget, alpha = study.quality_or_fail(), study.embeddings, study.budget, self.alpha
        scaled = quality / (self.quality_scale or float(np.abs(quality).max()) or 1.0)
        if self.neighbours is None:
            chosen = greedy(x, scaled, budget, alpha=alpha, device=self.device)
        else:
            graph = neighbours.of(study, self.neighbours, self.device)
            bonus = alpha * finite_scores(scaled, len(x))
            chosen = neighbours.greedy(x, graph, budget, weight=1 - alpha, bonus=bonus)
        return Selection(chosen, scores=quality[chosen])
