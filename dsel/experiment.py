"""One experiment, from pool to record. This is the only file that knows the order of the stages."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dsel.cache import Cache
from dsel.clusterer.base import Clusterer, sized
from dsel.clusterer.base import cost as clustering_cost
from dsel.computed import note_computed, note_map
from dsel.constraints import Seed, check_types
from dsel.cost import Cost, warnings
from dsel.data.base import Data, removes
from dsel.decontaminate import Contamination, looked, told
from dsel.embedder.base import Embedder
from dsel.engine.base import Engine
from dsel.errors import need
from dsel.evaluator.base import Evaluator, need_metrics
from dsel.hub import need_models
from dsel.model.causal_lm import CausalLM
from dsel.pool import Pool, resolve_budget
from dsel.record.writer import Record
from dsel.resources import NO_TARGETS, RESOURCES, closure, makers, need_known
from dsel.scorer.base import Scorer
from dsel.selector.base import Choose, Selection, Selector, Train
from dsel.spent import counted
from dsel.stage import unrecorded
from dsel.study import Notes, Stages, Study, unnoted
from dsel.targets.base import Targets
from dsel.targets.none import NoTargets
from dsel.tracker.base import Tracker
from dsel.trainer.base import Trainer

if TYPE_CHECKING:
    from dsel.learner import Learner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """A pool without what is held out, those examples, and the pool as a selector is given it.

    contamination: what was taken out of the pool as it is evaluated on, where that is wanted.
    """

    pool: Pool
    heldout: Pool
    study: Study
    contamination: Contamination | None = None


@dataclass
class Experiment:
    """The components of a run, one from each config group, and its top-level settings."""

    data: Data
    targets: Targets
    embedder: Embedder
    clusterer: Clusterer
    scorer: Scorer
    selector: Selector
    model: CausalLM
    trainer: Trainer
    evaluator: Evaluator
    tracker: Tracker
    engine: Engine
    budget: float
    seed: Seed
    cache: Cache

    def check(self) -> None:
        """Raise `ConfigError` for what can be known to fail, before anything heavy loads."""
        check_types(self)
        need_known(self.selector.needs, f"{type(self.selector).__name__}.needs")
        need_metrics(self.evaluator)
        resolve_budget(self.budget, n=2**63)
        others = (self.trainer, self.evaluator, self.tracker, self.engine)
        for component in (self.data, self.targets, self.selector, *others):
            component.check()
        for group in makers(self.selector.needs):
            getattr(self, group).check()
        if "model" in self.selector.needs:
            need(self.trainer.trains, "this selector looks at the model in training: trainer=none has none to show")
        if getattr(self.evaluator, "wants_heldout", False):
            words = "set data.holdout to a fraction or a count of examples that are kept out of the pool"
            need(self.data.holdout > 0, f"{type(self.evaluator).__name__} measures on held-out examples: {words}")
        if "targets" in makers(self.selector.needs):
            need(not isinstance(self.targets, NoTargets), NO_TARGETS)
        if self.trainer.trains or self.evaluator.evaluates:
            self.model.check()
        self.cache.check()

    def problem(self, stage: Stages = unrecorded, note: Notes = unnoted) -> Problem:
        """The pool as it is chosen from, read now.

        Args:
            stage: Opens a timed stage of the run's record.
            note: Adds rows to one of the record's tables.

        Raises:
            ConfigError: when the budget, or what the selector's resources are made with, does not suit the pool.
        """
        with stage("data") as reading:
            whole = self.data.load(self.cache)
            rest, target = self.targets.take(whole, self.cache)
            pool, heldout = rest.hold_out(self.data.holdout)
            reading.items, reading.cached = len(pool), whole.found
        contamination = None
        if removes(self.data):
            contamination = looked(self.data, target, self.evaluator, pool, heldout, self.cache, stage)
            assert contamination is not None
            need(len(contamination.left) > 0, "data.decontaminate=remove: nothing of the pool is left")
            pool = pool.take(contamination.left)
        if self.budget == 1 and isinstance(self.budget, int):
            log.warning(
                "budget=1 means all of the pool (%d examples): numbers up to 1 are fractions of it, and counts begin "
                "at 2; budget=1.0 means the same without this line",
                len(pool),
            )
        study = Study(
            pool=pool.blind(),
            budget=resolve_budget(self.budget, len(pool)),
            rng=np.random.default_rng(self.seed),
            embedder=self.embedder,
            clusterer=self.clusterer,
            scorer=self.scorer,
            targets=self.targets,
            target=target,
            cache=self.cache,
            stage=stage,
            note=note,
            verify=pool.verifier,
            engine=self.engine,
        )
        for name in closure(self.selector.needs):
            RESOURCES[name].check(study)
        return Problem(pool, heldout, study, contamination)

    def choose(self, problem: Problem) -> list[Selection]:
        """What the selector chooses where nothing is trained, round by round: for who wants no more than the subset.

        Raises:
            ConfigError: when something that it reads with cannot be had.
        """
        need_models(self.selector, "selector")
        self._try(problem.study)
        self._need_readers(problem.study)
        self._warn(problem.study)
        steps = self.selector.steps(problem.study, None)  # type: ignore[arg-type]  # as in `run`, without a model
        return [step.selection for step in steps if isinstance(step, Choose)]

    def run(self, record: Record) -> Learner | None:
        """Choose, finetune, evaluate; `record` has it all. Checks the budget and k against the pool first.

        Returns what holds the trained weights, to be told to `forget` them when the record says that the run has
        finished: a run killed before that does not train again.
        """
        self._need_models()
        problem = self.problem(record.stage, record.note)
        pool, study = problem.pool, problem.study
        log.info("pool: %d usable examples, %d rows skipped", len(pool), sum(pool.skipped.values()))
        record.pool(pool, study.budget)
        if study.target is not None:
            record.targets({"examples": len(study.target), "tasks": dict(Counter(study.target.tasks).most_common())})
        self._need_readers(study)
        self._warn(study)
        record.begun = True
        learner = self._learner(record)
        if learner is not None and self.trainer.trains:
            learner.try_on(pool, self.selector.probes)
        self._try(study)
        contamination = problem.contamination or looked(
            self.data, study.target, self.evaluator, pool, problem.heldout, self.cache, record.stage
        )
        self.tracker.start(record.folder, record.facts)
        steps = self.selector.steps(study, learner)  # type: ignore[arg-type]  # None for those that do not look at it
        while True:
            with record.stage("select") as stage, counted() as stage.spent:
                step = next(steps, None)  # what the selector computes up to its next step, and no more
                if not record.facts["rounds"] and isinstance(step, Choose):  # its products, once, and at most so many
                    stage.spent.add(self.cost(study).operations or None)
            if step is None:
                break
            if isinstance(step, Choose):
                record.round(step.selection, pool)
                log.info("chosen: %d of %d examples", len(step.selection.indices), len(pool))
                if contamination is not None:
                    record.contamination(told(contamination.facts(record.chosen)))
                note_computed(record, study.computed, pool, low_quality=self.clusterer.low_quality)
            if learner is not None and self.trainer.trains:
                warmup = isinstance(step, Train)
                if step.training.restart:
                    record.discard_trainings()
                with record.stage("warm up" if warmup else "train") as stage:
                    outcome = learner.fit(study.pool.take(step.examples), step.training)
                    stage.items, stage.cached = int(outcome["examples"]), "cached" in outcome
                    stage.artifact, stage.spent = learner.account
                record.training(outcome, warmup=warmup)
        note_map(record, study.computed, pool)

        if learner is not None and self.evaluator.evaluates:
            with record.stage("evaluate"):
                metrics = self.evaluator.evaluate(learner, pool, problem.heldout, self.cache, record.folder)
            need_metrics(self.evaluator, metrics)
            record.metrics(metrics)
        if learner is not None and self.trainer.trains and self.trainer.save:
            with record.stage("save"):
                learner.write(record.folder / "model", merge=self.trainer.merge)
        record.tracked(self.tracker.finish(record.folder, record.facts))
        return learner

    def _try(self, study: Study) -> None:
        """Raise `ConfigError` for an example that what reads the pool cannot read, before anything costly."""
        for name in closure(self.selector.needs):
            RESOURCES[name].trial(study)

    def costs(self, n: int, d: int) -> dict[str, Cost]:
        """What choosing from n examples of d dimensions takes once the other resources are there. Computes nothing.

        Returns:
            `selection`, and before it `clustering` where the selector asks for clusters.
        """
        budget = resolve_budget(self.budget, n)
        clusterer, own = sized(self.clusterer, n), self.selector.clusters(budget)
        if own is not None:
            clusterer = replace(clusterer, k=own)
        found = {}
        if own is not None or "clustering" in closure(self.selector.needs):
            found["clustering"] = clustering_cost(clusterer, n, d)
        k = getattr(clusterer, "k", None)
        found["selection"] = self.selector.cost(n, d, budget, k if isinstance(k, int) else round(math.sqrt(n)))
        return found

    def cost(self, study: Study) -> Cost:
        """Of `costs`, what choosing itself takes."""
        return self.costs(len(study.pool), study.dimensions)["selection"]

    def is_clustered(self, study: Study) -> bool:
        """Whether the cache has the clusters that the selector asks for."""
        own = self.selector.clusters(study.budget)
        return (study if own is None else study.in_clusters(own)).is_cached("clustering")

    def _need_models(self) -> None:
        """Raise `ConfigError` for a model or a task that cannot be had, before anything is paid for."""
        need_models(self.selector, "selector")  # its feedback may read with one
        if self.trainer.trains or self.evaluator.evaluates:
            need_models(self.model, "model")
        self.evaluator.need_tasks(self.cache)

    def _need_readers(self, study: Study) -> None:
        """The same for what reads the pool, where the cache has not what it would find."""
        missing = [name for name in closure(self.selector.needs) if not study.is_cached(name)]
        asked = [group for group in makers() if group in self.selector.needs]  # by the selector itself
        for group in dict.fromkeys([*asked, *(group for name in missing for group in RESOURCES[name].groups)]):
            need_models(getattr(self, group), group)
            if hasattr(getattr(self, group), "prepare"):
                getattr(self, group).prepare(self.cache)

    def _warn(self, study: Study) -> None:
        for name, cost in self.costs(len(study.pool), study.dimensions).items():
            if name == "clustering" and self.is_clustered(study):
                continue
            for line in warnings(f"the {name}", cost):
                log.warning("%s", line)

    def _learner(self, record: Record) -> Learner | None:
        """The model in training, or None for a run that needs none."""
        if not (self.trainer.trains or self.evaluator.evaluates):
            return None
        from dsel.learner import Learner

        with record.stage("model") as stage:
            stage.cached = self.model.prepare(self.cache)
        report, engine = self.tracker.log, self.engine
        return Learner(self.model, self.trainer, self.cache, seed=self.seed, report=report, engine=engine)
