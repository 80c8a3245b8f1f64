"""The length of the responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from dsel.constraints import Text
from dsel.errors import need, need_path
from dsel.lazy import mapped
from dsel.model.hosted import Hosted
from dsel.pool import Message, Pool
from dsel.scorer.base import Reader, Scores, turns
from dsel.shards import HERE, Map, Read


@dataclass
class Length(Hosted, Reader):
    """Characters of all assistant turns, or their tokens with the tokenizer of `hub` or of the folder `path`.

    The baseline "longest responses" of Jia et al. 2024. log: ln(1 + length), which ranks the same, and of which a
    softmax is in proportion to the length, not all on the longest.
    """

    in_process: ClassVar[bool] = True  # its tokenizer has threads of its own

    unit: Literal["characters", "tokens"] = "characters"
    log: bool = False
    hub: Text | None = None
    path: Text | None = None
    revision: Text | None = None
    trust_remote_code: bool = False

    def check(self) -> None:
        named = self.hub is not None or self.path is not None
        need(named or self.unit == "characters", "scorer.unit=tokens: name a tokenizer in scorer.hub or scorer.path")
        if self.path is not None:
            need_path(self.path, option="scorer.path")

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n], in characters or tokens."""
        lengths = pool.response_lengths.astype(np.float64)
        if self.unit == "tokens":
            responses = mapped(_responses, pool.messages)
            lengths = self.read_all(responses, pool.response_lengths, scratch, engine, title="length")
        return (np.log1p(lengths) if self.log else lengths).astype(np.float32)

    def build(self) -> Read:
        from transformers import AutoTokenizer

        tokenizer = self.pretrained(AutoTokenizer)

        def tokens(rows: list[list[str]]) -> np.ndarray:
            found = [tokenizer(responses, add_special_tokens=False)["input_ids"] for responses in rows]
            return np.array([sum(map(len, ids)) for ids in found], dtype=np.float64)

        return tokens


def _responses(messages: Sequence[Message]) -> list[str]:
    return [answer for _, answer in turns(messages)]
