"""A look before spending: what a run would do, with estimates of its time and memory. No model's weights are loaded.

Gathered are the pool, the model's configuration and tokenizer, and the records of earlier runs. Counts then follow from
the selector, tokens from a sample, time from what earlier runs measured (`pace`), memory from formulas (`dsel.memory`).
"""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from rich.console import Console

from dsel import memory, peaks
from dsel.cache import Cache
from dsel.cost import speed, warnings
from dsel.errors import ConfigError
from dsel.experiment import Experiment
from dsel.forecast import Device, Forecast, Pace, duration, files, forecast, sharing, table
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import encode
from dsel.model.flops import forward_and_back
from dsel.model.trial import try_template
from dsel.pool import Pool
from dsel.record.environment import environment
from dsel.record.facts import OddRecord
from dsel.record.reader import NAME, RunFolder
from dsel.remote import Unreachable, is_url
from dsel.remote_runs import need_here
from dsel.resources import RESOURCES, closure
from dsel.show import Table, show_table, to_terminal
from dsel.trainer.steps import steps

if TYPE_CHECKING:
    from dsel.selector.base import Work
    from dsel.study import Study
    from dsel.trainer.sft import SFT

log = logging.getLogger(__name__)

Records = Sequence[Mapping[str, Any]]
Measured = Callable[[str], Pace | None]
"""The pace of a stage in earlier runs, by the stage's name."""

SAMPLE = 256  # examples whose tokens are counted
BIG = 1e9  # bytes that a selection is worth a line for
CHARACTERS = 4  # of English text in a token, roughly: where no tokenizer can be asked
MAPS = frozenset(("embed", "embed targets", "score", "generate", "scoring", "evaluate"))
"""The stages that workers share, each of them with a part of the examples."""
SPEED = (
    "lora quantization dtype packing batch_size batch_tokens micro_batch_size max_length gradient_checkpointing "
    "optimizer strategy"
).split()
"""The settings of a trainer that its tokens per second depend on."""


@dataclass(frozen=True)
class Tokens:
    """Of an example: the mean over a sample of the pool, its standard error, the most, and how they were counted."""

    mean: float
    error: float
    most: int
    how: str


@dataclass(frozen=True)
class Task:
    """A stage to come: its units (tokens, examples, or 1 for all), the pace of one worker, where it is known, and how
    many there are."""

    name: str
    what: str
    units: float
    pace: Pace | None
    cached: bool = False
    workers: int = 1

    @property
    def seconds(self) -> float | None:
        return 0.0 if self.cached else None if self.pace is None else self.units * self.pace.seconds / self.workers


@dataclass(frozen=True)
class Plan:
    """What would run. memory: bytes by part, or why they are unknown. place: the device's name and its bytes.

    shared: how many workers share a training, and how. others: bytes of a device under each other strategy. larger:
    what a selection would take for pools of other sizes.
    """

    pool: Pool
    budget: int
    tokens: Tokens | None
    tasks: Sequence[Task]
    memory: Mapping[str, float] | str
    place: tuple[str, float]
    gpus: int
    shared: tuple[int, str] = (1, "single")
    others: Mapping[str, float] = field(default_factory=dict)
    larger: Forecast | None = None


# gather


