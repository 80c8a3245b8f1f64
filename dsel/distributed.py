"""The processes of a run: the only file that reads what a launcher (torchrun, accelerate) tells each of them.

A process that dies ends the others in seconds: they cannot wait for it longer, as their launcher sends them SIGTERM as
soon as one has ended with an error or by a signal. For that, a run of several processes lets every error out of itself,
also in a sweep (`dsel.run`), and what was wrong stands in the output: the error, or the launcher's line on the signal.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def world_size() -> int:
    """Number of processes of this job, one a device."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether a launcher has started this process, be it the only one."""
    return "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number among those of the job."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def sharded() -> bool:
    """Whether weights and optimizer are spread over the processes (FSDP, DeepSpeed)."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))


def wait_for_everyone() -> None:
    """Return when every process of this job has come here."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def device_of_process() -> torch.device:
    """The accelerator of this process (of its local rank in a distributed job), or the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
