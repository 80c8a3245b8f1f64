"""Conversations for the tests of embedders."""

from __future__ import annotations

from collections.abc import Sequence

from dsel.pool import Message


def chats(texts: Sequence[str]) -> list[list[Message]]:
    """A conversation for each text, that says just this."""
    return [[{"role": "user", "content": text}] for text in texts]


def chat(*turns: str, system: str | None = None) -> list[Message]:
    """User and assistant in turn, after a system prompt where there is one."""
    before = [] if system is None else [{"role": "system", "content": system}]
    return before + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
