"""The kinds of task in the procedural pool, one row each: how to ask, how to state, how to draw.

Look-up kinds (`lookups.py`) ask for a fact of `facts.py`; the others (`operations.py`) ask for a small
operation on words of the prompt. Every item has exactly one right answer, so that a response can be checked
by comparison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Fields = dict[str, str]
Item = tuple[Fields, str]  # what fills the templates, and the one right answer
Draw = Callable[[np.random.Generator], Item]


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    `prompts` are its instructions, differently worded; `topic` is a noun phrase for the thing asked, which
    the raw text uses in lists and notes; `statements` say the answer in prose. All are `str.format`
    templates over the fields that `draw` returns (`statements` also over `answer`).
    """

    name: str
    draw: Draw
    topic: str
    statements: tuple[str, ...]
    prompts: tuple[str, ...]


def reserved(kind: str, fields: Fields) -> bool:
    """Whether an item is kept for evaluation: one in four, by a content hash, the same for every seed."""
    content = "|".join([kind, *(f"{key}={fields[key]}" for key in sorted(fields))])
    return hashlib.blake2b(content.encode(), digest_size=8).digest()[0] % 4 == 0


def draw_item(kind: Kind, rng: np.random.Generator, *, evaluation: bool) -> Item:
    """Draw an item from the reserved quarter (`evaluation`) or from the rest."""
    while True:
        fields, answer = kind.draw(rng)
        if reserved(kind.name, fields) == evaluation:
            return fields, answer
