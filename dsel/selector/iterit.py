"""IterIT: hard and diverse responses, chosen anew as the model learns (Jia et al. 2024, arXiv 2412.17365)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Indices, check_budget, finite_scores
from dsel.constraints import Above, AtLeast, AtMost, Count, Share, Turn
from dsel.ngrams import lazy_greedy, tfidf
from dsel.pool import Message, Pool, resolve_budget
from dsel.questions import Difficulties
from dsel.reading import noted
from dsel.scorer.base import Scores
from dsel.scorer.ifd import PROBES, asked_and_answered, sizes
from dsel.scorer.pretrained import fill_missing
from dsel.selector.base import Choose, Selection, Selector, Step, Work
from dsel.study import Study
from dsel.trainer.base import Training

if TYPE_CHECKING:
    from dsel.learner import Learner

ScoreType = Literal["both", "ifd"]
Tail = Literal["paper", "code"]
SCORE_TYPES, TAILS = get_args(ScoreType), get_args(Tail)


def greedy(responses: Sequence[str], ifd: ArrayLike, budget: int, *, decay: float = 0.1) -> Indices:
    """Pick the response with the largest IFD * sum_j w_j tfidf_j, decay w_j for its n-grams, `budget` times.

    responses: n texts; ifd [n], the instruction-following difficulty of each, not negative. Only IFD < 1 competes:
    TF-IDF is fitted to those responses (word 1- to 3-grams, scikit-learn's defaults), and when they run out the
    others follow by index. Ties go to the higher IFD, then to the lower index. Returns int64[budget] in the order
    chosen. Raises ValueError for IFDs that are negative, not finite or not n, a decay outside [0, 1] and a budget
    outside 1..n.
    """
    return order(responses, ifd, budget, decay=decay)[:budget]


def order(
    responses: Sequence[str],
    ifd: ArrayLike,
    budget: int,
    *,
    decay: float = 0.1,
    score_type: str = "both",
    tail: str = "paper",
) -> Indices:
    """All n responses, the `budget` chosen ones first: int64[n].

    The chosen are those of `greedy` (score_type="both") or of IFD alone ("ifd", the paper's ablation). Then come the
    others that competed, by falling IFD, and last, by index, those with IFD >= 1; the released code (tail="code")
    has these two the other way round. Equal IFDs stand by index. Arguments and errors are those of `greedy`.
    """
    n = len(responses)
    scores = finite_scores(ifd, n, "ifd")
    budget = check_budget(budget, n)
    if (scores < 0).any():
        raise ValueError("ifd must not be negative")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be between 0 and 1, not {decay}")
    if score_type not in SCORE_TYPES:
        raise ValueError(f"score_type must be one of {', '.join(SCORE_TYPES)}, not {score_type}")
    if tail not in TAILS:
        raise ValueError(f"tail must be one of {', '.join(TAILS)}, not {tail}")
    ranked = np.argsort(-scores, kind="stable")
    chosen = ranked[scores[ranked] < 1][:budget]
    if score_type == "both" and len(chosen):
        candidates = np.flatnonzero(scores < 1)
        terms, rows = tfidf([responses[i] for i in candidates.tolist()])
        chosen = candidates[lazy_greedy(terms, scores[candidates], len(chosen), decay=decay, rows=rows)]
    rest, unhelped = ranked[~np.isin(ranked, chosen) & (scores[ranked] < 1)], np.flatnonzero(scores >= 1)
    return np.concatenate([chosen, unhelped, rest] if tail == "code" else [chosen, rest, unhelped])


@dataclass
class IterIT(Selector):
    """`selector=iterit`: a fresh subset for each of `epochs` epochs of one training (Jia et al. 2024).

    Before the first epoch the base model scores the whole pool; before each later one the model as trained so far
    scores the first update_ratio times budget examples of the last order again. An epoch's subset is the first budget
    examples of the new `order`. ratio: the share of the pool that an epoch trains on, instead of the run's budget.
    decay, score_type, tail: see `order`. update: `static` keeps the first epoch's subset. turn: of a conversation, the
    `last` response is read after all that precedes it (the published code), or the `first`, up to max_length tokens; an
    example whose prompt leaves no room for its response has difficulty 0. end_token: whether the responses that n-grams
    are taken of end in the text of the tokenizer's end-of-text token, as in the published code.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model"})
    probes: ClassVar[Sequence[list[Message]]] = PROBES

    epochs: Count = 3
    ratio: Annotated[float, Above(0), AtMost(1)] | None = None
    update_ratio: Annotated[float, AtLeast(1)] = 3
    decay: Share = 0.1
    score_type: ScoreType = "both"
    update: Literal["iterative", "static"] = "iterative"
    tail: Tail = "paper"
    max_length: Annotated[int, AtLeast(64)] = 2048
    turn: Turn = "last"
    end_token: bool = True

    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        budget = study.budget if self.ratio is None else resolve_budget(self.ratio, len(study.pool))
        ranking, ifd = self._ranked(study, learner, np.arange(len(study.pool)), budget, epoch=1)
        for epoch in range(1, self.epochs + 1):
            if epoch > 1 and self.update == "iterative":
                again = ranking[: math.ceil(self.update_ratio * budget)]
                ranking, ifd = self._ranked(study, learner, again, budget, epoch)
            training = Training(epochs=1, restart=epoch == 1, part=(epoch, self.epochs))
            yield Choose(Selection(ranking[:budget], scores=ifd[:budget]), training)

    def _ranked(
        self, study: Study, learner: Learner, candidates: Indices, budget: int, epoch: int
    ) -> tuple[Indices, Scores]:
        """The candidates in their new `order`, and the difficulty that each has under the model as it stands."""
        pool = study.pool.take(candidates)
        pairs = asked_and_answered(pool, self.turn)
        end = learner.tokenizer.eos_token or "" if self.end_token else ""
        responses = [response + end for _, response in pairs]
        ifd = self._difficulty(study, learner, pool, pairs)
        found = order(responses, ifd, budget, decay=self.decay, score_type=self.score_type, tail=self.tail)
        ranks = np.arange(1, len(found) + 1)
        study.note("ifd", epoch, {"index": candidates[found], "ifd": ifd[found], "rank": ranks})
        return candidates[found], ifd[found]

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        size = budget if self.ratio is None else resolve_budget(self.ratio, n)
        again = min(n, math.ceil(self.update_ratio * size)) if self.update == "iterative" else 0
        return Work([(size, 1)] * self.epochs, scored=n + (self.epochs - 1) * again)

    def _difficulty(
        self, study: Study, learner: Learner, candidates: Pool, pairs: Sequence[tuple[list[Message], str]]
    ) -> Scores:
        """The candidates' IFD under the model as it stands, float32[n]; `pairs` as from `asked_and_answered`."""

        def build(folder: Path) -> None:
            worker = Difficulties(learner.snapshot(), self.max_length)
            found = study.engine.map(worker, pairs, folder, title="ifd", sizes=sizes(pairs))
            np.save(folder / "ifd.npy", noted(found, folder, "ifd scorer", "a larger selector.max_length reads more"))

        key = {
            "model": learner.state, "pool": candidates.fingerprint, "max_length": self.max_length, "turn": self.turn
        }  # fmt: skip
        folder = study.artifact("ifd", "ifd", key, build, items=len(pairs))
        scores = fill_missing(np.load(folder / "ifd.npy"), 0, candidates, "their prompts fill selector.max_length")
        return scores.astype(np.float32)
