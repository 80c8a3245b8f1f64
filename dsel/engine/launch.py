"""A training by several processes of this machine: started, heard and ended by this one.

Each is a `python -m dsel.engine.worker`, started by torch's elastic launcher; they meet in a store of this process.
What they say (progress, points of the training curve, lines of the log, and what went wrong) comes as lines of JSON in
a file of each. When one ends badly the others are ended, and when this process ends they are, however it does.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from dsel import distributed
from dsel.engine.saying import LAST_WORDS, killed_by, raised
from dsel.errors import LostWorker
from dsel.interrupt import deaf, heed, held, told
from dsel.pool import Pool
from dsel.progress import progress
from dsel.secrets import redact
from dsel.trainer.job import Job, Report
from dsel.trainer.sent import FOLDER, SAID, Said, send

WORKER: tuple[str, ...] = ("-m", "dsel.engine.worker")  # what the interpreter runs
POLL = 0.1  # seconds
GRACE = 10  # seconds that a worker has to end in, when it is told to
FOLLOWS = (signal.SIGTERM, signal.SIGABRT)  # that end a worker which has lost another
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # which the launcher would take for itself

log = logging.getLogger(__name__)


def launch(job: Job, examples: Pool, processes: int, folder: Path, report: Report) -> None:
    """`dsel.trainer.job.run` by several processes, each with a device of its own.

    Args:
        job: its trainer's strategy is not `auto`.
        examples: the pool that `job.examples` names.
        processes: how many.
        folder: gets what `run` leaves.
        report: is told of each step.

    Raises:
        ConfigError: what one of them says is wrong with the configuration.
        LostWorker: with what another one failed with.
    """
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)  # the first worker has the device of this process
    sent = folder / FOLDER
    shutil.rmtree(sent, ignore_errors=True)  # a killed run's
    sent.mkdir(parents=True)
    send(job, examples, sent)
    said = [Said(sent / SAID.format(i)) for i in range(processes)]
    with held(), heard(said[0], report) as hear, _started(job.trainer.strategy, processes, sent) as context:
        passed_on = False
        while True:
            if told() and not passed_on:
                for process in context.pids().values():
                    os.kill(process, signal.SIGUSR1)  # it saves a checkpoint, and ends
                passed_on = True
            ended = context.wait(timeout=0)
            hear()
            if ended is not None:
                break
            threading.Event().wait(POLL)
    if ended.is_failed():
        heed()
        _fail({i: failure.exitcode for i, failure in ended.failures.items()}, said, ended.stderrs)
    shutil.rmtree(sent, ignore_errors=True)


@contextmanager
def _started(strategy: str, processes: int, folder: Path) -> Iterator[Any]:
    """The workers, until the end of the block; there `wait(0)` says whether all have ended, or one badly."""
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we say it ourselves
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # where they meet: at a port that is free
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    logs = folder / "logs"
    logs.mkdir()
    with deaf():
        context = start_processes(
            "training",
            sys.executable,
            dict.fromkeys(range(processes), (*WORKER, str(folder))),
            dict(enumerate(distributed.told(strategy, processes, store.port))),
            DefaultLogsSpecs(str(logs), redirects={i: Std.OUT if i == 0 else Std.ALL for i in range(processes)}),
        )
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        yield context
    finally:
        context.close(timeout=GRACE)


@contextmanager
def heard(said: Said, report: Report) -> Iterator[Callable[[], None]]:
    """Yields what does all that a worker has asked for since the last time; until it says anything, it is starting.

    Args:
        said: what the first worker says.
        report: is told of each step.
    """
    bars: dict[str, tuple[ExitStack, Callable[[int], None]]] = {}  # by title: what ends one, and what advances it
    with ExitStack() as shown:
        starting = shown.enter_context(ExitStack())
        starting.enter_context(progress("starting the workers of a training", total=None, unit=""))

        def hear() -> None:
            for kind, *what in said.read():
                starting.close()
                if kind == "log":
                    name, level, text = what
                    logging.getLogger(name).log(level, "%s", text)
                elif kind == "step":
                    report(*what)
                elif kind == "advance":
                    title, total, unit, count = what
                    if title not in bars:
                        bar = shown.enter_context(ExitStack())
                        bars[title] = bar, bar.enter_context(progress(title, total=total, unit=unit))
                    if count is None:
                        bars.pop(title)[0].close()
                    else:
                        bars[title][1](count)

        yield hear


def _fail(codes: dict[int, int], said: list[Said], errors: dict[int, str]) -> NoReturn:
    """Raise what was wrong with the first of them to fail: the others have missed it, and may have said so first.

    Args:
        codes: their exit codes, by their numbers.
        said: what each of them said.
        errors: the files of their standard error; nothing for the first one's, which is this process's.
    """
    processes = len(said)
    for i, code in codes.items():
        if code < 0 and -code not in FOLLOWS:
            raise LostWorker(f"worker {i + 1} of {processes} of the training {killed_by(code)}")
    blame(said)
    for i, file in errors.items():
        if file and (text := Path(file).read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:].strip()):
            log.error("worker %d of %d:\n%s", i + 1, processes, redact(text))
    raise LostWorker(f"the workers of the training ended without a word (exit codes: {codes})")


def blame(said: list[Said]) -> None:
    """Raise what the first of them to fail has said of it; nothing where none of them has.

    Args:
        said: what each of them said.
    """
    failures = [(what, i) for i, file in enumerate(said) for kind, *what in file.all() if kind == "failure"]
    if failures:
        first, i = min(failures, key=lambda failure: float(failure[0][0]))
        raised(first, f"worker {i + 1} of {len(said)}", "the training")
