"""The chosen examples as a trainer reads them, and what of them it does not read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dsel.errors import ConfigError, need
from dsel.model.chat import IGNORED, Refused, encodings
from dsel.pool import Message, Pool
from dsel.progress import tracked

if TYPE_CHECKING:
    from datasets import Dataset

Encoding = tuple[list[int], list[int]]
"""Token ids, and for each the id again where it carries loss, else -100."""

log = logging.getLogger(__name__)


def tokenized(pool: Pool, tokenizer: Any, max_length: int) -> tuple[Dataset, dict[str, int]]:
    """Columns `input_ids`, `labels` (the loss is on every assistant turn) and `length`, and counts for the record.

    counts: `tokens` that are read; `cut_examples`, `cut_responses` and `cut_tokens` beyond `max_length` of these
    examples; `left_out`: examples without a token to learn, because every response lies beyond `max_length` or is not
    to be trained on. The log says so. Raises `ConfigError` when no example is left.
    """
    from datasets import Dataset

    columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "length": []}
    beyond: list[str] = []
    untrained: list[str] = []
    responses = cut_responses = cut_examples = whole = 0
    examples = zip(pool.ids, pool.messages, strict=True)
    for name, messages in tracked(examples, "tokens of the examples", total=len(pool), unit="examples"):
        texts = learnable(tokenizer, name, messages)
        learnt = [text for text in texts if any(label != IGNORED for label in text[1][:max_length])]
        if not learnt:
            (beyond if texts else untrained).append(name)
            continue
        cut_examples += any(len(ids) > max_length for ids, _ in learnt)
        for ids, labels in learnt:
            ends = response_ends(labels)
            responses += len(ends)
            cut_responses += sum(end > max_length for end in ends)
            whole += len(ids)
            columns["input_ids"].append(ids[:max_length])
            columns["labels"].append(labels[:max_length])
            columns["length"].append(min(len(ids), max_length))
    if beyond:
        text = "%d examples have no response within trainer.max_length=%d tokens, not trained on: %s"
        log.warning(text, len(beyond), max_length, few(beyond))
    if untrained:
        log.warning("%d examples have no response to train on, left out: %s", len(untrained), few(untrained))
    trained, why = len(columns["length"]), f"has a response within trainer.max_length={max_length} tokens"
    need(trained > 0, f"no chosen example {why if beyond else 'has a response to train on'}")
    tokens = sum(columns["length"])
    if cut_responses:
        log.warning(
            "%d of %d responses are cut at %d tokens (%s of %s tokens not read), their end of turn not learnt; "
            "a larger trainer.max_length reads more",
            *(cut_responses, responses, max_length, f"{whole - tokens:,}", f"{whole:,}"),
        )
    counts = {
        "tokens": tokens,
        "cut_examples": cut_examples,
        "cut_responses": cut_responses,
        "cut_tokens": whole - tokens,
        "left_out": len(beyond) + len(untrained),
    }
    return Dataset.from_dict(columns), counts


def learnable(tokenizer: Any, name: str, messages: Sequence[Message]) -> list[Encoding]:
    """The texts of an example with a token to learn, each whole. Raises `ConfigError` naming the example."""
    try:
        texts = encodings(tokenizer, messages)
    except Refused as error:
        advice = "set model.chat_template=turns"
        raise ConfigError(f"the chat template refuses example {name} ({error}); {advice}") from error
    first = ((ids, [IGNORED, *labels[1:]]) for ids, labels in texts)  # nothing comes before the first token
    return [(ids, labels) for ids, labels in first if any(label != IGNORED for label in labels)]


def response_ends(labels: Sequence[int]) -> list[int]:
    """Where each run of labelled tokens ends: the positions after their last."""
    learnt = [label != IGNORED for label in [*labels, IGNORED]]
    return [i for i in range(1, len(learnt)) if learnt[i - 1] and not learnt[i]]


def few(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
