"""A finetuning as a job: from plain data and its examples to a folder of safetensors and `outcome.json`.

Nothing else loads a model to train it, wraps, trains or saves it. One process does a job alone; of several, which an
engine has started, every one calls `run` with the same job, and the first one writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsel.distributed import first_says, is_main_process
from dsel.files import read_json, write_json
from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.pool import Pool
from dsel.trainer.checkpoints import CHECKPOINTS, goes_on_from
from dsel.trainer.sft import SFT
from dsel.trainer.strategy import before_loading, state

OUTCOME = "outcome.json"

Report = Callable[[dict[str, float], int], None]
"""Is told the metrics of a step of training, and its number."""


@dataclass(frozen=True)
class Job:
    """What is to be learnt, and how: plain data that JSON can hold, so that any process can be given it.

    model: the base model; where it builds itself, it has been. examples: what their pool is known by. start: the folder
    that an earlier job filled and this one goes on from; None is the base model. part: (i, m) for the i-th of m jobs
    that are one training; above 1 the optimizer goes on from `start` too. steps: those that came before, for the
    training curve. moments: the optimizer's state stays in the folder, whether a part follows or not.
    """

    model: CausalLM
    trainer: SFT
    examples: str
    seed: int
    start: str | None = None
    part: tuple[int, int] = (1, 1)
    steps: int = 0
    moments: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether a job follows that is a part of the same training."""
        return self.part[0] < self.part[1]

    @property
    def mixed(self) -> bool:
        """Whether matrix products run in bfloat16, whatever the weights are held in."""
        import torch

        return torch_dtype(self.model.dtype) == torch.bfloat16


def run(job: Job, examples: Pool, tokenizer: Any, folder: Path, report: Report) -> None:
    """Load, wrap, train, gather and save. A killed job goes on from what it left in `folder`.

    The model is then dropped: mixed precision has wrapped it, so it would not answer as the saved one does.

    Args:
        job: what to learn, and from where.
        examples: the pool that `job.examples` names.
        tokenizer: `job.model`'s.
        folder: gets the weights (of adapters, these alone), the tokenizer, `outcome.json` and, where a part follows,
            the optimizer's state.
        report: is told of each step.

    Raises:
        ConfigError: where the examples or the options do not go with this model.
    """
    from accelerate.utils.memory import clear_device_cache

    start = None if job.start is None else Path(job.start)
    checkpoint = first_says(goes_on_from(folder / CHECKPOINTS) if is_main_process() else None)
    cut = before_loading(job.trainer.strategy, bfloat16=job.mixed) if job.trainer.sharded else None
    model = job.trainer.load(
        job.model, tokenizer, seed=job.seed, start=start if checkpoint is None else Path(checkpoint)
    )
    outcome = job.trainer.train(
        model.train(),
        tokenizer,
        examples,
        seed=job.seed + job.part[0] - 1,
        bfloat16=job.mixed,
        folder=folder,
        report=lambda metrics, step: report(metrics, job.steps + step),
        part=job.part,
        earlier=start if job.part[0] > 1 else None,
        checkpoint=checkpoint,
        moments=job.moments,
    )
    model.config.use_cache = True
    as_trained = job.goes_on or job.trainer.lora is not None
    dtype = None if as_trained else torch_dtype(job.model.dtype)  # master weights were for training only
    weights = state(model, trained=job.trainer.lora is not None, dtype=dtype) if job.trainer.sharded else None
    if dtype is not None:
        model.to(dtype)
    if is_main_process():
        save(model, tokenizer, folder, weights)
        write_json(folder / OUTCOME, outcome)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    del model, cut
    clear_device_cache(garbage_collection=True)  # the trainer's objects hold each other, gradients and optimizer


def outcome_of(folder: Path) -> dict[str, float]:
    """What the trainer reported of the job that filled `folder`."""
    outcome: dict[str, float] = read_json(folder / OUTCOME)
    return outcome


def load(job: Job, tokenizer: Any, folder: Path) -> Any:
    """The model that `job` left in `folder`, to be asked: between parts in the precision of training."""
    if job.trainer.lora is not None:
        return job.trainer.load(job.model, tokenizer, seed=job.seed, start=folder)
    model = replace(job.model, path=str(folder))
    return model.load(tokenizer, dtype=job.trainer.dtype if job.goes_on else None)


def save(model: Any, tokenizer: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> None:
    """Write a model (of adapters, these alone) and its tokenizer as an ordinary folder of safetensors.

    Args:
        model: what `tokenizer` belongs to.
        tokenizer: of the model.
        folder: is made where it is missing.
        weights: whole, by name, where the model has a piece of each.
    """
    model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
    model.generation_config.save_pretrained(folder)  # which adapters alone would leave out
    tokenizer.save_pretrained(folder)


def export(load: Callable[[], Any], tokenizer: Any, folder: Path, *, merge: bool = False) -> None:
    """`save` what `load` gives, its adapters folded into the weights where they are to `merge`."""
    model = load()
    save(model.merge_and_unload() if merge and hasattr(model, "merge_and_unload") else model, tokenizer, folder)