def plan(experiment: Experiment, config: Mapping[str, Any]) -> Plan:
    """What a run of `experiment` would come to; `config` is the run's, with the folder `runs` of earlier ones.

    Raises `ConfigError` for what the run would fail with once it has read its pool.
    """
    selector, trainer = experiment.selector, cast("SFT", experiment.trainer)  # of the one that trains, where it does
    model, evaluator = experiment.model, experiment.evaluator
    problem = experiment.problem()
    pool, study, budget = problem.pool, problem.study, problem.study.budget
    here = environment()
    earlier = [r for r in _measured(config) if hardware(r["environment"]) == hardware(here)]
    measured, place = partial(pace, earlier, config, shares=partial(sharing, experiment)), capacity(here)
    workers = workers_of(config, here) or experiment.engine.processes
    peak = peaks.peak(place[0])
    tasks: list[Task] = []
    tokens: Tokens | None = None
    needed: Mapping[str, float] | str = {}
    shared, others = (1, "single"), dict[str, float]()
    local, why = None, "no model is trained"
    if trainer.trains or evaluator.evaluates:
        kept = experiment.cache
        made = model.prepare(Look(kept.folder, None if kept.remote is None else kept.remote.remote))
        if not made:
            tasks.append(Task("model", "to be made, as this is its first use", 1, measured("model")))
    tasks += resources(experiment, study, workers, measured)
    tasks += choosing(experiment, study, measured)
    if trainer.trains:
        folder, why = files(model) if made else (None, "the model is yet to be made")
        local = None if folder is None else replace(model, path=str(folder))
        counts, needed = None, why
        if local is not None:
            try_template(local.load_tokenizer(), pool, name=model.place, probes=selector.probes)
            counts, processes = memory.shape(local, trainer), experiment.engine.processes
            shared = (processes, experiment.engine.strategy(local, trainer, counts))
        tokens = sample(pool, local, trainer.max_length, why)
        if local is not None:
            needed = memory.training(local, trainer, tokens.most, *shared, counts)
            for strategy in memory.strategies(trainer, shared[0]):
                if strategy != shared[1]:
                    among = 1 if strategy == "single" else shared[0]
                    each = memory.training(local, trainer, tokens.most, among, strategy, counts)
                    others[strategy] = sum(each.values())
        known, among = measured("train"), 1
        if known is None and counts is not None and peak is not None:
            known, among = computed(counts, trainer, peak), shared[0]
        work = selector.plan(len(pool), budget, trainer.epochs)
        tasks += trainings(work, trainer, tokens.mean, known, among)
        for name, stage, units, what in (
            ("answers", "generate", work.answers, "to generate"),
            ("scoring", "scoring", work.scored, "texts at most, with the model as it learns"),
        ):
            if units:
                tasks.append(Task(name, f"{units:,} {what}", units, measured(stage), workers=workers))
    if evaluator.evaluates:
        what = ", ".join(getattr(evaluator, "asked", [])) or type(evaluator).__name__
        tasks.append(Task("evaluation", what, 1, measured("evaluate"), workers=workers))
    gpus = experiment.engine.processes if here["gpus"] else 0
    larger = None
    if sizes := [int(size) for size in config.get("plan_for") or ()]:
        device = Device(peaks.USUAL, peaks.PEAKS[peaks.USUAL], False) if peak is None else Device(place[0], peak, True)
        larger = forecast(experiment, study, sizes, device, measured, lambda most: sample(pool, local, most, why).mean)
    return Plan(pool, budget, tokens, tasks, needed, place, gpus, shared, others, larger)


def resources(experiment: Experiment, study: Study, workers: int, measured: Measured) -> Iterator[Task]:
    """What the selector needs of the pool, but for clusters."""
    n = len(study.pool)
    for name in closure(experiment.selector.needs):
        if name != "clustering" and RESOURCES[name].exists(study):
            stage = RESOURCES[name].stage
            among = sharing(experiment, stage, n, workers)
            yield Task(name, f"{n:,} examples", n, measured(stage), study.is_cached(name), among)


def choosing(experiment: Experiment, study: Study, measured: Measured) -> Iterator[Task]:
    """Clustering, where there is some; and the selection, where it takes long. Warns of what is very long."""
    n = len(study.pool)
    for name, cost in experiment.costs(n, study.dimensions).items():
        clusters = name == "clustering"
        cached = clusters and experiment.is_clustered(study)
        known = measured("cluster") if clusters else None
        long = cost.seconds > 1 or cost.memory > BIG
        if clusters and (known is not None or not long):
            yield Task(name, f"{n:,} examples", n, known, cached)
        elif long:
            what = f"{cost.operations:.2g} operations, {cost.memory / 1e9:.2g} GB of memory, at most"
            yield Task(name, what, cost.operations, Pace(1 / speed(cost.device), "by its operations"), cached)
        for line in () if cached else warnings(f"the {name}", cost):
            log.warning("%s", line)


def trainings(work: Work, trainer: SFT, mean: float, known: Pace | None, workers: int) -> Iterator[Task]:
    """The trainings, of examples of so many tokens in the `mean`."""
    for number, (examples, epochs) in enumerate(work.trainings, 1):
        total = examples * epochs * mean
        count = steps(vars(trainer), examples, examples * mean, epochs)
        passes = f"{epochs:g} epoch" + ("" if epochs == 1 else "s")
        what = f"{examples:,} examples × {passes}: {total:,.0f} tokens, {count:,} steps"
        yield Task(f"training {number}", what, total, known, workers=workers)


def computed(counts: memory.Shape, trainer: SFT, peak: peaks.Peak) -> Pace:
    """Of training on a token, from the operations that it takes."""
    each = forward_and_back(*counts.passed, 1, again=trainer.gradient_checkpointing)
    says = f"{each:.3g} operations a token, {peaks.SHARE:.0%} of the peak of {peak.bfloat16:.3g} a second"
    return Pace(each / (peaks.SHARE * peak.bfloat16), says)


