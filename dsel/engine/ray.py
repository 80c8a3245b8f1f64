"""The engine of a Ray cluster: the shards, files and trainings of `engine=local`, by workers on several machines.

The leading process cuts rows into shards, fetches the rows of one when a worker is free for it, and saves what comes
back, so that a shard is the file it would be anywhere. Plain actors read them, and not those of Ray Data: that would
want all rows in a dataset of the cluster's before it begins, where ours are made shard by shard from a mapped pool; it
counts in blocks, which are no finished files; and it starts an actor that dies, with what it was reading, again for
ever. A training is a `TorchTrainer` whose workers do `dsel.trainer.job.run`, and one that loses a worker goes on from
its last checkpoint. The cache and the folder of runs are to be seen by all machines.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dsel import memory
from dsel.constraints import Count, Text
from dsel.described import Indescribable, describe
from dsel.engine import node
from dsel.engine.base import Engine
from dsel.engine.launch import POLL, blame, heard
from dsel.engine.local import devices_of, stays
from dsel.engine.node import Answer
from dsel.engine.saying import raised
from dsel.errors import ConfigError, LostWorker, need, need_package
from dsel.lazy import fetched
from dsel.memory import Shape
from dsel.model.causal_lm import CausalLM
from dsel.pool import Pool
from dsel.shards import HERE, Read, Results, Shard, Worker
from dsel.spent import settle
from dsel.trainer.job import Job, Report
from dsel.trainer.sent import FOLDER, SAID, Said, send
from dsel.trainer.sft import SFT
from dsel.trainer.strategy import Strategy

AHEAD = 2  # shards that a worker has been given: while it reads one, the next is on its way
LOSSES = 3  # workers that one shard, or a training that does not advance, may take with it
ANSWERS = 10  # seconds that the head of a cluster has to answer in
START = (
    "start one (ray start --head), or name its address (with RAY_AUTH_MODE=token where it has a token), or take "
    "engine.address=local"
)
TELL = 60  # seconds between lines on what is waited for

log = logging.getLogger(__name__)


@dataclass
class Ray(Engine):
    """`engine=ray`: maps by actors that each hold the model once, trainings by Ray Train, on a cluster's machines.

    address: `auto` is the cluster that this machine is part of, or that RAY_ADDRESS names; `local` one of this machine
    alone, which ends with this process; otherwise a cluster's, as Ray takes it. workers: as many; `auto` is all that
    there is room for. cpus: processors that each takes, beside a GPU where the cluster has any.
    """

    address: Text = "auto"
    workers: Count | Literal["auto"] = "auto"
    cpus: Count = 1

    def check(self) -> None:
        need_package("ray", install="dsel[ray]", why="engine=ray")
        if self.address == "local":  # it is started when something is asked of it
            return
        self._room(wanted=1 if self.workers == "auto" else self.workers)

    @property
    def processes(self) -> int:
        return self._room()[0]

    def _compute(
        self, worker: Worker, shards: Sequence[Shard], rows: Sequence[Any], advance: Callable[[int], None]
    ) -> None:
        import torch

        if stays(worker):
            return HERE._compute(worker, shards, rows, advance)
        try:
            described = describe(worker)
        except Indescribable as error:
            log.warning("%s: %s, so that this process computes it alone", type(worker).__name__, error)
            return HERE._compute(worker, shards, rows, advance)
        ray, each = connected(self.address), devices_of(worker)
        workers, gpus = self._room(each)
        if len(shards) == 1 and (not gpus or torch.cuda.device_count() >= each):  # less work than starting somebody
            return HERE._compute(worker, shards, rows, advance)
        torch.cuda.empty_cache()  # a worker may have the GPU of this process
        actor = ray.remote(num_cpus=self.cpus * each, num_gpus=gpus * each, max_restarts=0)(node.Reader)
        home, workers = node.Home.here(), min(workers, len(shards))
        log.info("%s: %d workers", shards[0].title, workers)
        _Readers(lambda: actor.remote(home, described), workers, rows, shards).read(advance)

    def train(self, job: Job, examples: Pool, tokenizer: Any, folder: Path, report: Report) -> None:
        told, lost = set[tuple[int, frozenset[str]]](), 0  # what is known of steps; workers lost since there was news

        def once(metrics: dict[str, float], step: int) -> None:
            nonlocal lost
            if (step, frozenset(metrics)) not in told:  # an attempt makes steps again that came after the checkpoint
                told.add((step, frozenset(metrics)))
                lost = 0
                report(metrics, step)

        while True:
            end = self._attempt(job, examples, folder, once)
            if not end:
                shutil.rmtree(folder / FOLDER, ignore_errors=True)
                return
            lost += end.startswith(node.LOST)
            if lost >= LOSSES:
                raise LostWorker(f"the training lost {lost} workers and did not advance ({why(end)})")
            if end.startswith(node.LOST):
                log.warning("a worker of the training was lost (%s): it goes on from its last checkpoint", why(end))
            else:
                log.warning("the training's workers did not start: waiting for room on the cluster")

    def _attempt(self, job: Job, examples: Pool, folder: Path, report: Report) -> str:
        """Have a job done by the workers that there are now: what `dsel.engine.node.Trainer` says of its end."""
        from accelerate.utils.memory import clear_device_cache

        ray = connected(self.address)
        clear_device_cache(garbage_collection=True)
        workers, gpus = self._room()
        strategy = self.strategy(job.model, job.trainer)
        workers = 1 if strategy == "single" else workers
        folder, sent = folder.resolve(), folder.resolve() / FOLDER
        shutil.rmtree(sent, ignore_errors=True)  # of an earlier attempt
        sent.mkdir(parents=True)
        send(replace(job, trainer=replace(job.trainer, strategy=strategy)), examples, sent)
        said = [Said(sent / SAID.format(i)) for i in range(workers)]
        one = {"num_cpus": self.cpus, "num_gpus": gpus} if workers == 1 else {"num_cpus": 0}
        trainer = ray.remote(max_restarts=0, **one)(node.Trainer).remote(node.Home.here(), sent)
        try:
            shared = strategy, workers, self.cpus, gpus
            task = trainer.alone.remote() if workers == 1 else trainer.together.remote(*shared)
            with heard(said[0], report) as hear:
                ended: list[Any] = []
                while not ended:
                    ended, _ = ray.wait([task], timeout=POLL)
                    hear()
            try:
                end: str = ray.get(task)
            except ray.exceptions.RayActorError as error:
                end = f"{node.LOST}: {error}"
        finally:
            ray.kill(trainer)
        if end.startswith(node.FAILED):
            blame(said)
            if wrong := re.search(r"ConfigError: (.+)", end):
                raise ConfigError(wrong[1])
            raise LostWorker(f"the training {end}")
        return end

    def strategy(self, model: CausalLM, trainer: SFT, counts: Shape | None = None) -> Strategy:
        workers, gpus = self._room()
        if workers == 1 or trainer.strategy != "auto":
            return memory.strategy(model, trainer, workers, counts=counts)
        ray = connected(self.address)
        if gpus:
            there = ray.get(ray.remote(num_gpus=gpus, num_cpus=0)(memory.capacity).remote(1))
        else:
            found = [each["Resources"] for each in ray.nodes() if each["Alive"]]
            there = min(each["memory"] / room for each in found if (room := self._fit(each, gpus)))
        return memory.strategy(model, trainer, workers, there, counts)

    def _room(self, devices: int = 1, wanted: int = 1) -> tuple[int, int]:
        """How many workers there is room for, up to `engine.workers`, and how many GPUs are a device: one or none.

        A worker of several devices has all of them on one machine, and counts as so many.

        Raises:
            ConfigError: where there is room for less than `wanted`.
        """
        found = [each["Resources"] for each in connected(self.address).nodes() if each["Alive"]]
        gpus = int(any(each.get("GPU", 0) >= 1 for each in found))
        room = sum(self._fit(each, gpus) // devices for each in found)
        takes = f"engine.cpus={self.cpus}{' and a GPU' if gpus else ''}{f' {devices} times' if devices > 1 else ''}"
        need(room >= wanted, f"engine.workers={self.workers}: the cluster has room for {room}, each with {takes}")
        return room if self.workers == "auto" else min(room, max(1, self.workers // devices)), gpus

    def _fit(self, machine: dict[str, float], gpus: int) -> int:
        """How many workers a machine has room for."""
        processors = machine.get("CPU", 0) // self.cpus
        return int(min(processors, machine.get("GPU", 0)) if gpus else processors)


class _Readers:
    """Actors that read shards: those that die are replaced, and what they had been given is given to others."""

    def __init__(self, actor: Callable[[], Any], workers: int, rows: Sequence[Any], shards: Sequence[Shard]):
        self._actor, self._rows, self._todo, self._workers = actor, rows, deque(shards), workers
        self._asked: dict[Any, tuple[Any, Shard | None]] = {}  # by what is to come: of whom, and which; None is loading
        self._losses = Counter[str]()  # workers that were lost at a shard, by its name
        self._said = set[tuple[str, int, str]]()  # every worker of a map says the same

    def read(self, advance: Callable[[int], None]) -> None:
        """Have all shards read, and save them; `advance` by the rows of each."""
        import ray
        from ray.exceptions import ObjectLostError, RayActorError

        try:
            for _ in range(self._workers):
                self._start()
            while self._todo or self._reading:
                ready, _ = ray.wait(list(self._asked), timeout=TELL)
                if not ready and not self._reading:
                    log.warning("waiting for a worker to start: there may be no room for it on the cluster now")
                for each in ready:
                    who, shard = self._asked[each]
                    try:
                        answer = ray.get(each)
                    except (RayActorError, ObjectLostError) as error:
                        self._lose(who, shard, why(error))
                        break  # what else was asked of it comes to nothing
                    self._hear(answer)
                    if answer.failure is not None:
                        self._lose(who, shard, _not_fatal(answer.failure))
                        break
                    del self._asked[each]
                    if shard is None:
                        self._losses.pop("", None)
                    else:
                        shard.note(shard.finish(_given(answer), list(shard.rows)))
                        advance(len(shard.rows))
                    self._give(who)
        finally:
            for who in {id(who): who for who, _ in self._asked.values()}.values():
                ray.kill(who)

    @property
    def _reading(self) -> bool:
        return any(shard is not None for _, shard in self._asked.values())

    def _start(self) -> None:
        who = self._actor()
        self._asked[who.build.remote()] = who, None

    def _give(self, who: Any) -> None:
        import ray

        has = sum(other is who for other, _ in self._asked.values())
        while self._todo and has < (AHEAD if len(self._todo) >= self._workers else 1):  # the last ones are for all
            shard = self._todo.popleft()
            self._asked[who.read.remote(list(fetched(self._rows, shard.rows)))] = who, shard
            has += 1
        if not has:  # there is room for another
            ray.kill(who)

    def _lose(self, who: Any, shard: Shard | None, reason: str) -> None:
        """Take back what was given to a worker that has gone, and start another. shard: what it was lost at."""
        import ray

        name = "" if shard is None else shard.path.name
        self._losses[name] += 1
        if self._losses[name] >= LOSSES:
            raise LostWorker(f"{name or 'loading the model'}: {LOSSES} workers were lost at it ({reason})")
        log.warning("a worker was lost (%s): another one takes over", reason)
        had = [each for each, (other, _) in self._asked.items() if other is who]
        self._todo.extendleft(shard for each in reversed(had) if (shard := self._asked.pop(each)[1]) is not None)
        ray.kill(who)
        self._start()

    def _hear(self, answer: node.Answer) -> None:
        """Log what a worker has logged, and no other before it."""
        for name, level, text in answer.lines:
            if (name, level, text) not in self._said:
                self._said.add((name, level, text))
                logging.getLogger(name).log(level, "%s", text)


def _given(answer: Answer) -> Read:
    """A worker that has read the rows of a shard already, elsewhere."""

    def read(rows: list[Any]) -> Results:
        assert answer.found is not None
        settle(answer.spent, before=True)
        return answer.found

    return read


def _not_fatal(failure: tuple[Any, ...]) -> str:
    """A failure in one line, where another worker may do better: one that has more memory. Any other is raised."""
    _, kind, line, _ = failure
    if kind != "memory":
        raised(failure, "a worker", "the map")
    return str(line)


def connected(address: str) -> Any:
    """The module `ray`, in a process that is a driver of the cluster from here on.

    Raises:
        ConfigError: when there is none at that address, or none that goes with this version of Ray or Python.
    """
    import ray

    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is run here is nobody else's business
    logging.getLogger("ray").setLevel(logging.ERROR)  # what matters is said here
    handler = signal.getsignal(signal.SIGTERM)
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        found = _noted() if address == "auto" else address
        _need_answer(address, found)
        ray.init(found, log_to_driver=False, configure_logging=False, namespace="dsel", **own)
    except ConfigError:
        raise
    except Exception as error:  # Ray has one of each kind
        text = str(error).strip().partition("\n")[0]
        raise ConfigError(f"engine.address={address}: no Ray cluster to be had ({text}): {START}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's would end this process in its own way
    return ray


def _noted() -> str:
    """What `auto` stands for. Raises ConnectionError where nothing says."""
    from ray._private.services import get_ray_address_from_environment

    return str(get_ray_address_from_environment("auto", None))


def _need_answer(asked: str, address: str) -> None:
    """Raise `ConfigError` where nobody listens at a cluster's address: Ray would try for minutes.

    asked: the option, of which `auto` may stand for an address that a cluster has left behind on this machine.
    """
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS).close()
    except OSError as error:
        where = "there" if asked == address else f"at {address}"
        raise ConfigError(f"engine.address={asked}: no Ray cluster answers {where} ({error}): {START}") from error


def why(error: Exception | str) -> str:
    """What a worker was lost by, in few words of Ray's many."""
    text = str(error).lower()
    if missing := re.search(r"no module named '([\w.]+)'", text):
        return f"its machine has not installed {missing[1]}"
    if "node has died" in text or "preempt" in text:
        return "its machine has gone"
    if "unavailable" in text:
        return "it cannot be reached"
    return "it was killed, or crashed: often because there is no more memory"
