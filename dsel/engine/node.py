"""What runs on the machines of a Ray cluster: readers of shards, and the workers of a training."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel import __version__
from dsel.described import make
from dsel.distributed import PATIENCE, share
from dsel.engine.saying import failure, log_to, without_future_warnings
from dsel.engine.worker import take_part
from dsel.errors import ConfigError, need
from dsel.progress import show_elsewhere
from dsel.shards import Read, Results
from dsel.spent import Spent, counted

LOST, NO_ROOM, FAILED = "lost", "no room", "failed"  # how a training may end
LAST = 5  # seconds that a worker which failed stays: Ray Train may find that another one has gone, which is the cause
SETTINGS = ("DSEL_LOG", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "TQDM_DISABLE")
"""The variables that the leading process hands on; all others, keys above all, are a machine's own."""


@dataclass(frozen=True)
class Home:
    """Where the leading process is, and what it is: a worker on another machine has to find the same there."""

    folder: str
    version: str
    settings: dict[str, str]

    @classmethod
    def here(cls) -> Home:
        known = {name: os.environ[name] for name in SETTINGS if name in os.environ}
        return cls(str(Path.cwd()), __version__, known)

    def enter(self) -> None:
        """Work as the leading process does. Raises `ConfigError` where this machine does not see what it sees."""
        name = socket.gethostname()
        need(
            self.version == __version__,
            f"engine=ray: {name} has dsel {__version__}, and this is {self.version}: install one on all machines",
        )
        need(
            Path(self.folder).is_dir(),
            f"engine=ray: {name} does not see {self.folder}: start the run in a folder that all machines share",
        )
        os.chdir(self.folder)
        os.environ.update(self.settings)
        without_future_warnings()


@dataclass(frozen=True)
class Answer:
    """What a reader answers: the results of a shard, or what was wrong; and the lines of its log since the last one.

    failure: as `dsel.engine.saying.failure` has it. lines: a logger's name, a level and a text. spent: what the results
    have cost.
    """

    found: Results | None
    failure: tuple[Any, ...] | None
    lines: list[tuple[str, int, str]]
    spent: Spent


class Reader:
    """Reads shards as a worker of `dsel.shards` does: an actor, with a process of its own."""

    def __init__(self, home: Home, described: Any):
        self._home, self._described = home, described
        self._read: Read | None = None
        self._lines: list[tuple[str, int, str]] = []

    def build(self) -> Answer:
        """Make the worker of its description, and load what it reads with."""

        def build() -> None:
            self._home.enter()
            log_to(lambda kind, *line: self._lines.append(line))
            show_elsewhere(lambda *_: None)  # shards that are done are progress enough
            self._read = make(self._described).build()

        return self._tried(build)

    def read(self, rows: list[Any]) -> Answer:
        """The results of the rows of a shard."""
        read = self._read
        assert read is not None
        return self._tried(lambda: read(rows))

    def _tried(self, act: Callable[[], Results | None]) -> Answer:
        found, failed = None, None
        with counted() as spent:
            try:
                found = act()
            except Exception as error:
                failed = failure(error)
        lines, self._lines = self._lines, []
        return Answer(found, failed, lines, spent)


class Trainer:
    """Has the training done that was sent to a folder, in this process or by several: an actor, and ends with it.

    What its methods give is empty where it is done; else it begins with `LOST`, where one of the workers or its machine
    has gone, `NO_ROOM`, where they could not be started in the time that Ray Train gives them, or `FAILED`, and goes
    on with what Ray says of it.
    """

    def __init__(self, home: Home, sent: Path):
        self._home, self._sent = home, sent

    def alone(self) -> str:
        """In this process."""
        try:
            self._home.enter()
        except ConfigError as error:
            return f"{FAILED}: ConfigError: {error}"
        return "" if take_part(self._sent) else FAILED

    def together(self, strategy: str, workers: int, cpus: int, gpus: int) -> str:
        """By so many workers, that take so much each."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            _take_part,
            train_loop_config={"home": self._home, "sent": self._sent, "strategy": strategy},
            torch_config=TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                name="training",
                storage_path=str(self._sent / "ray"),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:  # Ray Train's own attempts would not know of workers that are fewer
            failures = getattr(error, "worker_failures", {}).values()
            lost = next((each for each in failures if not isinstance(each, Failed)), None)
            if lost is not None or "Preemption" in type(error).__name__:
                return f"{LOST}: {lost or error}"
            controllers = type(getattr(error, "controller_failure", None)).__name__
            known = {"WorkerGroupStartupTimeoutError": NO_ROOM, "WorkerGroupStartupFailedError": LOST}
            return f"{known.get(controllers, FAILED)}: {error}"
        return ""


class Failed(Exception):
    """Is raised by a worker of a training that lives, and has said what was wrong."""


def _take_part(given: dict[str, Any]) -> None:
    """A worker of a training, which Ray Train has told which one it is."""
    try:
        given["home"].enter()
    except ConfigError as error:
        raise Failed(f"ConfigError: {error}") from error
    share(given["strategy"])
    if not take_part(given["sent"]):
        time.sleep(LAST)
        raise Failed
