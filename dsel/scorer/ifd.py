"""Instruction-following difficulty: how little the prompt helps in predicting the response.

IFD_i = exp(NLL(y_i | x_i)) / exp(NLL(y_i)), Jia et al. 2024 (IterIT, §3), in the details of their code: see `encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dsel.constraints import Turn
from dsel.lazy import mapped
from dsel.model.chat import IGNORED, render
from dsel.model.likelihood import Encoded, mean_nll
from dsel.model.positions import within
from dsel.pool import Message, Pool
from dsel.scorer.base import Scores, counted, turns
from dsel.scorer.pretrained import Chat, fill_missing, template_refused
from dsel.shards import HERE, Map

SYSTEM = "You are a helpful assistant."
MARK = "the-response-begins-here"
_RESPONSE: Message = {"role": "assistant", "content": MARK}
PROBES: list[list[Message]] = [
    [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "x"}, _RESPONSE],
    [_RESPONSE],
]
"""The two kinds of conversations that IFD renders: a template may refuse either."""


@dataclass
class IFD(Chat):
    """IFD of one response of each example given all that precedes it but the example's own system message.

    turn: of a conversation, its `last` response (the published code) or its `first`.
    At 1 and above the prompt does not help at all: the scores are given as they are, and it is for the selector to
    put such examples last. (SuperFiltering's score knows no template: `scorer=superfiltering`.) An example whose prompt
    leaves no room for the response within `max_length` gets 0.
    """

    turn: Turn = "last"

    probes: ClassVar[Sequence[list[Message]]] = PROBES
    reads_pool: ClassVar[bool] = False
    passes: ClassVar[int] = 2

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n]. Raises `ConfigError` when the chat template refuses a response without a prompt."""
        pairs = asked_and_answered(pool, self.turn)
        scores = self.read_all(pairs, sizes(pairs), scratch, engine, title="ifd")
        return fill_missing(scores, 0, pool, "their prompts fill scorer.max_length").astype(np.float32)

    def read(self, model: Any, tokenizer: Any, rows: list[tuple[list[Message], str]]) -> npt.NDArray[Any]:
        from jinja2 import TemplateError

        losses = partial(mean_nll, model, tokens_a_batch=self.tokens_a_batch)
        try:
            return difficulties(rows, tokenizer, losses, max_length=within(self.max_length, model))
        except (TemplateError, ValueError) as error:
            raise template_refused(self.place, error) from error


def asked_and_answered(pool: Pool, turn: str) -> Sequence[tuple[list[Message], str]]:
    """Of each example the messages before its `first` or `last` response, but for system messages; and that response.

    What is asked between two responses is one message, whoever says it.
    """
    return mapped(_asked_and_answered, pool.turn(turn).messages)


def _asked_and_answered(messages: Sequence[Message]) -> tuple[list[Message], str]:
    before: list[Message] = []
    for asked, answered in turns(messages):
        before += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return before[:-1], before[-1]["content"]


def sizes(pairs: Sequence[tuple[Sequence[Message], str]]) -> npt.NDArray[np.int64]:
    """The characters of each."""
    found = (sum(len(m["content"]) for m in before) + len(response) for before, response in pairs)
    return np.fromiter(found, np.int64, len(pairs))


def difficulty(conditional: npt.NDArray[np.float64], unconditional: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IFD, float64[n], from the mean losses with and without the prompt, in nats."""
    return np.exp(conditional - unconditional)


def difficulties(
    pairs: Sequence[tuple[str | Sequence[Message], str]],
    tokenizer: Any,
    losses: Callable[[Sequence[Encoded]], npt.NDArray[np.float64]],
    *,
    max_length: int,
) -> npt.NDArray[np.void]:
    """IFD of each (prompt, response), NaN where `max_length` leaves no response, in records of `counted`.

    `losses` gives the mean loss of each encoded text in nats; it is asked once, about all texts of both kinds.
    """
    encoded = [encode(tokenizer, prompt, response, max_length=max_length) for prompt, response in pairs]
    found = losses([text for both in encoded for text in both])
    read = [min(len(ids), max_length) for (ids, _), _ in encoded]
    whole = [
        m if m < max_length else len(conditional(tokenizer, *pair)[0]) for m, pair in zip(read, pairs, strict=True)
    ]
    return counted(difficulty(found[0::2], found[1::2]), whole, read, max_length)


def encode(
    tokenizer: Any, prompt: str | Sequence[Message], response: str, *, max_length: int
) -> tuple[Encoded, Encoded]:
    """The response after the prompt, and alone, each with its tokens labelled from its first to the end of the text.

    The conditional text is the chat template of a fixed system message, the prompt (a user's text, or several turns)
    and the response; the unconditional one is that of the response alone, with whatever header the template puts first.
    End-of-turn tokens are labelled. Both are cut at `max_length`, and to the same number of labelled tokens (none where
    the prompt fills `max_length`).
    """
    given, given_start = conditional(tokenizer, prompt, response)
    alone, alone_start = _tokens(tokenizer, [], response)
    counts = (min(len(given), max_length) - given_start, min(len(alone), max_length) - alone_start)
    count = max(0, min(counts))
    return _labelled(given, given_start, count), _labelled(alone, alone_start, count)


def conditional(tokenizer: Any, prompt: str | Sequence[Message], response: str) -> tuple[list[int], int]:
    """Token ids of the response after the prompt, uncut, and the position of its first one."""
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return _tokens(tokenizer, [{"role": "system", "content": SYSTEM}, *before], response)


def _tokens(tokenizer: Any, before: list[Message], response: str) -> tuple[list[int], int]:
    """Token ids of the templated conversation, and the position of the response's first token."""
    text = render(tokenizer, [*before, {"role": "assistant", "content": response}])
    marked = render(tokenizer, [*before, {"role": "assistant", "content": MARK}])
    start = marked.rfind(MARK)
    if start < 0 or marked[:start] != text[:start]:
        raise ValueError("the chat template changes a response, or what comes before it with the response")
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    first = next((t for t, (begin, end) in enumerate(tokens["offset_mapping"]) if begin >= start and end > begin), None)
    return tokens["input_ids"], len(tokens["input_ids"]) if first is None else first


def _labelled(ids: list[int], start: int, count: int) -> Encoded:
    ids = ids[: start + count]
    return ids, [IGNORED] * min(start, len(ids)) + ids[start:]
