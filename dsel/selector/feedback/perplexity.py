"""Perplexity under the model in training: how much likelier it finds its own answer than the reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from dsel.component import identity
from dsel.constraints import AtLeast
from dsel.pool import text_of
from dsel.questions import Losses
from dsel.selector.feedback.base import Doubles, Feedback, Indices
from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)


@dataclass
class Perplexity(Feedback):
    """S = −log(PPL(x⊕y_gen) / PPL(x⊕y_gold)): the reference's mean loss less the answer's (Yu et al. 2024, Eq. 7).

    tokens: the perplexity of the `text` x⊕y, as the equation has it, or of the `response` given x alone. An example
    that `max_length` leaves no token of either says nothing: S is 0.
    """

    tokens: Literal["text", "response"] = "text"
    max_length: Annotated[int, AtLeast(2)] = 2048

    def score(self, study: Study, learner: Learner, rounds: Sequence[Indices], answers: Sequence[str]) -> Doubles:
        references = study.pool.take(np.concatenate(rounds))
        generated = references.answered(answers)
        texts = [*references.messages, *generated.messages]

        def build(folder: Path) -> None:
            worker = Losses(learner.snapshot(), self.max_length, whole=self.tokens == "text")
            sizes = [sum(len(text_of(m)) for m in messages) for messages in texts]
            losses = study.engine.map(worker, texts, folder, title="perplexity", sizes=sizes, unit="texts")
            np.save(folder / "losses.npy", losses)

        key = {"model": learner.state, "texts": generated.fingerprint, "feedback": identity(self)}
        folder = study.artifact("feedback", "feedback", key, build, items=len(texts))
        gold, own = np.split(np.load(folder / "losses.npy"), 2)
        silent = np.isnan(gold) | np.isnan(own)
        if silent.any():
            log.warning(
                "perplexity: %d of %d examples say nothing (no token within the limit)", silent.sum(), len(gold)
            )
        return np.where(silent, 0.0, gold - own)
