"""GraphFilter: quality times what is new in the instruction's n-grams (Wu et al. 2024, arXiv 2410.12458)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from numpy.typing import ArrayLike

from dsel.arrays import Indices
from dsel.constraints import Count
from dsel.lazy import mapped
from dsel.ngrams import lazy_greedy, tfidf
from dsel.pool import Message, text_of
from dsel.selector.base import Selection, Static
from dsel.study import Study


def greedy(
    texts: Sequence[str], quality: ArrayLike, budget: int, *, ngram_max: int = 3, weights: str = "paper"
) -> Indices:
    """Pick the text with the largest quality times TF-IDF of its n-grams that no pick has yet, `budget` times.

    texts: n instructions; quality [n], not negative (IFD of a small model in the paper). weights: of an n-gram in a
    text, TF · log(N/d) as the `paper` is cited, or `sklearn`'s, smoothed and normalised to length 1, so that long
    instructions have no advantage. When every n-gram is covered the rest go by quality. Returns int64[budget] in the
    order chosen.
    """
    terms, rows = tfidf(texts, ngram_max, smooth=weights == "sklearn")
    return lazy_greedy(terms, quality, budget, decay=0.0, rows=rows)


@dataclass
class GraphFilter(Static):
    """`selector=graphfilter`: `greedy` over the user turns. Quality below zero is shifted up to start at zero."""

    needs: ClassVar[frozenset[str]] = frozenset({"quality"})
    ngram_max: Count = 3
    weights: Literal["paper", "sklearn"] = "paper"

    def select(self, study: Study) -> Selection:
        quality = study.quality_or_fail()
        asked = mapped(_asked, study.pool.messages)
        shifted = quality - min(0.0, float(quality.min()))
        chosen = greedy(asked, shifted, study.budget, ngram_max=self.ngram_max, weights=self.weights)
        return Selection(chosen, scores=quality[chosen])


def _asked(messages: Sequence[Message]) -> str:
    return " ".join(text_of(m) for m in messages if m["role"] == "user")
