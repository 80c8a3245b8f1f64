"""DSIR: draws by how much likelier an example's n-grams are among the targets than in the pool (Xie et al. 2023).

Data selection for language models via importance resampling, arXiv 2302.03169.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dsel.arrays import Doubles, Indices
from dsel.constraints import Count, NotNegative
from dsel.selector.base import Selection, Static
from dsel.selector.sampling import gumbel_top
from dsel.study import Study

SMALL = 1e-8  # what a bucket's probability is at least, as in the released code


def log_weights(
    pool: Iterable[str], targets: Iterable[str], *, buckets: int = 10_000, ngram_max: int = 2, smoothing: float = 0.0
) -> Doubles:
    """log p(x) − log q(x) of each text of the pool, float64[n] (Xie et al. 2023, §4).

    p and q are bags of hashed n-grams of one word to `ngram_max`, as they are distributed over the buckets among the
    targets and in the pool. The pool is gone through twice; memory is for some texts at a time.

    smoothing: n-grams that each bucket is taken to have among the targets beside those it has. With 0 an n-gram that no
    target has costs a text up to log 10⁸: the paper's targets are millions of texts, of a few dozen it makes the
    shortest texts of the pool the likeliest.
    """
    raw = _distribution(pool, buckets, ngram_max)
    wanted = _distribution(targets, buckets, ngram_max, smoothing)
    ratio = np.log(wanted + SMALL) - np.log(raw + SMALL)
    sums = [
        np.bincount(rows, counts * ratio[grams], minlength=size)
        for rows, grams, counts, size in _counted(pool, buckets, ngram_max)
    ]
    return np.concatenate(sums) if sums else np.empty(0)


def _distribution(texts: Iterable[str], buckets: int, ngram_max: int, smoothing: float = 0.0) -> Doubles:
    total = np.full(buckets, float(smoothing))
    for _, grams, counts, _ in _counted(texts, buckets, ngram_max):
        total += np.bincount(grams, counts, minlength=buckets)
    return total / (total.sum() or 1.0)


def _counted(texts: Iterable[str], buckets: int, ngram_max: int) -> Iterator[tuple[Indices, Indices, Doubles, int]]:
    """Some texts at a time: (text, bucket, count) of each of their n-grams, and how many texts they are."""
    from dsel.embedder.terms import batches, terms

    for batch in batches(texts):
        found = terms(batch, ngram_max)
        rows = np.repeat(np.arange(len(batch)), found.sizes)
        at = np.arange(len(rows)) + np.repeat(found.starts - (np.cumsum(found.sizes) - found.sizes), found.sizes)
        grams = (found.numbers[at] >> np.uint64(16)) % np.uint64(buckets)
        yield rows, grams.astype(np.int64), found.counts[at].astype(np.float64), len(batch)


@dataclass
class Dsir(Static):
    """`selector=dsir`: b distinct examples, drawn one after the other in proportion to their weights (Gumbel top-k).

    buckets: that n-grams are hashed into. ngram_max: words of the longest. smoothing: see `log_weights`.
    """

    buckets: Count = 10_000
    ngram_max: Count = 2
    smoothing: NotNegative = 0.0

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})

    def select(self, study: Study) -> Selection:
        texts = study.pool.texts
        weights = log_weights(
            texts,
            study.target_or_fail().pool.texts,
            buckets=self.buckets,
            ngram_max=self.ngram_max,
            smoothing=self.smoothing,
        )
        chosen = gumbel_top(weights, study.budget, study.rng)
        return Selection(chosen, scores=weights[chosen].astype(np.float32))
