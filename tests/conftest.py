"""What several test modules share: a cache that is thrown away, and a model small enough to build in seconds."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from dsel.cache import Cache
from dsel.constraints import check_types
from dsel.model.causal_lm import CausalLM
from dsel.pool import Example, Pool

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background: tests send it to what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
GOLDEN = ROOT / "tests" / "golden"

# `model=tiny`, smaller still: two seconds to pretrain instead of a minute
SMALL = ["model.steps=20", "model.hidden=64", "model.layers=1"]
QUICK = ["experiments=quickstart", *SMALL, "data.size=400", "clusterer.k=8", "trainer.epochs=1"]


def shared(name: str) -> Path:
    """A file that holds other people's texts and is in no clone: without it the test is skipped, and says which."""
    if not (SHARED / name).exists():
        pytest.skip(f"needs ../shared/{name}")
    return SHARED / name


def computed() -> float:
    """Seconds of a processor that the processes started here have used: other work on the machine adds none."""
    times = os.times()
    return times.children_user + times.children_system


def until(holds: Callable[[], bool], seconds: float = 600) -> None:
    """Wait for what happens elsewhere, on a machine that may have much else to do."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def as_loud_as_before() -> Iterator[None]:
    """A command that a test calls in this process says how much is said from there on, to the tests after it too."""
    log = logging.getLogger("dsel")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Llama of 0.2 million parameters with its tokenizer and chat template."""
    from dsel.model.pretraining import pretrain

    folder = tmp_path_factory.mktemp("small-model")
    pretrain(folder, steps=20, hidden=64, layers=1)
    return folder


@pytest.fixture(scope="session")
def spec(small_model: Path) -> CausalLM:
    return CausalLM(hub="", path=str(small_model), dtype="float32")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache and one folder of runs for all tests that start `python -m dsel.run`."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def dsel_run(run_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Starts `python -m dsel.run` with the given overrides, offline and without keys."""

    def start(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dsel.run", *overrides]
        return subprocess.run(
            command, cwd=ROOT, env=offline(run_folder, **environment), capture_output=True, text=True, timeout=500
        )

    return start


def offline(folder: Path, **more: str) -> dict[str, str]:
    """An environment without keys and hub whose cache is in `folder`."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().endswith(("KEY", "TOKEN")) and k != "WANDB_MODE"}
    return {**kept, "DSEL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "NETRC": os.devnull, **more}


def checked(component: Any, option: str) -> None:
    """What is checked of a component before a run: what its fields are declared with, then its own `check`."""
    check_types(component, option)
    component.check()


def make_pool(n: int = 40, *, prompt: str = "Say the number {i}.", answer: str = "number {i}", **more: Any) -> Pool:
    """n short single-turn examples from two sources."""
    return Pool.build(
        "made",
        [
            Example(
                id=f"e{i}",
                messages=[
                    {"role": "user", "content": prompt.format(i=i)},
                    {"role": "assistant", "content": answer.format(i=i)},
                ],
                source="even" if i % 2 == 0 else "odd",
                original={"q": prompt.format(i=i), "a": answer.format(i=i)},
                **more,
            )
            for i in range(n)
        ],
    )


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job of the multirun that `overrides` ask for, as Hydra's own sweeper splits them."""
    (sweeper,) = (each for each in Plugins.instance().discover(Sweeper) if each.__name__ == "BasicSweeper")
    parsed = OverridesParser.create().parse_overrides(overrides)
    (batch,) = sweeper.split_arguments(parsed, max_batch_size=None)  # type: ignore[attr-defined]
    return [list(job) for job in batch]


@pytest.fixture(scope="module")
def quick_collections() -> Iterator[None]:
    """Every training collects garbage, in tests among all objects of all libraries."""
    gc.freeze()
    yield
    gc.unfreeze()
