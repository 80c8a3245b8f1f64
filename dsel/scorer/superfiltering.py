"""SuperFiltering's score: instruction-following difficulty under a small model without any template (Li et al. 2024).

In the details of their code (tianyi-lab/Superfiltering, code_ifd): see `encode`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dsel.lazy import mapped
from dsel.model.chat import IGNORED
from dsel.model.likelihood import Encoded, mean_nll
from dsel.model.positions import within
from dsel.pool import Message, Pool, text_of
from dsel.scorer.base import Scores, counted
from dsel.scorer.ifd import difficulty
from dsel.scorer.pretrained import Pretrained, fill_missing
from dsel.shards import HERE, Map


@dataclass
class SuperFiltering(Pretrained):
    """exp(NLL(y | x)) / exp(NLL(y)) of the last response y of each example, after all that precedes it as plain text.

    At 1 and above the prompt does not help: the scores are given as they are, and the method drops such examples, which
    is for the selector to do (`selector=ifd`). An example without two tokens of response within `max_length` gets 0.
    """

    passes: ClassVar[int] = 2

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n]."""
        pairs = mapped(lambda messages, row: plain(messages, json.loads(row)), pool.messages, pool.originals["json"])
        sizes = np.fromiter((len(x) + len(y) for x, y in pairs), np.int64, len(pairs))
        scores = self.read_all(pairs, sizes, scratch, engine, title="superfiltering")
        why = "no two tokens of a response within scorer.max_length"
        return fill_missing(scores, 0, pool, why).astype(np.float32)

    def read(self, model: Any, tokenizer: Any, rows: list[tuple[str, str]]) -> npt.NDArray[Any]:
        most = within(self.max_length, model)
        encoded = [text for pair in rows for text in encode(tokenizer, *pair, max_length=most)]
        found = mean_nll(model, encoded, tokens_a_batch=self.tokens_a_batch)
        whole = [len(tokenizer("".join(pair), verbose=False)["input_ids"]) for pair in rows]
        return counted(difficulty(found[0::2], found[1::2]), whole, [min(n, most) for n in whole], most)


def plain(messages: Sequence[Message], row: Any) -> tuple[str, str]:
    """(prompt, response): "{instruction}\\n{input}\\n", and the bare response.

    Of a conversation, the prompt is all that precedes the last response, a line each. Of an Alpaca row, as it stood in
    its file, the input follows its instruction without the word that the pool puts between them.
    """
    *before, answer = messages
    prompt = "\n".join(text_of(m) for m in before)
    given = row.get("input") if isinstance(row, Mapping) else None
    if isinstance(given, str) and given.strip() and prompt.endswith(f"\nInput: {given.strip()}"):
        prompt = f"{prompt.removesuffix(f'Input: {given.strip()}')}{given.strip()}"
    return f"{prompt}\n", text_of(answer)


def encode(tokenizer: Any, prompt: str, response: str, *, max_length: int) -> tuple[Encoded, Encoded]:
    """The response after the prompt, and alone, with the tokens that count.

    After the prompt that is every token of the text beyond as many as the prompt has by itself, up to `max_length`;
    alone, all of as many as that leaves room for, and one more, where the first has nothing before it and no loss.
    """
    texts = (prompt + response, prompt, response)
    whole, before, alone = (tokenizer(text, verbose=False)["input_ids"] for text in texts)
    whole, alone = whole[:max_length], alone[: max_length - min(len(before), max_length) + 1]
    return (whole, [IGNORED] * min(len(before), len(whole)) + whole[len(before) :]), (alone, list(alone))
