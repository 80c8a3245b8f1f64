"""What all scorers share: the protocol, the turns of a conversation, and saving finished work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dsel.files import array_piece
from dsel.pool import Message, Pool, text_of
from dsel.progress import progress
from dsel.reading import note_cut

Scores = npt.NDArray[np.float32]

SHARD = 128  # items between two saves: what a killed scoring loses at most

Reduction = Literal["sum", "mean", "first"]
REDUCTIONS: dict[Reduction, Callable[..., Any]] = {"sum": np.sum, "mean": np.mean, "first": lambda values: values[0]}


class Scorer(ABC):
    """`score` maps n examples to float32[n], higher is better."""

    def check(self) -> None:
        """Raise `ConfigError` when the scorer cannot run here. Loads nothing heavy."""

    def try_on(self, pool: Pool) -> None:
        """Raise `ConfigError` for an example that the scorer cannot read, before anything costly. Loads no weights."""

    @abstractmethod
    def score(self, pool: Pool, scratch: Path) -> Scores | None:
        """float32[n], in the pool's order. What `scratch` holds from a killed scoring is not computed again."""


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


def over_turns(values: npt.NDArray[np.float64], counts: Sequence[int], how: Reduction) -> Scores:
    """One score an example, float32[n], from those of all turns in a row, float64[sum(counts)]."""
    parts = np.split(values, np.cumsum(counts)[:-1])
    return np.array([REDUCTIONS[how](part) for part in parts], dtype=np.float32)


def in_shards(
    sizes: Sequence[int],
    compute: Callable[[list[int]], npt.NDArray[np.float64]],
    scratch: Path,
    *,
    title: str,
    unit: str = "examples",
) -> npt.NDArray[np.float64]:
    """float64[n]: `compute(indices) -> float64[len(indices)]` for all of 0…n-1, a shard at a time.

    Each finished shard is saved in `scratch` under `title`, where a killed scoring finds it again. With columns, from
    `compute` to the result, if `compute` has them.
    """
    out = np.empty(len(sizes))
    with progress(title, total=len(sizes), unit=unit) as advance:
        for number, rows in enumerate(shards(sizes, SHARD)):
            found = array_piece(scratch / f"shard-{title}-{number:05d}.npy", partial(compute, rows))
            out = out if out.ndim == found.ndim else np.empty((len(sizes), *found.shape[1:]))
            out[rows] = found
            advance(len(rows))
    return out


def read_in_shards(
    sizes: Sequence[int],
    compute: Callable[[list[int]], npt.NDArray[np.float64]],
    scratch: Path,
    *,
    title: str,
    unit: str = "examples",
    advice: str = "a larger scorer.max_length reads more, up to the model's positions",
) -> npt.NDArray[np.float64]:
    """As `in_shards`, where `compute` gives the score of each text and, beside it, its `Counts`: float64[m, 4].

    What is not read is noted in `scratch`.
    """
    found = in_shards(sizes, compute, scratch, title=title, unit=unit)
    note_cut(scratch, f"{title} scorer", found[:, 1:].astype(np.int64), advice)
    return found[:, 0]


def counted(
    scores: npt.NDArray[np.float64], whole: Sequence[int], read: Sequence[int], limit: int
) -> npt.NDArray[np.float64]:
    """What `read_in_shards` wants of texts of `whole` tokens, `read` of them up to `limit`: float64[n, 4]."""
    return np.column_stack([scores, np.array(whole), np.array(read), np.full(len(scores), limit)])


def shards(sizes: Sequence[int], items: int) -> list[list[int]]:
    """0…n-1 in lists of `items`, the largest by `sizes` first: little padding, and memory runs out early or never."""
    order = np.argsort(-np.asarray(sizes), kind="stable").tolist()
    return [order[start : start + items] for start in range(0, len(order), items)]
