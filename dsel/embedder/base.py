"""What the embedders that map one text to one vector share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dsel.pool import Message, text_of
from dsel.reading import Counts, joined, noted, shorten, windows, with_counts
from dsel.shards import HERE, Map, Read

Vectors = npt.NDArray[np.float32]

SHARD = 2048  # texts that are read at once


@dataclass(kw_only=True)
class Embedder(ABC):
    """`embed` maps n conversations to float32[n, d]; a subclass that treats texts one by one only writes `encode`.

    It is a worker of `dsel.shards`, described by its fields.

    text: what is read of an example, `both` prompt and response, all turns joined by newlines (Yu et al. 2024, §3.1),
    or its `prompt` alone, the user's turns (their released code).
    """

    text: Literal["both", "prompt"] = "both"

    suffix: ClassVar[str] = ".npy"
    advice = ""  # how more of a text can be read

    def check(self) -> None:
        """Raise `ConfigError` when the embedder cannot run here. Loads nothing heavy."""

    @abstractmethod
    def encode(self, texts: list[str]) -> Vectors:
        """float32[len(texts), d]."""

    def turns(self, messages: Sequence[Message]) -> list[Message]:
        """What is read of an example, each turn as plain text."""
        plain = [{"role": m["role"], "content": text_of(m)} for m in messages]
        return plain if self.text == "both" else [m for m in plain if m["role"] == "user"]

    def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        """The vectors of some conversations, as `turns` gives them, and what is read of each."""
        return self.encode([joined(c) for c in conversations]), nothing_cut(len(conversations))

    @property
    def shard_size(self) -> int:
        return SHARD

    def build(self) -> Read:
        """A copy, so that the model it loads goes with it."""
        return replace(self)._records

    def _records(self, conversations: list[list[Message]]) -> npt.NDArray[np.void]:
        vectors, counts = self.read(conversations)
        return with_counts(np.asarray(vectors, dtype=np.float32), counts)

    def embed(self, conversations: Sequence[Sequence[Message]], scratch: Path, engine: Map = HERE) -> Vectors:
        """float32[n, d], in the order of `conversations`; what is not read of them is noted in `scratch`.

        It is done a shard at a time by `engine`, the longest texts first; a killed run finds the finished shards again
        in `scratch`.
        """
        if not len(conversations):
            raise ValueError("no texts to embed")
        chats = [self.turns(messages) for messages in conversations]
        sizes = [len(joined(chat)) for chat in chats]
        found = engine.map(self, chats, scratch, title="embedding", sizes=sizes)
        return noted(found, scratch, "embedder", self.advice)


@dataclass(kw_only=True)
class Limited(Embedder):
    """An embedder that takes so many tokens of a text and no more.

    long: what becomes of longer texts. `cut`: the system prompt is left out, then earlier exchanges, then the last
    instruction and response share the room (`dsel.reading.shorten`). `mean`: all of the text is read, in windows of
    about the same number of tokens, and the vector is the mean of theirs, of length 1 again where theirs are.
    """

    long: Literal["cut", "mean"] = "cut"

    advice = "embedder.long=mean reads all"


@dataclass(kw_only=True)
class Tokenized(Limited):
    """A `Limited` embedder whose tokenizer is at hand."""

    @property
    @abstractmethod
    def limit(self) -> int | None:
        """The tokens that it reads of a text, with those that it adds itself; None for any number."""

    @abstractmethod
    def sizes(self, texts: list[str]) -> list[int]:
        """The tokens of each text, with those that the embedder adds."""

    @abstractmethod
    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Where each token of the text itself begins and ends, in characters."""

    def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        limit, texts = self.limit, [joined(c) for c in conversations]
        if limit is None:
            return super().read(conversations)
        counts = np.array([[size, size, limit] for size in self.sizes(texts)], dtype=np.int64)
        parts = [[text] for text in texts]
        for i in np.flatnonzero(counts[:, 0] > limit).tolist():
            if self.long == "mean":
                parts[i] = windows(texts[i], limit, self._size, self.spans)
            else:
                parts[i] = [joined(shorten(conversations[i], limit, lambda chat: self._size(joined(chat)), self.spans))]
                counts[i, 1] = min(limit, self._size(parts[i][0]))
        vectors = self.encode([part for some in parts for part in some])
        return means(vectors, [len(some) for some in parts]), counts

    def _size(self, text: str) -> int:
        return self.sizes([text])[0]


def nothing_cut(n: int) -> Counts:
    """The counts of n texts that are read in full, whatever their number of tokens."""
    return np.zeros((n, 3), dtype=np.int64)


def means(vectors: Vectors, sizes: Sequence[int]) -> Vectors:
    """The mean of each run of `vectors`, float32[len(sizes), d]; of unit vectors, the unit vector along it."""
    if len(vectors) == len(sizes):
        return vectors
    out = []
    for part in np.split(vectors, np.cumsum(sizes)[:-1]):
        mean = part.mean(axis=0)
        if len(part) > 1 and np.allclose(np.linalg.norm(part, axis=1), 1, atol=1e-3):
            mean /= max(np.linalg.norm(mean), 1e-12)
        out.append(mean)
    return np.stack(out)
