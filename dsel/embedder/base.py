"""What the embedders that map one text to one vector share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dsel.errors import need
from dsel.lazy import Conversations, mapped
from dsel.pool import Message, text_of
from dsel.progress import tracked
from dsel.reading import Counts, joined, note_cut, shorten, windows, with_counts
from dsel.shards import HERE, Map, Read
from dsel.spent import spend

Vectors = npt.NDArray[np.float32]
Stored = npt.NDArray[np.float32] | npt.NDArray[np.float16]

SHARD = 2048  # texts that are read at once
LARGE_SHARD = 16_384  # by an embedder that takes no second for as many
FILE = "embeddings.npy"


@dataclass(kw_only=True)
class Embedder(ABC):
    """`embed` maps n conversations to vectors [n, d]; a subclass that treats texts one by one only writes `encode`.

    It is a worker of `dsel.shards`, described by its fields.

    text: what is read of an example, `both` prompt and response, all turns joined by newlines (Yu et al. 2024, §3.1),
    or its `prompt` alone, the user's turns (their released code). store: what the numbers are kept as; float16 takes
    half the room and keeps three decimals.
    """

    text: Literal["both", "prompt"] = "both"
    store: Literal["float32", "float16"] = "float32"

    suffix: ClassVar[str] = ".npy"
    by_length: ClassVar[bool] = True  # the longest texts are read first, with others of their length
    by_turn: ClassVar[bool] = True  # `read` is given conversations; else `encode` texts, which takes less time
    in_process: ClassVar[bool] = False  # several processes are no help (`dsel.shards.Worker`)
    by_text: ClassVar[bool] = True  # the vector of a text does not depend on the others
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

    def _records(self, rows: list[Any]) -> npt.NDArray[Any]:
        if not self.by_turn:
            return self.stored(self.encode(rows))
        vectors, counts = self.read([self.turns(messages) for messages in rows])
        return with_counts(self.stored(vectors), counts)

    def stored(self, vectors: npt.NDArray[np.floating]) -> Stored:
        """The vectors as they are kept. Raises `ConfigError` for numbers that float16 does not hold."""
        with np.errstate(over="ignore"):
            found = np.asarray(vectors, dtype=self.store)
        if self.store == "float16":
            fits = bool((np.isfinite(found) | ~np.isfinite(vectors)).all())
            need(fits, "embedder.store=float16 holds no number above 65,504, as these vectors have: wants float32")
        return found

    def embed(self, conversations: Sequence[Sequence[Message]], scratch: Path, engine: Map = HERE) -> Stored:
        """The vectors [n, d] in the order of `conversations`, memory-mapped; what is not read of them is noted.

        They are read a shard at a time by `engine` and written into a file in `scratch`, so that memory holds a shard;
        a killed run finds there what is finished.
        """
        if not len(conversations):
            raise ValueError("no texts to embed")
        texts = self.texts(conversations)
        rows = conversations if self.by_turn else texts
        sizes = lengths(texts) if self.by_length else None
        found, read = engine.fill(self, rows, scratch / FILE, title="embedding", sizes=sizes)
        note_cut(scratch, "embedder", read, self.advice)
        return found

    def texts(self, conversations: Sequence[Sequence[Message]]) -> Sequence[str]:
        """What is read of each example, in one text."""
        if self.text == "both" and isinstance(conversations, Conversations):
            return conversations.texts
        return mapped(lambda messages: joined(self.turns(messages)), conversations)


@dataclass(kw_only=True)
class Limited(Embedder):
    """An embedder that takes so many tokens of a text and no more.

    long: what becomes of longer texts. `cut`: the system prompt is left out, then earlier exchanges, then the last
    instruction and response share the room (`dsel.reading.shorten`). `mean`: all of the text is read, in windows of
    about the same number of tokens, and the vector is the mean of theirs, of length 1 again where theirs are.
    """

    long: Literal["cut", "mean"] = "cut"

    advice = "a system prompt is left out first, then earlier turns; embedder.long=mean reads all"


@dataclass(kw_only=True)
class Tokenized(Limited):
    """A `Limited` embedder whose tokenizer is at hand."""

    @property
    @abstractmethod
    def limit(self) -> int | None:
        """The tokens that it reads of a text, with those that it adds itself; None for any number."""

    @property
    def parameters(self) -> float:
        """How many each token passes through; 0 where they are not counted."""
        return 0.0

    @abstractmethod
    def sizes(self, texts: list[str]) -> list[int]:
        """The tokens of each text, with those that the embedder adds."""

    @abstractmethod
    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Where each token of the text itself begins and ends, in characters."""

    def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        limit, texts = self.limit, [joined(c) for c in conversations]
        if limit is None:
            self._count(sum(self.sizes(texts)) if self.parameters else 0)
            return super().read(conversations)
        parts, counts = self.parts(conversations, texts, self.sizes(texts), limit)
        self._count(int(counts[:, 1].sum()))
        vectors = self.encode([part for some in parts for part in some])
        return means(vectors, [len(some) for some in parts]), counts

    def parts(
        self, conversations: list[list[Message]], texts: list[str], sizes: list[int], limit: int
    ) -> tuple[list[list[str]], Counts]:
        """What is read of each conversation, one text or several windows, and the counts; texts, sizes: of them all."""
        counts = np.array([[size, size, limit] for size in sizes], dtype=np.int64)
        parts = [[text] for text in texts]
        for i in np.flatnonzero(counts[:, 0] > limit).tolist():
            if self.long == "mean":
                parts[i] = windows(texts[i], limit, self._size, self.spans)
            else:
                parts[i] = [joined(shorten(conversations[i], limit, lambda chat: self._size(joined(chat)), self.spans))]
                counts[i, 1] = min(limit, self._size(parts[i][0]))
        return parts, counts

    def _count(self, tokens: int) -> None:
        if self.parameters:
            spend(2.0 * self.parameters * tokens, tokens)

    def _size(self, text: str) -> int:
        return self.sizes([text])[0]


def lengths(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The characters of each text."""
    counted = tracked(texts, "lengths of the texts", total=len(texts), unit="texts")
    return np.fromiter(map(len, counted), np.int64, len(texts))


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
