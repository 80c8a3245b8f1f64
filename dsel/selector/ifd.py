"""Highest instruction-following difficulty first: with `scorer=superfiltering`, SuperFiltering (Li et al. 2024)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Indices, check_budget, finite_scores
from dsel.errors import ConfigError
from dsel.selector.base import Selection, Static
from dsel.study import Study

log = logging.getLogger(__name__)


def rank(ifd: ArrayLike, budget: int) -> Indices:
    """The `budget` hardest examples: IFD below 1 in falling order, then, where the prompt does not help, rising.

    ifd [n]: exp(NLL(y|x)) / exp(NLL(y)) (Jia et al. 2024). Ties go to the lowest index.
    """
    values = finite_scores(ifd, len(np.atleast_1d(np.asarray(ifd))), "ifd")
    helped = values < 1
    return np.lexsort((np.where(helped, -values, values), ~helped))[: check_budget(budget, len(values))]


@dataclass
class IFD(Static):
    """`selector=ifd` with `scorer=superfiltering` or `scorer=ifd`: `rank` by the scorer's IFD, chosen once.

    Where too few examples have an IFD below 1, those at or above it `fill` the budget, so that methods are compared at
    the same budget; the published code drops them and stops short.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"quality"})
    fill: bool = True

    def select(self, study: Study) -> Selection:
        ifd = study.quality_or_fail()
        chosen = rank(ifd, study.budget)
        helped = int((ifd[chosen] < 1).sum())
        if helped < len(chosen):
            if not self.fill and not helped:
                raise ConfigError("selector.fill=false: no example has an IFD below 1, so nothing is chosen")
            what = "the lowest of the others fill the budget" if self.fill else "no others are chosen"
            log.warning("only %d examples have an IFD below 1, of a budget of %d: %s", helped, len(chosen), what)
            chosen = chosen if self.fill else chosen[:helped]
        return Selection(chosen, scores=ifd[chosen])
