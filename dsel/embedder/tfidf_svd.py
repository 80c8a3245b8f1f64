"""TF-IDF reduced by a truncated SVD (latent semantic analysis): no model, no network, seconds on a CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dsel.constraints import Count, Seed
from dsel.embedder.base import FILE, Embedder, Stored, Vectors
from dsel.npy import Rows
from dsel.pool import Message
from dsel.progress import progress, tracked
from dsel.shards import HERE, Map
from dsel.words import words_and_signs

log = logging.getLogger(__name__)

IN_MEMORY = 100_000  # texts of which all terms are held in memory: about 2 GB where they have 180 words


@dataclass
class TfidfSvd(Embedder):
    """TF-IDF over word n-grams and a randomised SVD to `dimensions`, rows normalised to length 1.

    Texts without a single known word (they would be zero vectors) get the direction of the mean. Up to `IN_MEMORY`
    texts scikit-learn has them all at once; of more, terms are counted and the matrix is gone through block by block
    (`dsel.embedder.streamed_svd`).
    """

    by_text: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    dimensions: Count = 128
    ngram_max: Count = 2
    min_df: Count = 2
    max_features: Count = 50_000
    sublinear_tf: bool = True
    seed: Seed = 0

    def encode(self, texts: list[str]) -> Vectors:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            ngram_range=(1, self.ngram_max),
            min_df=min(self.min_df, len(texts)),
            max_features=self.max_features,
            sublinear_tf=self.sublinear_tf,
            tokenizer=words_and_signs,  # keep single letters, digits and signs: they tell tasks apart
            token_pattern=None,
            dtype=np.float32,
        )
        try:
            tfidf = vectorizer.fit_transform(tracked(texts, "TF-IDF", total=len(texts), unit="texts"))
        except ValueError:  # no word occurs in min_df texts
            again = tracked(texts, "TF-IDF of rare words", total=len(texts), unit="texts")
            tfidf = vectorizer.set_params(min_df=1).fit_transform(again)
        rank = min(self.dimensions, *tfidf.shape)
        with progress(f"SVD of TF-IDF to {rank} dimensions", total=None, unit=""):
            if tfidf.shape[1] > 1:
                with np.errstate(invalid="ignore"):  # in the variance explained, where texts do not differ
                    vectors = TruncatedSVD(n_components=rank, random_state=self.seed).fit_transform(tfidf)
            else:  # which scikit-learn refuses, though it is its own decomposition
                vectors = tfidf.toarray()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        mean = vectors.mean(0)
        vectors = np.where(norms > 1e-6, vectors, mean)
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def embed(self, conversations: Sequence[Sequence[Message]], scratch: Path, engine: Map = HERE) -> Stored:
        # the vocabulary is the whole pool's, so nothing can be read by shards
        n = len(conversations)
        rows = Rows(scratch / FILE, n)
        rows.path.unlink(missing_ok=True)
        texts = self.texts(conversations)
        found = self._streamed(texts, scratch) if n > IN_MEMORY else [(0, self.encode(list(texts)))]
        for start, vectors in found:
            rows.write(np.arange(start, start + len(vectors)), self.stored(vectors))
        return rows.read()

    def _streamed(self, texts: Sequence[str], scratch: Path) -> Iterator[tuple[int, Vectors]]:
        """The same vectors but for the noise of the SVD, some rows at a time; `scratch` gets files of the matrix."""
        from dsel.embedder import streamed_svd as streamed

        rows = streamed.made_before(scratch)
        if rows is None:
            n = len(texts)
            table = streamed.count(texts, n, self.ngram_max)
            if table.lost:
                log.warning("TF-IDF: memory is bounded, and up to %d texts of a rare term are not counted", table.lost)
            known, frequency = table.most(self.min_df, self.max_features)
            if not len(known):  # no word occurs in min_df texts
                known, frequency = table.most(1, self.max_features)
            del table
            rows = streamed.matrix(texts, n, self.ngram_max, known, frequency, self.sublinear_tf, scratch)
        return streamed.project(rows, streamed.svd(rows, self.dimensions, self.seed))
