"""Facility location: the subset that represents the whole pool best, by an exact lazy greedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numpy.typing import ArrayLike

from dsel.arrays import Indices, check_budget, unit_rows
from dsel.selector import neighbours
from dsel.selector.base import Selection
from dsel.selector.coverage import lazy_greedy
from dsel.study import Study


def greedy(embeddings: ArrayLike, budget: int, *, device: str = "cpu") -> Indices:
    """Greedy maximiser of d(S) = sum over v in the pool of max over a in S of cos(v, a).

    The order is that of the plain greedy in float64, within 1 - 1/e of the best value (Nemhauser, Wolsey, Fisher 1978);
    values that agree to nine decimals are ties and go to the lowest index.

    Time: 2 n² d operations one to three times over, in matrix products, and little that depends on the budget. Memory:
    a copy of the embeddings, at most 2.5 GB of pairs, and 150 bytes an example; never an n x n matrix. For more than
    some hundred thousand examples there is `neighbours.greedy`, which chooses nearly as well.

    A GPU does all of it: 2 n² d operations about once in float32, one to five times in float16 (far more where there
    are no groups at all), which only says where to look, and a few milliseconds a pick. It holds 6 n d bytes, and half
    of what memory is left gets lists of pairs: the less that is, the more products. It chooses what the processor does,
    but for ties within the rounding of float64.

    Args:
        embeddings: [n, d], rows of any length.
        budget: how many to choose.
        device: where it is computed: auto, cpu, cuda or cuda:1.

    Returns:
        int64[budget] in the order chosen.

    Raises:
        ValueError: for NaN or zero rows, named, and for a budget outside 1..n.
        ConfigError: for a device that is not here.
    """
    x = unit_rows(embeddings)
    return lazy_greedy(x, check_budget(budget, len(x)), device=device)


@dataclass
class FacilityLocation(neighbours.OnPairs):
    """`selector=facility_location`: `greedy`; with `neighbours`, `neighbours.greedy`."""

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def select(self, study: Study) -> Selection:
        if self.neighbours is None:
            return Selection(greedy(study.embeddings, study.budget, device=self.device))
        graph = neighbours.of(study, self.neighbours, self.device)
        return Selection(neighbours.greedy(study.embeddings, graph, study.budget))
