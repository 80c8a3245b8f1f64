"""Pools for the tests of scorers."""

from __future__ import annotations

from collections.abc import Sequence

from dsel.pool import Example, Pool

Turns = Sequence[tuple[str, str]]


def pool_of(*conversations: Turns, system: str | None = None) -> Pool:
    """A pool of conversations, each a list of (instruction, response); ids e0, e1, …"""
    rows = []
    for number, turns in enumerate(conversations):
        messages = [{"role": "system", "content": system}] if system else []
        for asked, answered in turns:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        rows.append(Example(f"e{number}", messages, "s", {}))
    return Pool.build("p", rows)


MIXED: list[Turns] = [
    [("How many wolves are there ?", "Four .")],
    [("Name a colour", "red and blue and green and " * 9)],
    [("word " * 40, "yes")],
    [("Say 1", "1"), ("Say 2 and three things about the sea", "It is wide, blue and cold."), ("Say 3", "3")],
    [("x", "y")],
    [("What ? {instruction} {0}", "A {brace} is kept.")],
    [("First", "second " * 12), ("Third", "")],
]
"""Single and several turns, short and long, an empty response and braces."""
