"""A real Slurm for a test: its daemons on this machine, with their own configuration, key and ports in a folder."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
WAIT = 180  # seconds for a daemon, on a machine that may have much else to do
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # where a user's own has no daemons

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=120
MailProg=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=120 State=UP
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
"""


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@contextmanager
def daemons(folder: Path, *, nodes: int = 2, cpus: int = 1) -> Iterator[dict[str, str]]:
    """Slurm with so many nodes of so many logical CPUs, until the end of the block.

    Its partition `low` is preempted by `high`, two minutes after it was told. Yields the environment in which
    Slurm's commands find it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "munge"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    ports = [_free_port() for _ in range(nodes + 1)]
    host = socket.gethostname().split(".")[0]
    names = [f"n{i}" for i in range(nodes)]
    lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=100000"
        for name, port in zip(names, ports[1:], strict=True)
    ]
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=host, port=ports[0], user=getpass.getuser(), munge=folder / "munge" / "socket", folder=folder,
            nodes="\n".join(lines),
        )
    )  # fmt: skip
    known = {"SLURM_CONF": str(configuration), "PATH": PATH}
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        out = (folder / f"{command[0]}-{len(started)}.out").open("wb")
        with out:
            started.append(subprocess.Popen(command, env={**os.environ, **known}, stdout=out, stderr=out))

    try:
        munge = folder / "munge"
        start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge / 'socket'}",
            f"--pid-file={munge / 'pid'}", f"--log-file={munge / 'log'}", f"--seed-file={munge / 'seed'}",
        )  # fmt: skip
        _until(lambda: (munge / "socket").exists(), "munged", folder)
        start("slurmctld", "-D", "-f", str(configuration))
        for name in names:
            start("slurmd", "-D", "-N", name, "-f", str(configuration))
        _until(
            lambda: _said(known, "sinfo", "-h", "-N", "-p", "low", "-o", "%T").split() == ["idle"] * nodes,
            "nodes",
            folder,
        )
        yield known
    finally:
        _said(known, "scancel", "--user", getpass.getuser())
        with suppress(RuntimeError):
            _until(lambda: not _said(known, "squeue", "-h").strip(), "jobs that end", folder)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(started):
            try:
                process.wait(WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _said(known: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env={**os.environ, **known}, capture_output=True, text=True, timeout=WAIT)
    return done.stdout


def _until(holds: Callable[[], bool], name: str, folder: Path) -> None:
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.2)
    logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in folder.glob("*.[lo][ou]*"))
    raise RuntimeError(f"Slurm does not start ({name}):\n{logs}")


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
