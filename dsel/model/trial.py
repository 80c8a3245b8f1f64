"""A chat template tried on a pool before anything costly: what it refuses is an error, what it drops is counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dsel.errors import ConfigError
from dsel.model.chat import Refused, dialect_of, left_out, render, training_texts
from dsel.pool import Message, Pool

log = logging.getLogger(__name__)

EVERY = 5000  # examples: of a larger pool, one of each shape is tried


def try_template(
    tokenizer: Any,
    pool: Pool,
    *,
    name: str,
    option: str = "model.chat_template",
    probes: Sequence[list[Message]] = (),
    trains: bool = True,
) -> None:
    """Render the examples of `pool` as for training, and say in the log what becomes of them.

    Of more than `EVERY` examples one of each shape is rendered, and speaks for all of that shape.

    Args:
        tokenizer: with the chat template that is tried.
        pool: the examples.
        name: what the template belongs to, for messages.
        option: what to set to use another template.
        probes: conversations that a method has the model read beside the pool's.
        trains: whether the model learns from the pool, or only reads it.

    Raises:
        ConfigError: for the first example, or a probe, that the template refuses.
    """
    for probe in probes:
        try:
            render(tokenizer, probe)
        except Refused as error:
            raise ConfigError(
                f"{name}: its chat template refuses what this method has the model read, a conversation of "
                f"{_roles(probe)} ({error}); set {option}=turns"
            ) from error
    ids, conversations = pool.ids, pool.messages
    counts, firsts = Counter[Any](), dict[Any, int]()
    for i, messages in enumerate(conversations):
        group = i if len(pool) <= EVERY else shape(messages)
        counts[group] += 1
        firsts.setdefault(group, i)
    lost, kinds, rewritten, texts_more, unended = Counter[int](), Counter[str](), Counter[int](), 0, 0
    for group, first in firsts.items():
        rows, messages = counts[group], conversations[first]
        dialect = dialect_of(tokenizer, messages)
        dialect.told = True  # below, with counts
        try:
            texts = training_texts(tokenizer, messages)
        except Refused as error:
            raise ConfigError(
                f"{name}: its chat template refuses example {ids[first]}, {_roles(messages)} ({error}); leave such "
                f"examples out, or set {option}=turns, which renders any"
            ) from error
        if missing := left_out(messages, [text for text, _ in texts]):
            lost[first] += rows
            kinds.update(dict.fromkeys(missing, rows))
        if len(texts) > 1:
            rewritten[first] += rows
            texts_more += rows * (len(texts) - 1)
        unended += rows * (dialect.end is None)
    header = dialect_of(tokenizer, conversations[0]).header if conversations else ""
    if header:
        log.warning(
            "the chat template of %s has no generation prompt: %r is learnt before each response and stands in the "
            "model's answers; %s=turns has one",
            *(name, header, option),
        )
    if lost:
        what = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
        log.warning(
            "the chat template of %s leaves out text of %d of %d examples: %s; the first is %s; %s=turns leaves out "
            "nothing",
            *(name, lost.total(), len(pool), what, ids[min(lost)], option),
        )
    if not trains:
        return
    if rewritten:
        log.warning(
            "the chat template of %s rewrites responses once later turns follow: %d responses of %d examples (the "
            "first is %s) are trained in texts of their own, as the model would write them",
            *(name, texts_more, rewritten.total(), ids[min(rewritten)]),
        )
    if unended and tokenizer.eos_token:
        log.info(
            "the chat template of %s ends no response with a token that stops generation: %s is learnt after the last "
            "response of each example",
            *(name, tokenizer.eos_token),
        )
    elif unended:
        log.warning(
            "the chat template of %s ends no response, and there is no eos token: nothing learnt will stop", name
        )


def shape(messages: Sequence[Message]) -> tuple[Any, ...]:
    """What decides how a template renders a conversation: its roles, which fields each turn has, and reasoning tags."""
    return tuple(
        (m["role"], *sorted(k for k in m if m[k]), m.get("train"), "</think>" in m["content"]) for m in messages
    )


def _roles(messages: Sequence[Message]) -> str:
    roles = [message["role"] for message in messages]
    return ", ".join(roles[:6]) + (", …" if len(roles) > 6 else "")
