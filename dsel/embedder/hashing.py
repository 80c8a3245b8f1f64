"""Words and their n-grams, hashed into a vector: no model, no vocabulary, no network, tens of thousands a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dsel.constraints import Count
from dsel.embedder.base import LARGE_SHARD, Embedder, Vectors


@dataclass
class Hashing(Embedder):
    """The n-grams of a text, each with its sign in the coordinate that its hash names (Weinberger et al. 2009).

    Vectors have length 1, and a dot product is that of all n-grams' weights up to a noise of about one over the root of
    `dimensions`. What a text gets depends on nothing but the text; all those without a word get the same.
    """

    dimensions: Count = 512
    ngram_max: Count = 2
    sublinear_tf: bool = True

    version: ClassVar[int] = 1
    by_length: ClassVar[bool] = False
    by_turn: ClassVar[bool] = False

    @property
    def shard_size(self) -> int:
        return LARGE_SHARD

    def encode(self, texts: list[str]) -> Vectors:
        from dsel.embedder.terms import batches, project, terms

        out, start = np.zeros((len(texts), self.dimensions), dtype=np.float32), 0
        for batch in batches(texts):
            project(*terms(batch, self.ngram_max), self.sublinear_tf, out[start : start + len(batch)])
            start += len(batch)
        return out
