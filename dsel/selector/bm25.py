"""The examples whose words are the targets', by BM25: what a plain search engine would find."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dsel.arrays import Floats
from dsel.constraints import Positive, Share
from dsel.errors import need
from dsel.progress import progress, tracked
from dsel.retrieval import CELLS, Blocks
from dsel.selector.nearest import MostSimilar
from dsel.study import Study
from dsel.words import words

log = logging.getLogger(__name__)


class Index:
    """What bm25s makes of some texts (Lù 2024), in rows: BM25 as Lucene has it (Kamphuis et al. 2020).

    Memory is about 16 bytes for each word of the texts while it is made.
    """

    def __init__(self, texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75):
        from bm25s import BM25
        from bm25s.tokenization import Tokenized
        from scipy.sparse import csc_matrix

        vocabulary: dict[str, int] = {}
        ids = [
            [vocabulary.setdefault(word, len(vocabulary)) for word in words(text.lower())]
            for text in tracked(texts, "words of the pool", total=len(texts), unit="texts")
        ]
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for all of its own lines when it is loaded
        found = BM25(k1=k1, b=b, method="lucene")
        with progress("index of words", total=None, unit=""):
            found.index(Tokenized(ids, vocabulary or {"": 0}), show_progress=False)
        parts = found.scores
        self.vocabulary = vocabulary
        self.weights: Any = csc_matrix(
            (parts["data"], parts["indices"], parts["indptr"]), shape=(len(ids), len(parts["indptr"]) - 1)
        ).tocsr()

    def scores(self, queries: Sequence[str]) -> Iterator[Floats]:
        """How well each text fits each of m queries, float32[rows, m], so many texts at a time."""
        from scipy.sparse import csr_matrix

        entries = [
            (row, self.vocabulary[word], count)
            for row, query in enumerate(queries)
            for word, count in Counter(words(query.lower())).items()
            if word in self.vocabulary
        ]
        rows, columns, counts = zip(*entries, strict=True) if entries else ((), (), ())
        shape = (len(queries), self.weights.shape[1])
        asked = csr_matrix((np.array(counts, np.float32), (rows, columns)), shape=shape).T.tocsr()
        step = max(1, CELLS // len(queries))
        for start in range(0, self.weights.shape[0], step):
            yield (self.weights[start : start + step] @ asked).toarray().astype(np.float32)


@dataclass
class Bm25(MostSimilar):
    """`selector=bm25`: all turns of an example are one text, and those of a target one query.

    k1: how soon more of the same word counts no more. b: how much a long text's words count less.
    """

    k1: Positive = 1.5
    b: Share = 0.75

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})

    def similarities(self, study: Study) -> Callable[[], Blocks]:
        index = Index(study.pool.texts, k1=self.k1, b=self.b)
        queries = list(study.target_or_fail().pool.texts)
        strange = sum(not any(word in index.vocabulary for word in words(query.lower())) for query in queries)
        need(strange < len(queries), "selector=bm25: no target has a word that the pool has")
        if strange:
            text = "%d of %d targets have no word that the pool has: they take what comes first in it"
            log.warning(text, strange, len(queries))
        return lambda: index.scores(queries)
