"""TF-IDF reduced by a truncated SVD (latent semantic analysis): no model, no network, seconds on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dsel.constraints import Count, Seed
from dsel.embedder.base import Embedder, Vectors
from dsel.pool import Message
from dsel.progress import progress, tracked
from dsel.shards import HERE, Map
from dsel.words import words_and_signs


@dataclass
class TfidfSvd(Embedder):
    """scikit-learn's TF-IDF over word n-grams and a randomised SVD to `dimensions`, rows normalised to length 1.

    Texts without a single known word (they would be zero vectors) get the direction of the mean.
    """

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
            vectors = TruncatedSVD(n_components=rank, random_state=self.seed).fit_transform(tfidf)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        mean = vectors.mean(0)
        vectors = np.where(norms > 1e-6, vectors, mean)
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def embed(self, conversations: Sequence[Sequence[Message]], scratch: Path, engine: Map = HERE) -> Vectors:
        return self.read([self.turns(messages) for messages in conversations])[0]  # the vocabulary is the whole pool's
