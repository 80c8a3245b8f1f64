"""What every engine is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsel import memory
from dsel.memory import Shape
from dsel.model.causal_lm import CausalLM
from dsel.pool import Pool
from dsel.shards import Map
from dsel.trainer.job import Job, Report, run
from dsel.trainer.sft import SFT
from dsel.trainer.strategy import Strategy


class Engine(Map):
    """Runs the maps over a pool and the trainings wherever there are processors, and changes nothing in what comes out.

    So it is no part of any key. A worker that another process computes with is sent as its description; the shards and
    their files are those of `dsel.shards`, whoever has begun with them. A training is sent as its job.
    """

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads nothing heavy."""

    @property
    def processes(self) -> int:
        """How many workers can share a training, each with a device of its own."""
        return 1

    def strategy(self, model: CausalLM, trainer: SFT, counts: Shape | None = None) -> Strategy:
        """How its workers share a training of `model` (of so many weights, where they are known); never `auto`."""
        return memory.strategy(model, trainer, self.processes, counts=counts)

    def train(self, job: Job, examples: Pool, tokenizer: Any, folder: Path, report: Report) -> None:
        """Do a job, here or by several workers: `dsel.trainer.job.run` says what is in `folder` then.

        Args:
            job: what to learn, and from where.
            examples: the pool that `job.examples` names.
            tokenizer: `job.model`'s.
            folder: what a killed training of this job left, or empty.
            report: is told of each step.

        Raises:
            ConfigError: where the examples or the options do not go with this model.
            LostWorker: when a worker failed for another reason, or was killed.
        """
        run(job, examples, tokenizer, folder, report)
