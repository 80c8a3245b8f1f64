"""The examples most like the targets, which take turns (the rule of RDS+: Ivison et al. 2025, arXiv 2503.01807)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dsel.arrays import Indices
from dsel.retrieval import Blocks, by_group, cosines, round_robin, top
from dsel.selector.base import Selection, Static
from dsel.study import Study
from dsel.targets.base import Target


def choose(
    similarities: Callable[[], Blocks], target: Target, n: int, budget: int, *, rule: str, on_taken: str
) -> tuple[Indices, npt.NDArray[np.float32]]:
    """`budget` of n examples by how similar they are to the targets.

    By `round_robin` the targets of a task, or where there are several the tasks, by their most similar target, take
    turns. By the `global` rule the examples come that are most similar to any target.

    Args:
        similarities: makes them anew, block by block, in the order of the pool.
        target: the targets.
        n: how many examples there are.
        budget: how many are chosen.
        rule: `round_robin` or `global`.
        on_taken: of `round_robin`, see there.

    Returns:
        int64[budget] in the order chosen, and the similarity of each to the target that it is most similar to.
    """
    tasks = target.by_task() if rule == "round_robin" else [np.arange(len(target))]
    singly = rule == "round_robin" and len(tasks) == 1
    turns = len(target) if singly else len(tasks)
    k = min(n, 2 * -(-budget // turns) + 16)  # most turns are not lost
    while True:
        ranked, similar = top(similarities() if singly else by_group(similarities(), tasks), k)
        chosen = round_robin(ranked, budget, on_taken=on_taken)
        if chosen is not None:
            break
        k = min(n, 2 * k)
    best = np.full(n, -np.inf, dtype=np.float32)
    np.maximum.at(best, ranked.ravel(), similar.ravel())
    return chosen, best[chosen]


@dataclass(kw_only=True)
class MostSimilar(Static):
    """`choose` by the similarities that a subclass has.

    rule: targets, or tasks where there are several, take turns (`round_robin`); or the most similar to any (`global`,
    what the released script for large pools does). on_taken: a target whose example is taken loses its turn (`skip`,
    the released code) or takes its next (`next`).
    """

    rule: Literal["round_robin", "global"] = "round_robin"
    on_taken: Literal["skip", "next"] = "skip"

    @abstractmethod
    def similarities(self, study: Study) -> Callable[[], Blocks]:
        """What makes the similarities of the pool to the targets, each time anew."""

    def select(self, study: Study) -> Selection:
        target = study.target_or_fail()
        chosen, similar = choose(
            self.similarities(study),
            target,
            len(study.pool),
            study.budget,
            rule=self.rule,
            on_taken=self.on_taken,
        )
        return Selection(chosen, scores=similar)


@dataclass
class Nearest(MostSimilar):
    """`selector=nearest`: by the cosine of embeddings; with `embedder=rds` it is RDS+."""

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "target_embeddings"})

    def similarities(self, study: Study) -> Callable[[], Blocks]:
        pool, wanted = study.embeddings, study.resource("target_embeddings")
        return lambda: cosines(pool, wanted)
