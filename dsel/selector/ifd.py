"""Highest instruction-following difficulty first: with the IFD of a small model, SuperFiltering (Li et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dsel.selector.arrays import Indices, check_budget, finite_scores
from dsel.selector.base import Selection, Static
from dsel.study import Study


def rank(ifd: ArrayLike, budget: int) -> Indices:
    """The `budget` hardest examples: IFD below 1 in falling order, then, where the prompt does not help, rising.

    ifd [n]: exp(NLL(y|x)) / exp(NLL(y)) (Jia et al. 2024, method.md §4). Ties go to the lowest index.
    """
    values = finite_scores(ifd, len(np.atleast_1d(np.asarray(ifd))), "ifd")
    helped = values < 1
    return np.lexsort((np.where(helped, -values, values), ~helped))[: check_budget(budget, len(values))]


@dataclass
class IFD(Static):
    """`selector=ifd scorer=ifd`: `rank` by the scorer's IFD, chosen once."""

    needs: ClassVar[frozenset[str]] = frozenset({"quality"})

    def select(self, study: Study) -> Selection:
        ifd = study.quality_or_fail()
        chosen = rank(ifd, study.budget)
        return Selection(chosen, scores=ifd[chosen])
