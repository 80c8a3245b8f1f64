"""The settings of trainings that are over in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsel.cache import Cache
from dsel.engine.base import Engine
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.trainer.base import Training
from dsel.trainer.sft import SFT
from tests.conftest import make_pool

SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "learning_rate": 5e-3,
    "batch_size": 8,
    "micro_batch_size": 8,
    "warmup": 0,
    "max_length": 128,
    "gradient_checkpointing": False,
}


def fitted(
    spec: CausalLM,
    folder: Path,
    engine: Engine,
    parts: int = 1,
    examples: int = 33,
    each: Callable[[int], None] = lambda step: None,
    **options: Any,
) -> tuple[Learner, list[float]]:
    """What has learnt of so many examples, as the first of `parts`, and the loss of each step; `each` is told it."""
    losses: list[float] = []

    def report(metrics: dict[str, float], step: int) -> None:
        if "loss" in metrics:
            losses.append(metrics["loss"])
            each(step)

    trainer = SFT(**{**SETTINGS, "log_every": 1, **options})
    learner = Learner(spec, trainer, Cache(folder), seed=3, report=report, engine=engine)
    learner.fit(make_pool(examples), Training(part=(1, parts)))
    return learner, losses
