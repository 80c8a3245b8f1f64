"""The engine of one machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dsel.constraints import Count
from dsel.described import Indescribable, describe
from dsel.distributed import device_of_process
from dsel.engine.base import Engine
from dsel.engine.launch import launch
from dsel.engine.spread import Shards, spread
from dsel.errors import need
from dsel.pool import Pool
from dsel.shards import InProcess, Shard, Worker
from dsel.trainer.job import Job, Report

log = logging.getLogger(__name__)


@dataclass
class Local(InProcess, Engine):
    """`engine=local`: maps and trainings by workers that this process starts and ends, or in this one alone.

    workers: as many processes; `auto` is one for each GPU that can be seen, and one where there is none. Each of a map
    has all of the model that it asks. A map of one shard, or by a worker that says `in_process`, stays here.
    """

    workers: Count | Literal["auto"] = "auto"

    def check(self) -> None:
        if self.workers == "auto" or self.workers == 1:
            return
        device, seen = device_of_process().type, self._gpus()
        need(device != "mps", f"engine.workers={self.workers}: this machine has one GPU for one process")
        enough = device == "cpu" or self.workers <= seen
        need(enough, f"engine.workers={self.workers}: {seen} GPUs can be seen here; auto takes all of them")

    @property
    def processes(self) -> int:
        return max(1, self._gpus()) if self.workers == "auto" else self.workers

    def train(self, job: Job, examples: Pool, tokenizer: Any, folder: Path, report: Report) -> None:
        strategy = self.strategy(job.model, job.trainer)
        if strategy == "single":
            super().train(job, examples, tokenizer, folder, report)
        else:
            job = replace(job, trainer=replace(job.trainer, strategy=strategy))
            launch(job, examples, self.processes, folder, report)

    def _compute(
        self, worker: Worker, shards: Sequence[Shard], rows: Sequence[Any], advance: Callable[[int], None]
    ) -> None:
        processes = sharers(worker, len(shards), self.processes)
        if processes > 1:
            waiting = Shards(shards, rows)
            try:
                described = describe(worker)
                waiting.prepare()
            except (Indescribable, TypeError) as error:
                log.warning("%s: %s, so that this process computes it alone", type(worker).__name__, error)
            else:
                log.info("%s: %d workers", shards[0].title, processes)
                return spread(described, waiting, advance, processes, devices_of(worker))
        super()._compute(worker, shards, rows, advance)

    @staticmethod
    def _gpus() -> int:
        import torch

        return torch.cuda.device_count()


def stays(worker: Worker) -> bool:
    """Whether other processes would be no help to it, or it names a device of this one."""
    return getattr(worker, "in_process", False) or ":" in str(getattr(worker, "device", None))


def sharers(worker: Worker, shards: int, processes: int) -> int:
    """How many of so many processes have a part in a map of so many shards."""
    return 1 if stays(worker) else min(processes // devices_of(worker), shards)


def devices_of(worker: Worker) -> int:
    """How many devices a process takes that computes this."""
    return int(getattr(worker, "devices", 1))
