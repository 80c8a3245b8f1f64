"""One file knows what tells processes which one they are."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dsel
from dsel import distributed
from dsel.errors import ConfigError
from tests.conftest import ROOT, until
from tests.engine.test_launch import gone

ALL = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|(MASTER|TORCHELASTIC|ACCELERATE|FSDP|SLURM|OMPI)_\w+")


def test_no_other_module_knows_their_variables() -> None:
    for path in Path(dsel.__file__).parent.rglob("*.py"):
        texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        read = [text for text in texts if isinstance(text, str) and ALL.fullmatch(text)]
        assert path.name == "distributed.py" or not read, (path, read)


def test_a_process_alone_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.world_size(), distributed.rank(), distributed.is_main_process()) == (1, 0, True)
    assert distributed.first_says("it") == "it"
    distributed.refuse_launcher()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero3"])
def test_each_worker_is_told_its_number(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = distributed.told(strategy, 3, 4321)
    assert len(told) == 3
    for number, variables in enumerate(told):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            assert (distributed.world_size(), distributed.rank()) == (3, number)
            assert distributed.is_main_process() == (number == 0)
            with pytest.raises(ConfigError, match=r"one of 3 processes \(WORLD_SIZE=3\).*trainer\.strategy=auto"):
                distributed.refuse_launcher()


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed, and can tell nobody."""
    child = (
        "import time; from dsel.distributed import *; die_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; from dsel.distributed import told\n"
        f"child = subprocess.Popen([sys.executable, '-c', {'import os; ' + child!r}], stdout=subprocess.PIPE,"
        " env={**os.environ, **told('ddp', 1, 1)[0]})\n"
        "print(int(child.stdout.readline()), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    number, end = int(done.stdout), time.monotonic() + 10
    while Path(f"/proc/{number}/exe").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{number}/exe").exists() or _is_dead(number)


def _is_dead(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_compiled_loops_leave_pytorch_its_threads() -> None:
    """numba's threads are OpenMP's, and so are PyTorch's: two processes on two cores wait for one another with four."""
    code = (
        "from dsel.distributed import tell_libraries; tell_libraries()\n"
        "import numba, numpy, torch\n"
        "@numba.njit(parallel=True)\n"
        "def fill(out):\n"
        "    for i in numba.prange(len(out)):\n"
        "        out[i] = i\n"
        "fill(numpy.empty(8)); print(torch.get_num_threads())"
    )
    alone = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")} | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=alone, stdout=subprocess.PIPE).stdout == b"1\n"


ENGINE = """
import multiprocessing, os, sys, time
from dsel.distributed import lead

def engine(inner):
    print(os.getpid(), flush=True)
    if inner:
        multiprocessing.get_context("spawn").Process(target=engine, args=(inner - 1,)).start()
    else:
        import dsel.model.vllm_worker
        print("watches", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    lead()
    multiprocessing.get_context("spawn").Process(target=engine, args=(int(sys.argv[1]),)).start()
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is told")
@pytest.mark.parametrize("inner", [0, 1])
def test_an_engine_and_its_workers_end_with_their_leader_from_its_start(tmp_path: Path, inner: int) -> None:
    """Be it that the engine is a process and a worker in one, or has its workers in others."""
    (tmp_path / "lead.py").write_text(ENGINE)
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "lead.py"), str(inner)], env=path, stdout=subprocess.PIPE, text=True
    ) as leader:
        assert leader.stdout is not None
        lines = [leader.stdout.readline() for _ in range(inner + 2)]
        leader.kill()
    pids = [int(line) for line in lines if line.strip().isdigit()]
    assert lines[-1] == "watches\n" and len(pids) == inner + 1
    until(lambda: all(map(gone, pids)))
