"""Any scorer as feedback: what it says of the reference, less what it says of the model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from dsel.constraints import Called
from dsel.errors import ConfigError, need
from dsel.scorer.base import Scorer
from dsel.scorer.column import Column
from dsel.scorer.none import NoScorer
from dsel.selector.feedback.base import Doubles, Feedback, Indices
from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner


@dataclass
class Scored(Feedback):
    """The difference of `scorer`'s scores: a reward model's, or a judge's ratings (Yu et al. 2024, Eq. 4 and §2.3).

    A reference is scored once, in the round that chose it; answers are new in each round. Both are kept in the cache as
    any scores are, so nothing that was paid for is asked again.
    """

    scorer: Annotated[Scorer, Called("a scorer, as scorer@selector.feedback.scorer=reward chooses one")]

    def check(self) -> None:
        reads = not isinstance(self.scorer, (Column, NoScorer))
        need(reads, "selector.feedback.scorer: give one that reads texts, as the model's answers have no scores yet")
        try:
            self.scorer.check()
        except ConfigError as error:
            raise ConfigError(f"selector.feedback.scorer: {error}") from error

    def score(self, study: Study, learner: Learner, rounds: Sequence[Indices], answers: Sequence[str]) -> Doubles:
        pool = study.pool
        references = np.concatenate([study.scores(self.scorer, pool.take(chosen)) for chosen in rounds])
        generated = study.scores(self.scorer, pool.take(np.concatenate(rounds)).answered(answers))
        return references.astype(np.float64) - generated
