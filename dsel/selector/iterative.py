"""Iterative k-means-quality: rounds of draws, steered by what a finetuned guide makes of them (Yu et al. 2024)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from dsel.arrays import Indices
from dsel.constraints import Called, Count, NotNegative, Positive, Turn
from dsel.errors import need
from dsel.files import read_json
from dsel.pool import Pool, text_of
from dsel.questions import Answers
from dsel.selector.base import Choose, Selection, Selector, Step, Work
from dsel.selector.feedback.base import Feedback
from dsel.selector.feedback.verifier import Verifier
from dsel.selector.sampling import Draw, need_drawable, sample, update
from dsel.study import Study
from dsel.trainer.base import Training

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)


def shares(budget: int, rounds: int) -> list[int]:
    """`budget` in `rounds` parts that differ by one at most."""
    return [budget * (r + 1) // rounds - budget * r // rounds for r in range(rounds)]


@dataclass
class Iterative(Selector):
    """`selector=iterative`: Algorithm 1 of Yu et al. 2024.

    Each of `rounds` rounds draws its share of the budget from the examples not chosen yet: clusters by their weight,
    at first 1/k each, and inside a cluster as kMQ does, by quality or uniformly (see `sampling.sample`). A guide, the
    model finetuned for `guide_epochs`, answers the prompts of the chosen examples; the feedback compares its answers
    with the references, and `update` makes the next round's weights of it. Nobody is asked after the last round.

    restart: the guide is the `base` model finetuned on all examples chosen so far, or the last guide that goes on
    (`continue`) with the new ones. final: the model of the run is the base model finetuned on the whole subset for the
    trainer's epochs (`retrain`), or the last round's guide (`last`). scope: the examples answered are all those
    `selected` so far or the `round`'s. turn: of a conversation, its `last` response or its `first` (the released code).
    normalise, accumulate: see `update`. Answers have up to `max_new_tokens`, to the last `max_prompt` tokens of a
    prompt, drawn at `temperature` (0 is greedy) with the run's seed.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"clustering", "quality", "model"})

    feedback: Annotated[Feedback, Called("a feedback, as selector/feedback=perplexity chooses one")]
    rounds: Count = 3
    guide_epochs: Positive = 1
    restart: Literal["base", "continue"] = "base"
    final: Literal["retrain", "last"] = "retrain"
    scope: Literal["selected", "round"] = "selected"
    turn: Turn = "last"
    normalise: Literal["softmax", "none"] = "softmax"
    accumulate: bool = True
    max_new_tokens: Count = 512
    max_prompt: Count = 2048
    temperature: NotNegative = 0.0
    draw: Draw = "softmax"

    def __post_init__(self) -> None:
        if self.draw == "uniform":  # which reads no quality
            self.needs = self.needs - {"quality"}  # type: ignore[misc]

    def check(self) -> None:
        self.feedback.check()

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        new = shares(budget, self.rounds)
        so_far = list(accumulate(new))
        trainings = [(m, self.guide_epochs) for m in (so_far if self.restart == "base" else new)]
        if self.final == "retrain":
            trainings[-1] = (budget, epochs)
        answers = sum((so_far if self.scope == "selected" else new)[:-1])
        scored = 0 if isinstance(self.feedback, Verifier) else 2 * answers  # a reference and an answer are read
        return Work(trainings, answers=answers, scored=scored)

    def steps(self, study: Study, learner: Learner) -> Iterator[Step]:
        need(
            self.rounds <= study.budget,
            f"selector.rounds={self.rounds}: a budget of {study.budget} leaves rounds without an example",
        )
        self.feedback.check_study(study)
        found, quality = study.clustering, None if self.draw == "uniform" else study.quality_or_fail()
        labels, k, clusters = found.labels, found.k, np.arange(found.k)
        if quality is not None:
            need_drawable(self.draw, quality, labels)
        spoken = replace(study, pool=study.pool.turn(self.turn))  # what the guide reads of each conversation
        weights = np.full(k, 1 / k)
        rounds, chosen = [], np.empty(0, dtype=np.int64)
        for number, size in enumerate(shares(study.budget, self.rounds), 1):
            new = sample(labels, quality, size, study.rng, weights=weights, exclude=chosen, draw=self.draw)
            rounds.append(new)
            chosen = np.concatenate(rounds)
            drawn = np.bincount(labels[new], minlength=k)
            table = {"cluster": clusters, "size": found.sizes, "weight": weights, "chosen": drawn}
            study.note("weights", number, table)
            scores = None if quality is None else quality[new]
            selection = Selection(new, clusters=labels[new], weights=weights[labels[new]], scores=scores)
            yield self._round(number, selection, chosen)
            if number == self.rounds:
                return

            heard = rounds if self.scope == "selected" else [new]
            asked = np.concatenate(heard)
            answers = self._answers(study, learner, spoken.pool.take(asked))
            feedback = self.feedback.score(spoken, learner, heard, answers)
            groups = labels[asked]
            weights, means = update(weights, groups, feedback, normalise=self.normalise, accumulate=self.accumulate)
            answered = np.bincount(groups, minlength=k)
            study.note("feedback", number, {"cluster": clusters, "answered": answered, "feedback": means})
            study.note("answers", number, {"index": asked, "cluster": groups, "answer": answers, "feedback": feedback})
            log.info("round %d: feedback %.4g on average over %d answers", number, feedback.mean(), len(feedback))

    def _round(self, number: int, selection: Selection, chosen: Indices) -> Choose:
        """The round's choice, and what the model is trained on next: `chosen` are the examples of all rounds so far."""
        if number == self.rounds and self.final == "retrain":
            return Choose(selection, on=chosen)
        if self.restart == "base":
            return Choose(selection, Training(epochs=self.guide_epochs), on=chosen)
        return Choose(selection, Training(epochs=self.guide_epochs, restart=number == 1))

    def _answers(self, study: Study, learner: Learner, pool: Pool) -> list[str]:
        """The model's own answer to each prompt of `pool`, in shards: a killed run generates the missing ones."""
        prompts = pool.prompts
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens, "max_prompt": self.max_prompt, "temperature": self.temperature
        }  # fmt: skip

        def build(folder: Path) -> None:
            sizes = [sum(len(text_of(m)) for m in prompt) for prompt in prompts]
            worker = Answers(learner.snapshot(), **options)
            answers = study.engine.map(worker, prompts, folder, title="answers", sizes=sizes, unit="answers")
            (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")

        key = {"model": learner.state, "prompts": pool.fingerprint, **options}
        folder = study.artifact("generate", "answers", key, build, items=len(prompts))
        return read_json(folder / "answers.json")
