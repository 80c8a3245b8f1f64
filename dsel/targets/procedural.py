"""Targets of a few kinds of the procedural pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsel.cache import Cache
from dsel.constraints import Count, Seed, Text
from dsel.data.kinds import draw_item
from dsel.data.procedural import KINDS, need_kinds
from dsel.errors import need
from dsel.pool import Example, Message, Pool
from dsel.targets.base import Target, need_once


@dataclass
class ProceduralTargets:
    """Right examples of some kinds of task, each kind a task of its own: what a pool may hold, never what is tested.

    kinds: their names. examples: how many of each. seed: which.
    """

    kinds: Sequence[Text] = ()
    examples: Count = 8
    seed: Seed = 0

    def check(self) -> None:
        need(bool(self.kinds), "targets.kinds is empty: name kinds of task, as targets.kinds=[capital,count]")
        need_once(self.kinds, "targets.kinds")
        need_kinds(self.kinds, "targets.kinds")

    def take(self, pool: Pool, cache: Cache) -> tuple[Pool, Target | None]:
        by_name = {kind.name: kind for kind in KINDS}
        examples = []
        for name, stream in zip(self.kinds, np.random.SeedSequence(self.seed).spawn(len(self.kinds)), strict=True):
            rng, kind = np.random.default_rng(stream), by_name[name]
            for number in range(1, self.examples + 1):
                fields, answer = draw_item(kind, rng, evaluation=False)
                prompt = kind.prompts[rng.integers(len(kind.prompts))].format(**fields)
                question: Message = {"role": "user", "content": prompt}
                messages: list[Message] = [question, {"role": "assistant", "content": answer}]
                original = {"messages": messages, "source": name}
                examples.append(Example(f"{name}/{number}", messages, name, original))
        return pool, Target.of(Pool.build("targets", examples))
