"""The processes of a run: the only file that reads, and writes, what tells each of them which one it is.

A run is led by one process. Where a training takes several, an engine starts them (`dsel.engine.launch`) with the
variables of `told`, joins them, and ends them; those of a map (`dsel.engine.spread`) have the variables of `apart`.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from dsel.errors import ConfigError

if TYPE_CHECKING:
    import torch

PARENT = "DSEL_PARENT"  # the process that a worker ends with
GPUS = "CUDA_VISIBLE_DEVICES"
THREADS, COMPILED = "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"  # of libraries' loops, and of ours that are compiled
LIBRARIES = {  # what tells accelerate, and through it the others, how weights are shared
    "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
    "zero3": {"ACCELERATE_USE_DEEPSPEED": "true"},
}
DIES_WITH_PARENT = 1  # of Linux's prctl: PR_SET_PDEATHSIG
PATIENCE = timedelta(hours=2)  # of who waits while the first process writes; one that dies is seen at once

ASK = 60  # seconds for Slurm to answer in

T = TypeVar("T")


def world_size() -> int:
    """Number of processes of this training, one a device."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among those of the training."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def refuse_launcher() -> None:
    """Raise `ConfigError` in a process that a launcher has started beside others: a run starts its own."""
    if world_size() > 1:
        raise ConfigError(
            f"this is one of {world_size()} processes (WORLD_SIZE={world_size()}), and a run starts its own: instead "
            "of torchrun or accelerate launch, python -m dsel.run … trainer.strategy=auto (or ddp, fsdp2, zero3)"
        )


def still_runs() -> bool:
    """Whether this process is one of a Slurm job that is neither cancelled nor on its way back into the queue."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%A %T"]  # of an array: a line for each of its jobs
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASK).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return f"{job} RUNNING" in map(str.strip, said.splitlines())


def told(strategy: str, processes: int, port: int) -> list[dict[str, str]]:
    """The variables that make each of some new processes one of a training's, by their numbers.

    Args:
        strategy: the trainer's, not `auto`.
        processes: how many there are.
        port: on this machine, of the store where they meet, which its parent holds.
    """
    same = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the parent's: nobody else has to listen at the port
        "TORCHELASTIC_RESTART_COUNT": "0",
        THREADS: os.environ.get(THREADS, str(max(1, processors() // processes))),
        PARENT: str(os.getpid()),
        **LIBRARIES.get(strategy, {}),
    }
    return [{**same, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(processes)]


def share(strategy: str) -> None:
    """Have the libraries of this process, which a launcher of others has told which one it is, share by `strategy`."""
    os.environ.update(LIBRARIES.get(strategy, {}))


def apart(processes: int, devices: int = 1) -> list[dict[str, str]]:
    """The variables of some new processes that do not meet: each has GPUs that it takes for the only ones, if any are.

    Args:
        processes: how many there are.
        devices: how many GPUs each of them has; no more together than there are, where there are some.
    """
    import torch

    threads = str(max(1, processors() // processes))
    same = {name: os.environ.get(name, threads) for name in (THREADS, COMPILED, "RAYON_NUM_THREADS")}
    same[PARENT] = str(os.getpid())
    if not torch.cuda.is_available():
        return [same] * processes
    seen = os.environ.get(GPUS) or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = seen.split(",")
    return [{**same, GPUS: ",".join(gpus[i * devices : (i + 1) * devices])} for i in range(processes)]


def tell_libraries() -> None:
    """What libraries find in the environment when they load, in a process of ours, where the user has not said it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries draw no bars of their own: each stage has one of ours
    if THREADS in os.environ:  # else one compiled loop leaves PyTorch with as many threads as there are cores
        os.environ.setdefault(COMPILED, os.environ[THREADS])


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent() -> None:
    """From here on this process is killed when the one that has started it ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):  # it was faster
        os.kill(os.getpid(), signal.SIGKILL)


def lead() -> None:
    """Processes that a library starts in this one's name are to `end_with_leader`."""
    os.environ[PARENT] = str(os.getpid())


def end_with_leader() -> None:
    """From here on this process, which multiprocessing has started, and the library's that has started it are killed
    when the one that leads them ends, however that ends: they would go on without it.
    """
    leader, starter = int(os.environ.get(PARENT, os.getpid())), multiprocessing.parent_process()
    if starter is None or leader == os.getpid():
        return

    def watch() -> None:
        with suppress(ProcessLookupError):  # it has ended already
            select.select([os.pidfd_open(leader)], [], [])
        for pid in (starter.pid, os.getpid()):
            if pid is not None and pid != leader:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def join(strategy: str) -> None:
    """Meet the other processes of a training that is shared by `strategy`.

    accelerate cuts weights on GPUs alone, though PyTorch and DeepSpeed do it on a CPU as well: it gets to know the
    processes as those of several GPUs, or of DeepSpeed, which talk by gloo.
    """
    from accelerate import DistributedType, PartialState

    on_cpu = device_of_process().type == "cpu"
    if strategy == "zero3":
        PartialState(timeout=PATIENCE, **({"backend": "gloo"} if on_cpu else {}))
        return
    PartialState(cpu=on_cpu, timeout=PATIENCE)
    if strategy == "fsdp2" and on_cpu:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def leave() -> None:
    """Part from them, when all have come here."""
    wait_for_everyone()
    import torch

    torch.distributed.destroy_process_group()


def first_says(value: T) -> T:
    """What the first process gave, in all of them."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    found: list[T] = broadcast_object_list([value])
    return found[0]


def mean_of_all(value: float) -> float:
    """The mean of what the processes of this training gave, in all of them."""
    if world_size() == 1:
        return value
    from accelerate.utils import gather_object

    values: list[float] = gather_object([value])
    return sum(values) / len(values)


def wait_for_everyone() -> None:
    """Return when every process of this training has come here."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def device_of_process() -> torch.device:
    """The accelerator of this process (of its local rank in a training of several), or the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
