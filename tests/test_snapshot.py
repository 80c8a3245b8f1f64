"""A snapshot of the model that another process makes of its description answers as the learner does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.described import describe, make
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.questions import Answers, Difficulties, Gradients, Losses
from dsel.snapshot import Snapshot
from dsel.trainer.base import Training
from dsel.trainer.sft import SFT
from tests.conftest import make_pool
from tests.trainer.small import SETTINGS

LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
pytestmark = pytest.mark.usefixtures("quick_collections")


def questions(snapshot: Snapshot, *, adapted: bool) -> list[Any]:
    asked = [Answers(snapshot, 6, 64, 0.0), Losses(snapshot, 64, True), Difficulties(snapshot, 64)]
    return [*asked, Gradients(snapshot, 64, 16, 0, "paper", 1e6)] if adapted else asked


@pytest.mark.parametrize(
    "training", [None, Training(), Training(part=(1, 2), moments=True)], ids=["base", "fit", "part"]
)
@pytest.mark.parametrize("options", [{}, LORA], ids=["full", "lora"])
def test_a_snapshot_that_was_sent_answers_alike(
    spec: CausalLM, cache: Cache, options: dict[str, Any], training: Training | None
) -> None:
    pool, learner = make_pool(8), Learner(replace(spec, dtype="float32"), SFT(**{**SETTINGS, **options}), cache, seed=3)
    if training is not None:
        learner.fit(pool, training)
    kept = training is not None and training.moments
    rows = {Answers: pool.prompts, Difficulties: [(prompt, "yes") for prompt in pool.prompts]}
    for question in questions(learner.snapshot(moments=kept), adapted=bool(options) and kept):
        sent = make(json.loads(json.dumps(describe(question))))
        assert sent == question and sent.snapshot is not question.snapshot
        asked = list(rows.get(type(question), pool.messages))
        assert sent.shard_size == question.shard_size
        if isinstance(question, Gradients):
            unloaded = sent.snapshot.parameters
            assert "model" not in vars(sent.snapshot)
            assert sent.snapshot.model is not None and sent.snapshot.parameters == unloaded
        np.testing.assert_array_equal(sent.build()(asked), question.build()(asked))


def test_a_snapshot_is_kept_until_the_next_training(spec: CausalLM, cache: Cache) -> None:
    learner = Learner(spec, SFT(**SETTINGS), cache, seed=3)
    base = learner.snapshot()
    assert learner.snapshot() is base and learner.model is base.model
    learner.fit(make_pool(8))
    assert learner.snapshot() is not base and learner.snapshot().folder is not None
