"""What the model as it stands is asked about many texts: workers of `dsel.shards`.

Each holds a snapshot of the model and plain options; nothing of the pool. Its rows are conversations, or pairs of
texts. In this process the model that a snapshot has loaded is used; elsewhere it is loaded from its description.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dsel.model.positions import within
from dsel.pool import Message
from dsel.scorer import base
from dsel.scorer.ifd import difficulties
from dsel.shards import Read
from dsel.snapshot import Snapshot

ANSWERS_A_SHARD, WITH_AN_ENGINE = 512, 2048  # an engine of vLLM is not full while it answers a shard's last
GRADIENTS_A_SHARD = 512  # minutes of a processor; the random matrix that they are projected by is drawn for each shard


@dataclass(frozen=True)
class Answers:
    """Its own answer to each prompt; the options are those of `Learner.generate`."""

    snapshot: Snapshot
    max_new_tokens: int
    max_prompt: int
    temperature: float

    suffix: ClassVar[str] = ".json"

    @property
    def shard_size(self) -> int:
        return WITH_AN_ENGINE if self.snapshot.has_engine else ANSWERS_A_SHARD

    @property
    def devices(self) -> int:
        """How many GPUs each worker takes."""
        return self.snapshot.spec.tensor_parallel if self.snapshot.has_engine else 1

    def build(self) -> Read:
        return partial(
            self.snapshot.generate,
            max_new_tokens=self.max_new_tokens,
            max_prompt=self.max_prompt,
            temperature=self.temperature,
        )


@dataclass(frozen=True)
class Numbers:
    """What a question with a number for an answer has in common."""

    snapshot: Snapshot
    max_length: int

    suffix: ClassVar[str] = ".npy"

    @property
    def shard_size(self) -> int:
        return base.SHARD


@dataclass(frozen=True)
class Losses(Numbers):
    """Its mean loss over the responses of each conversation, or over all tokens (`whole`), as `Learner.nll` has it."""

    whole: bool

    def build(self) -> Read:
        return partial(self.snapshot.nll, max_length=self.max_length, whole=self.whole)


@dataclass(frozen=True)
class Gradients(Numbers):
    """The gradient of each conversation, or Adam's step with it, as `Learner.gradients` has them.

    memory: bytes that the gradients of a shard may take. onto: a file of directions, float32[r, d]: instead of each
    gradient, or its projection, its products with those.
    """

    dimensions: int | None
    seed: int
    step: str | None
    memory: float
    onto: Path | None = None

    @property
    def shard_size(self) -> int:
        return max(1, min(GRADIENTS_A_SHARD, int(self.memory / (4 * self.snapshot.parameters))))

    def build(self) -> Read:
        read = partial(
            self.snapshot.gradients,
            dimensions=self.dimensions,
            seed=self.seed,
            step=self.step,
            max_length=self.max_length,
        )
        if self.onto is None:
            return read
        directions = np.load(self.onto, mmap_mode="r")
        return lambda rows: read(rows) @ directions.T


@dataclass(frozen=True)
class Difficulties(Numbers):
    """The instruction-following difficulty of each (conversation before, response), in records of what was read."""

    def build(self) -> Read:
        snapshot = self.snapshot
        limit = within(self.max_length, snapshot.model)

        def read(pairs: list[tuple[list[Message], str]]) -> npt.NDArray[Any]:
            return difficulties(pairs, snapshot.tokenizer, snapshot.losses, max_length=limit)

        return read
