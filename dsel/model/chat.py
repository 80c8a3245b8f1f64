"""From messages to tokens, with a label on every token of every assistant turn and on no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsel.errors import need
from dsel.pool import Message

TEMPLATES = Path(__file__).parent / "templates"

IGNORED = -100
"""The label of a token that carries no loss."""


def encode(tokenizer: Any, messages: Sequence[Message], max_length: int | None = None) -> tuple[list[int], list[int]]:
    """Token ids of the templated conversation, and their labels: the id inside assistant turns, else -100.

    An assistant turn runs from the first character after its header to the start of the next turn: the end-of-turn
    token is learnt. Spans are found in the rendered text and carried over to tokens by their offsets, so this works
    for any chat template that renders a conversation's beginning the same whatever follows. Both lists are cut at
    `max_length`. Raises ValueError for a template that rewrites earlier turns.
    """
    text = render(tokenizer, messages)
    spans = assistant_spans(tokenizer, messages, text)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = tokens["input_ids"][:max_length], tokens["offset_mapping"][:max_length]
    labels, span = [], 0
    for token, (start, end) in zip(ids, offsets, strict=True):
        while span < len(spans) and start >= spans[span][1]:
            span += 1
        inside = span < len(spans) and spans[span][0] <= start and end > start
        labels.append(token if inside else IGNORED)
    return ids, labels


def assistant_spans(tokenizer: Any, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
    """(start, end) of each assistant turn in `text`, the rendered conversation, in characters."""
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:i], generation_prompt=True)
        after = text if i == len(messages) - 1 else render(tokenizer, messages[: i + 1])
        if not (after.startswith(before) and text.startswith(after)):
            raise ValueError(
                "the chat template changes earlier turns when later ones follow, so the tokens of a response cannot "
                "be told apart; set model.chat_template=turns"
            )
        spans.append((len(before), len(after)))
    return spans


def render(tokenizer: Any, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
    """The conversation as the model reads it, up to the header of the next response with `generation_prompt`."""
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation_prompt)


def template(name: str, *, option: str) -> str:
    """The chat template called `name`: a file of `dsel/model/templates`, or a path. `ConfigError` naming `option`."""
    named = TEMPLATES / f"{name}.jinja"
    path = named if named.exists() else Path(name).expanduser()
    known = ", ".join(sorted(p.stem for p in TEMPLATES.glob("*.jinja")))
    need(path.is_file(), f"{option}={name}: neither one of {known} nor a file")
    return path.read_text(encoding="utf-8")
