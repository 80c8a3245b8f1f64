"""The engine of one machine."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dsel import memory
from dsel.constraints import Count
from dsel.distributed import device_of_process
from dsel.engine.base import Engine
from dsel.engine.launch import launch
from dsel.errors import need
from dsel.pool import Pool
from dsel.shards import InProcess
from dsel.trainer.job import Job, Report

log = logging.getLogger(__name__)


@dataclass
class Local(InProcess, Engine):
    """`engine=local`: maps in this process, and trainings in this one or by workers that it starts and ends.

    workers: as many processes; `auto` is one for each GPU that can be seen, and one where there is none.
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
        strategy = memory.strategy(job.model, job.trainer, self.processes)
        if strategy == "single":
            super().train(job, examples, tokenizer, folder, report)
        else:
            job = replace(job, trainer=replace(job.trainer, strategy=strategy))
            launch(job, examples, self.processes, folder, report)

    @staticmethod
    def _gpus() -> int:
        import torch

        return torch.cuda.device_count()
