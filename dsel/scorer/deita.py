"""Deita's quality, complexity and evol scores (Liu et al. 2024, "What Makes Good Data for Alignment?").

A finetuned Llama is asked to rate a turn; the score is the expectation of 1…6 under the probabilities it gives to the
tokens "1" to "6" at the first generated position.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from dsel.component import knob
from dsel.constraints import Called, Text
from dsel.errors import ConfigError, need
from dsel.model import flops
from dsel.model.fast_linear import fast_linear
from dsel.model.likelihood import batches, logits_at, padded
from dsel.model.positions import within
from dsel.pool import Message, Pool
from dsel.reading import shorten, spans
from dsel.scorer.base import Reduction, Scorer, Scores, all_turns, counted, over_turns
from dsel.scorer.pretrained import Pretrained
from dsel.shards import HERE, Map

# The prompts of the published code and model cards (hkust-nlp/deita), to the last blank.
TEMPLATES = {
    "quality": "You are a helpful assistant. Please identify the quality score of the Response corresponding to the "
    "Question. \n #Question#:\n{instruction}\n#Response#:\n{output} \n##Quality: ",
    "complexity": "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
    "##Query: {instruction}  \n##Complexity: ",
}

DIGITS = ("1", "2", "3", "4", "5", "6")


@dataclass
class Deita(Pretrained):
    """Ratings of 1 to 6 by hkust-nlp's scorers, or by any causal language model.

    rating: `quality` (of the response) or `complexity` (of the instruction). turns: how the ratings of an example's
    turns become its score: sum, mean or first. Where a turn is longer than `max_length`, its instruction and its
    response share the room (`dsel.reading.shorten`).
    """

    rating: Literal["quality", "complexity"] = "quality"
    turns: Reduction = "sum"

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n], sums of ratings of 1 to 6. Raises `ConfigError` when a digit is no token of the model."""
        pairs, counts = all_turns(pool)
        return over_turns(self.rate(pairs, scratch, engine), counts, self.turns)

    def rate(self, pairs: Sequence[tuple[str, str]], scratch: Path, engine: Map = HERE) -> npt.NDArray[np.float64]:
        """The rating of each (instruction, response), float64[len(pairs)] within 1 and 6."""
        found = (len(x) + len(y) * (self.rating == "quality") for x, y in pairs)
        sizes = np.fromiter(found, np.int64, len(pairs))
        return self.read_all(pairs, sizes, scratch, engine, title=self.rating, unit="turns")

    def read(self, model: Any, tokenizer: Any, rows: list[tuple[str, str]]) -> npt.NDArray[Any]:
        import torch

        digits = torch.tensor(digit_tokens(tokenizer, self.place), device=model.device)
        limit = within(self.max_length, model)
        encoded, whole = zip(*(fitted(tokenizer, self.rating, *pair, limit) for pair in rows), strict=True)
        out = np.empty(len(rows))
        with torch.inference_mode(), fast_linear(model):
            for batch in batches([len(ids) for ids in encoded], self.tokens_a_batch):
                ids, mask = padded([encoded[i] for i in batch], model.device)
                last = torch.nn.functional.one_hot(mask.sum(1) - 1, mask.shape[1]).bool()
                logits = torch.cat([part[:, digits] for part in logits_at(model, ids, mask, last)])
                out[batch] = expectation(logits.double().cpu().numpy())
        flops.read(model, sum(map(len, encoded)))
        return counted(out, whole, [len(ids) for ids in encoded], limit)

    def suits(self, tokenizer: Any) -> None:
        digit_tokens(tokenizer, self.place)


@dataclass
class Evol(Scorer):
    """Deita's evol score: quality × complexity of each turn, over turns as `turns` says (sum, mean or first).

    path: a local folder of one model that gives both ratings. allow_bin: see `Hosted`, for both.
    """

    quality: Annotated[Deita, Called("a section as conf/scorer/deita_quality.yaml")]
    complexity: Annotated[Deita, Called("a section as conf/scorer/deita_complexity.yaml")]
    path: Text | None = None
    allow_bin: bool = knob(False)
    turns: Reduction = "sum"

    def check(self) -> None:
        self.quality.check()
        self.complexity.check()
        ratings = (self.quality.rating, self.complexity.rating)
        need(
            ratings == ("quality", "complexity"),
            "scorer.quality.rating and scorer.complexity.rating must stay what their names say",
        )

    def extra_identity(self) -> dict[str, Any]:
        return {"path": None}  # the two models are known by their files

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n], each turn between 1 and 36."""
        pairs, counts = all_turns(pool)
        ratings = self.quality.rate(pairs, scratch, engine) * self.complexity.rate(pairs, scratch, engine)
        return over_turns(ratings, counts, self.turns)


def expectation(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Σ_s s·p(s), float64[n], of the scores 1…6 with p the softmax of `logits`, float64[n, 6]."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights @ np.arange(1.0, 7.0) / weights.sum(axis=1)


def fitted(tokenizer: Any, rating: str, instruction: str, output: str, limit: int) -> tuple[list[int], int]:
    """Token ids of the prompt for a rating, of texts cut to `limit` tokens of it; and how many they are uncut."""
    prompt = partial(encode, tokenizer, rating, max_length=sys.maxsize)
    ids = prompt(instruction, output)
    if len(ids) <= limit:
        return ids, len(ids)
    answer = [{"role": "assistant", "content": output}] if rating == "quality" else []
    turn = [{"role": "user", "content": instruction}, *answer]
    turn = shorten(turn, limit, lambda turn: len(prompt(*_texts(turn))), partial(spans, tokenizer))
    return encode(tokenizer, rating, *_texts(turn), max_length=limit), len(ids)


def _texts(turn: Sequence[Message]) -> tuple[str, str]:
    return turn[0]["content"], turn[1]["content"] if len(turn) > 1 else ""


def encode(tokenizer: Any, rating: str, instruction: str, output: str, *, max_length: int) -> list[int]:
    """Token ids of the prompt for a rating; beyond `max_length` the tokens before the closing request are cut."""
    text = TEMPLATES[rating].format(instruction=instruction, output=output)
    request = len(text) - len(TEMPLATES[rating].rpartition("}")[2])
    tokens = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = tokens["input_ids"], tokens["offset_mapping"]
    while ids[-1] == tokenizer.eos_token_id and offsets[-1][0] == offsets[-1][1]:  # a text that ends gets no rating
        ids, offsets = ids[:-1], offsets[:-1]
    closing = sum(end > request for _, end in offsets)
    return ids if len(ids) <= max_length else ids[: max_length - closing] + ids[len(ids) - closing :]


def digit_tokens(tokenizer: Any, place: str) -> list[int]:
    """The token of each of "1" to "6". Raises `ConfigError` naming the digits that are none."""
    vocabulary = tokenizer.get_vocab()
    missing = [digit for digit in DIGITS if digit not in vocabulary]
    if missing:
        raise ConfigError(f"{place}: it cannot rate 1 to 6, as {', '.join(missing)} is not a single token of it")
    return [vocabulary[digit] for digit in DIGITS]