def workers_of(config: Mapping[str, Any], here: Mapping[str, Any]) -> int | None:
    """How many workers a run had, by its configuration and its environment: one for each GPU where neither says.

    None where that is not known: all that a Ray cluster had room for.
    """
    engine = config.get("engine") or {}
    if isinstance(workers := engine.get("workers", "auto"), int):
        return workers
    return None if ".ray." in engine.get("_target_", "") else max(1, len(here["gpus"]))


class Look(Cache):
    """A cache that says where an artifact is, or would be, and builds none; one at a URL is downloaded."""

    def artifact(
        self, kind: str, key: Any, build: Callable[[Path], None], *, needs: Sequence[str] = (), lease: bool = False,
        wait: bool = True,
    ) -> tuple[Path, bool]:  # fmt: skip
        place = self.path(kind, key)
        return place, self.fetch(kind, key) if self.remote else place.is_dir()


def sample(pool: Pool, model: CausalLM | None, most: int, why: str) -> Tokens:
    """Tokens of an example, up to `most`, from `SAMPLE` of them and the longest; without a model, from characters."""
    tokenizer = None if model is None else model.load_tokenizer()
    rows = np.random.default_rng(0).permutation(len(pool))[:SAMPLE]
    longest = int(np.argmax(pool.lengths))

    def count(part: Pool) -> list[int]:
        if tokenizer is None:
            return [min(most, math.ceil(len(text) / CHARACTERS)) for text in part.texts]
        return [len(encode(tokenizer, messages, most)[0]) for messages in part.messages]

    counts, extreme = count(pool.take(rows)), count(pool.take([longest]))
    error = statistics.stdev(counts) / math.sqrt(len(counts)) if len(counts) > 1 else math.nan
    how = "the model's tokenizer" if tokenizer is not None else f"{CHARACTERS} characters a token: {why}"
    return Tokens(statistics.mean(counts), error, max(*counts, *extreme), f"{len(rows)} read, {how}")


def _measured(config: Mapping[str, Any]) -> Records:
    """The records of earlier runs, where there are any."""
    runs = config["runs"]
    if not is_url(runs):
        return finished(Path(runs))
    try:
        return finished(need_here(runs, option="runs", wanted=lambda name: name.name == NAME))
    except Unreachable:
        raise
    except ConfigError:  # none yet
        return []


