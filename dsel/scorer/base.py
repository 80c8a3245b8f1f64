"""What all scorers share: the protocol, the turns of a conversation, and reading all of a pool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dsel.lazy import Indices, Lazy, fetched
from dsel.pool import Message, Pool, text_of
from dsel.reading import noted, with_counts
from dsel.shards import HERE, Map, Read

Scores = npt.NDArray[np.float32]

SHARD = 128  # items that are read at once

Reduction = Literal["sum", "mean", "first"]
REDUCTIONS: dict[Reduction, Callable[..., Any]] = {"sum": np.sum, "mean": np.mean, "first": lambda values: values[0]}


class Scorer(ABC):
    """`score` maps n examples to float32[n], higher is better."""

    def check(self) -> None:
        """Raise `ConfigError` when the scorer cannot run here. Loads nothing heavy."""

    def try_on(self, pool: Pool) -> None:
        """Raise `ConfigError` for an example that the scorer cannot read, before anything costly. Loads no weights."""

    @abstractmethod
    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores | None:
        """float32[n], in the pool's order. What `scratch` holds from a killed scoring is not computed again.

        engine: who reads the examples, for a scorer that is a `Reader`.
        """


class Reader(Scorer):
    """A scorer that reads examples one by one: a worker of `dsel.shards`, described by its fields.

    What it is given as rows is for its `score` to say; it gives a number for each, or a record of `counted`.
    """

    suffix: ClassVar[str] = ".npy"
    in_process: ClassVar[bool] = False  # several processes are no help (`dsel.shards.Worker`)

    @property
    def shard_size(self) -> int:
        return SHARD

    @abstractmethod
    def build(self) -> Read:
        """Load what it reads with; the function that does it."""

    def read_all(
        self,
        rows: Sequence[Any],
        sizes: npt.ArrayLike,
        scratch: Path,
        engine: Map,
        *,
        title: str,
        unit: str = "examples",
    ) -> npt.NDArray[np.float64]:
        """The number for each of `rows`, float64[n]; what is not read of them is noted in `scratch`."""
        found = engine.map(self, rows, scratch, title=title, sizes=sizes, unit=unit)
        return noted(
            found, scratch, f"{title} scorer", "a larger scorer.max_length reads more, up to the model's positions"
        )


def turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """(instruction, response) of each assistant turn; system messages are no part of either."""
    pairs: list[tuple[str, str]] = []
    asked: list[str] = []
    for message in messages:
        if message["role"] == "assistant":
            pairs.append(("\n".join(asked), text_of(message)))
            asked = []
        elif message["role"] != "system":  # also what a tool answered
            asked.append(text_of(message))
    return pairs


def all_turns(pool: Pool) -> tuple[Sequence[tuple[str, str]], npt.NDArray[np.int64]]:
    """`turns` of all examples in a row, made when they are asked for; and how many each has, int64[n]."""
    counts = np.fromiter((len(turns(messages)) for messages in pool.messages), np.int64, len(pool))
    ends, messages = np.cumsum(counts), pool.messages

    def fetch(indices: Indices) -> list[tuple[str, str]]:
        examples = np.searchsorted(ends, indices, side="right")
        several, which = np.unique(examples, return_inverse=True)
        found = [turns(each) for each in fetched(messages, several)]
        inside = indices - (ends - counts)[examples]
        return [found[i][turn] for i, turn in zip(which.tolist(), inside.tolist(), strict=True)]

    return Lazy(int(counts.sum()), fetch), counts


def over_turns(values: npt.NDArray[np.float64], counts: npt.ArrayLike, how: Reduction) -> Scores:
    """One score an example, float32[n], from those of all turns in a row, float64[sum(counts)]."""
    parts = np.split(values, np.cumsum(counts)[:-1])
    return np.array([REDUCTIONS[how](part) for part in parts], dtype=np.float32)


def counted(
    scores: npt.NDArray[np.float64], whole: Sequence[int], read: Sequence[int], limit: int
) -> npt.NDArray[np.void]:
    """The scores of texts of `whole` tokens, `read` of them up to `limit`: records for `Reader.read_all`."""
    return with_counts(scores, np.column_stack([np.array(whole), np.array(read), np.full(len(scores), limit)]))
