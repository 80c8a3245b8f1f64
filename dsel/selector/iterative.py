"""Iterative k-means-quality: rounds of draws, steered by what a finetuned guide makes of them (Yu et al. 2024)."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dsel.arrays import Doubles, Indices
from dsel.errors import need
from dsel.files import piece, read_json, save_piece
from dsel.pool import Pool, text_of
from dsel.scorer.base import shards
from dsel.selector.base import Selection, Selector, Work
from dsel.selector.feedback.base import Feedback
from dsel.selector.feedback.verifier import Verifier
from dsel.selector.sampling import Draw, need_draw, need_drawable, sample, update
from dsel.study import Study
from dsel.trainer.base import Training

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)

ANSWERS_A_SHARD, WITH_AN_ENGINE = 512, 8192  # what a killed generation loses at most


def shares(budget: int, rounds: int) -> list[int]:
    """`budget` in `rounds` parts that differ by one at most."""
    return [budget * (r + 1) // rounds - budget * r // rounds for r in range(rounds)]


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


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

    feedback: Feedback
    rounds: int = 3
    guide_epochs: float = 1
    restart: str = "base"
    final: str = "retrain"
    scope: str = "selected"
    turn: str = "last"
    normalise: str = "softmax"
    accumulate: bool = True
    max_new_tokens: int = 512
    max_prompt: int = 2048
    temperature: float = 0.0
    draw: Draw = "softmax"

    def __post_init__(self) -> None:
        if self.draw == "uniform":  # which reads no quality
            self.needs = self.needs - {"quality"}  # type: ignore[misc]

    def check(self) -> None:
        choices = {
            "restart": ("base", "continue"),
            "final": ("retrain", "last"),
            "scope": ("selected", "round"),
            "turn": ("first", "last"),
            "normalise": ("softmax", "none"),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            need(value in known, f"selector.{name}={value}: give {' or '.join(known)}")
        for name in ("rounds", "max_new_tokens", "max_prompt"):
            value = getattr(self, name)
            need(isinstance(value, int) and value > 0, f"selector.{name}={value}: give a whole number above 0")
        need(self.guide_epochs > 0, f"selector.guide_epochs={self.guide_epochs}: must be above 0")
        need(self.temperature >= 0, f"selector.temperature={self.temperature}: must be 0 (greedy) or above")
        need_draw(self.draw)
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

    def begin(self, study: Study) -> None:
        super().begin(study)
        need(
            self.rounds <= study.budget,
            f"selector.rounds={self.rounds}: a budget of {study.budget} leaves rounds without an example",
        )
        self.feedback.begin(study)
        self._pool = study.pool.turn(self.turn)
        self._chosen: list[Indices] = []
        self._weights: Doubles | None = None

    def ask(self) -> Selection | None:
        study, done = self.study, len(self._chosen)
        if done == self.rounds:
            return None
        labels = study.clustering.labels
        quality = None if self.draw == "uniform" else study.quality_or_fail()
        if quality is not None and not done:
            need_drawable(self.draw, quality, labels)
        weights = np.full(study.clustering.k, 1 / study.clustering.k) if self._weights is None else self._weights
        self._weights = weights
        earlier = np.concatenate([np.empty(0, dtype=np.int64), *self._chosen])
        size = shares(study.budget, self.rounds)[done]
        new = sample(labels, quality, size, study.rng, weights=weights, exclude=earlier, draw=self.draw)
        self._chosen.append(new)
        table = {
            "cluster": np.arange(len(weights)),
            "size": study.clustering.sizes,
            "weight": weights,
            "chosen": np.bincount(labels[new], minlength=len(weights)),
        }
        study.note("weights", done + 1, table)
        scores = None if quality is None else quality[new]
        return Selection(
            new, clusters=labels[new], weights=weights[labels[new]], scores=scores, training=self._training()
        )

    def tell(self, learner: Learner) -> None:
        if not self._chosen or len(self._chosen) == self.rounds:
            return
        study, answered = self.study, self._chosen if self.scope == "selected" else self._chosen[-1:]
        asked = np.concatenate(answered)
        pool = self._pool
        answers = self._answers(study, learner, pool.take(asked))
        scores = self.feedback.score(replace(study, pool=pool), learner, answered, answers)
        labels = study.clustering.labels[asked]
        assert self._weights is not None
        self._weights, means = update(
            self._weights, labels, scores, normalise=self.normalise, accumulate=self.accumulate
        )
        done = len(self._chosen)
        counts = np.bincount(labels, minlength=len(means))
        study.note("feedback", done, {"cluster": np.arange(len(means)), "answered": counts, "feedback": means})
        study.note("answers", done, {"index": asked, "cluster": labels, "answer": answers, "feedback": scores})
        log.info("round %d: feedback %.4g on average over %d answers", done, scores.mean(), len(scores))

    def _answers(self, study: Study, learner: Learner, pool: Pool) -> list[str]:
        """The model's own answer to each prompt of `pool`, in shards: a killed run generates the missing ones."""
        prompts = pool.prompts
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens, "max_prompt": self.max_prompt, "temperature": self.temperature
        }  # fmt: skip

        def build(folder: Path) -> None:
            found = [""] * len(prompts)
            lengths = [sum(len(text_of(m)) for m in prompt) for prompt in prompts]
            for number, rows in enumerate(shards(lengths, WITH_AN_ENGINE if learner.has_engine else ANSWERS_A_SHARD)):
                path = folder / f"shard-{number:05d}.json"
                if piece(path) is None:
                    texts = json.dumps(learner.generate([prompts[i] for i in rows], **options))
                    save_piece(path, partial(_write, texts))
                for i, text in zip(rows, read_json(path), strict=True):
                    found[i] = text
            (folder / "answers.json").write_text(json.dumps(found), encoding="utf-8")

        key = {"model": learner.state, "prompts": pool.fingerprint, **options}
        folder = study.artifact("generate", "answers", key, build, items=len(prompts))
        return read_json(folder / "answers.json")

    def _training(self) -> Training:
        """On what, and how, the model is trained after the round just drawn."""
        so_far = np.concatenate(self._chosen)
        if len(self._chosen) == self.rounds and self.final == "retrain":
            return Training(on=so_far)
        if self.restart == "base":
            return Training(on=so_far, epochs=self.guide_epochs)
        return Training(on=self._chosen[-1], epochs=self.guide_epochs, restart=len(self._chosen) == 1)