def finished(runs: Path) -> Records:
    """The records of the finished runs in a folder; what is none is named in the log and left out."""
    records = []
    for path in sorted(runs.glob(f"*/{NAME}")):
        try:
            run = RunFolder.read(path.parent)
            if run.status == "finished":
                measured(run.facts)
                records.append(run.facts)
        except (OddRecord, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as why:
            reason = why if isinstance(why, OddRecord) else f"not what a run measures ({type(why).__name__}: {why})"
            log.warning("not looked at for the plan: %s: %.200s", path, reason)
    return records


def measured(record: Mapping[str, Any]) -> None:
    """Raises an error of any kind when the speeds in a record cannot be had: it may be anybody's."""
    hardware(record["environment"])
    relevant(record["config"], "train")
    for name, units, seconds in observed(record):
        if not units > 0 or seconds < 0:
            raise ValueError(f"{name}: {seconds} s for {units}")


def capacity(here: Mapping[str, Any]) -> tuple[str, float]:
    """The first GPU and its bytes, as `environment` has them, or the machine's own memory."""
    if here["gpus"]:
        name, total = here["gpus"][0].split(", ")[:2]
        return name, float(total.removesuffix(" MiB")) * 2**20
    return f"{here['processors']} processors", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


# compute


def hardware(here: Mapping[str, Any]) -> list[Any]:
    """What two environments must share for their speeds to be compared: not the driver's version."""
    return [[gpu.rpartition(",")[0] for gpu in here["gpus"]], here["processors"], here.get("processes", 1)]


def relevant(config: Mapping[str, Any], stage: str) -> list[Any]:
    """The part of a run's configuration that the speed of a stage depends on."""
    for resource in RESOURCES.values():
        if resource.stage == stage:
            return [config[group] for group in resource.groups]
    model, selector, trainer = (config[group] for group in ("model", "selector", "trainer"))
    return {
        "model": [model],
        "train": [model, [trainer.get(name) for name in SPEED], config.get("engine")],
        "generate": [model, selector.get("max_new_tokens")],
        "scoring": [model, selector.get("feedback")],
        "evaluate": [model, config["evaluator"]],
    }[stage]


def observed(record: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """(stage, units, seconds) of all that a finished run computed. A training's units are its tokens, in all passes."""
    trainings = {
        "train": iter([r["training"] for r in record["rounds"] if r.get("training")]),
        "warm up": iter([w["training"] for w in record.get("warmups", [])]),
    }
    trainer = record["config"]["trainer"]
    for stage in record["stages"]:
        name, units = stage["name"], stage.get("items") or 1
        outcome = next(trainings[name], None) if name in trainings else None
        if stage.get("cached") or (name in trainings and outcome is None):
            continue
        if name == "score" and units != record["pool"]["examples"]:  # a feedback scores as well
            continue
        if outcome is not None:
            units = outcome["tokens"] * outcome["steps"] / steps(trainer, outcome["examples"], outcome["tokens"], 1)
        yield {"feedback": "scoring", "ifd": "scoring", "warm up": "train"}.get(name, name), units, stage["seconds"]


def pace(
    records: Records,
    config: Mapping[str, Any],
    stage: str,
    shares: Callable[[str, float, int], int] = lambda stage, units, workers: workers,
) -> Pace | None:
    """The median seconds a unit of a stage in the runs that share what is `relevant` to it.

    They are a worker's: a map by eight that took a second took each of them a second. shares: as `sharing`.
    """
    same = [record for record in records if relevant(record["config"], stage) == relevant(config, stage)]
    found = []
    for record in same:
        workers = workers_of(record["config"], record["environment"]) if stage in MAPS else 1
        if workers is not None:
            took = [(units, seconds) for name, units, seconds in observed(record) if name == stage]
            found += [shares(stage, units, workers) * seconds / units for units, seconds in took]
    return Pace(statistics.median(found), f"{len(found)} measured") if found else None


# show


def show(plan: Plan, console: Console | None = None) -> None:
    """Print what would run, what of it is cached, its time and memory, and what the estimates are from."""
    n, tokens = len(plan.pool), plan.tokens
    rows: list[tuple[str, ...] | None] = []
    rows.append(("pool", f"{plan.pool.name}: {n:,} examples, {sum(plan.pool.skipped.values()):,} rows skipped"))
    rows.append(("budget", f"{plan.budget:,} examples ({plan.budget / n:.1%})"))
    if tokens is not None:
        rows.append(("tokens", f"{tokens.mean:.1f} ± {tokens.error:.1f} an example, up to {tokens.most:,}", tokens.how))
    rows.append(None)
    for task in plan.tasks:
        rows.append((task.name, task.what, timing(task)))
    seconds = [task.seconds for task in plan.tasks]
    total, unknown = sum(s or 0 for s in seconds), None in seconds
    if total or not unknown:
        hours = f", {total * plan.gpus / 3600:.2g} GPU hours" if plan.gpus else ""
        text = ("at least " if unknown else "") + duration(total) + hours
        rows.append(("time", text, "by what finished runs on this hardware took, where they measured it"))
    else:
        rows.append(("time", "not known: no finished run on this hardware has measured any of it"))
    rows.append(None)
    if isinstance(plan.memory, str):
        rows.append(("memory", f"not known: {plan.memory}"))
    elif plan.memory:
        parts = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in plan.memory.items())
        workers, strategy = plan.shared
        of_all = "" if plan.gpus or workers == 1 else ", for all of them"
        there = f"{plan.place[1] / 1e9:.0f} GB are there ({plan.place[0]}{of_all})"
        where = "" if strategy == "single" else f" on each of {workers} devices ({strategy})"
        whole = f"{sum(plan.memory.values()) / 1e9:.3g} GB in training{where}: {parts}"
        rows.append(("memory", whole, f"by formula; {there}"))
        if plan.others:
            under = ", ".join(f"{name} {size / 1e9:.3g} GB" for name, size in plan.others.items())
            rows.append(("", f"a device under the other strategies: {under}", "trainer.strategy"))
    console = console or to_terminal()
    show_table(Table(rows, title="what would run"), console)
    if plan.larger is not None:
        show_table(table(plan.larger), console)


def timing(task: Task) -> str:
    """How long a task takes, and how that is known."""
    if task.cached or task.pace is None:
        return "cached" if task.cached else "to do, not measured yet"
    seconds, pace = task.seconds or 0.0, task.pace
    rate = f"{task.units / seconds:,.4g} a second, " if task.units > 1 and seconds else ""
    workers = f" on {task.workers} workers" if task.workers > 1 else ""
    return f"{duration(seconds)}{workers} ({rate}{pace.how})"
