"""One experiment, from pool to record. This is the only file that knows the order of the stages."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsel.cache import Cache
from dsel.computed import note_computed, note_map
from dsel.constraints import Seed, check_types
from dsel.errors import need
from dsel.hub import need_models
from dsel.pool import resolve_budget
from dsel.record.writer import Record
from dsel.selector.base import Choose, Selector, Train
from dsel.study import Study

log = logging.getLogger(__name__)


@dataclass
class Experiment:
    """The components of a run, one from each config group, and its top-level settings."""

    data: Any
    embedder: Any
    clusterer: Any
    scorer: Any
    selector: Selector
    model: Any
    trainer: Any
    evaluator: Any
    tracker: Any
    budget: float
    seed: Seed
    cache: Cache

    def check(self) -> None:
        """Raise `ConfigError` for what can be known to fail, before anything heavy loads."""
        check_types(self)
        resolve_budget(self.budget, n=2**63)
        for component in (self.data, self.selector, self.trainer, self.evaluator, self.tracker):
            component.check()
        if self.selector.needs & {"embeddings", "clustering"}:
            self.embedder.check()
        if "clustering" in self.selector.needs:
            self.clusterer.check()
        if "quality" in self.selector.needs:
            self.scorer.check()
        if "model" in self.selector.needs:
            need(self.trainer.trains, "this selector looks at the model in training: trainer=none has none to show")
        if self.trainer.trains or self.evaluator.evaluates:
            self.model.check()

    def run(self, record: Record) -> Any:
        """Choose, finetune, evaluate; `record` has it all. Checks the budget and k against the pool first.

        Returns what holds the trained weights, to be told to `forget` them when the record says that the run has
        finished: a run killed before that does not train again.
        """
        self._need_models()
        with record.stage("data") as stage:
            pool = self.data.load()
            pool, heldout = pool.hold_out(self.data.holdout)
            stage.items = len(pool)
        budget = resolve_budget(self.budget, len(pool))
        if "clustering" in self.selector.needs:
            self.clusterer.check_size(len(pool))
        log.info("pool: %d usable examples, %d rows skipped", len(pool), sum(pool.skipped.values()))
        record.pool(pool, budget)
        learner = self._learner(record)
        if self.trainer.trains:
            learner.try_on(pool, self.selector.probes)
        if "quality" in self.selector.needs:
            self.scorer.try_on(pool)
        self.tracker.start(record.folder, record.facts)

        study = Study(
            pool=pool.blind(),
            budget=budget,
            rng=np.random.default_rng(self.seed),
            embedder=self.embedder,
            clusterer=self.clusterer,
            scorer=self.scorer,
            cache=self.cache,
            stage=record.stage,
            note=record.note,
            verify=pool.verifier,
        )
        self._need_readers(study)
        steps = self.selector.steps(study, learner)
        while True:
            with record.stage("select"):  # what the selector computes up to its next step, and no more
                step = next(steps, None)
            if step is None:
                break
            if isinstance(step, Choose):
                record.round(step.selection, pool)
                log.info("chosen: %d of %d examples", len(step.selection.indices), len(pool))
                note_computed(record, vars(study), pool, low_quality=self.clusterer.low_quality)
            if self.trainer.trains:
                warmup = isinstance(step, Train)
                with record.stage("warm up" if warmup else "train") as stage:
                    outcome = learner.fit(study.pool.take(step.examples), step.training)
                    stage.items, stage.cached = int(outcome["examples"]), "cached" in outcome
                record.training(outcome, warmup=warmup)
        note_map(record, vars(study))

        if self.evaluator.evaluates:
            with record.stage("evaluate"):
                metrics = self.evaluator.evaluate(learner, pool, heldout, self.cache, record.folder)
            record.metrics(metrics)
        if self.trainer.trains and self.trainer.save:
            with record.stage("save"):
                learner.write(record.folder / "model", merge=self.trainer.merge)
        record.tracked(self.tracker.finish(record.folder, record.facts))
        return learner

    def _need_models(self) -> None:
        """Raise `ConfigError` for a model or a task that cannot be had, before anything is paid for."""
        need_models(self.selector, "selector")  # its feedback may read with one
        if self.trainer.trains or self.evaluator.evaluates:
            need_models(self.model, "model")
        if hasattr(self.evaluator, "need_tasks"):
            self.evaluator.need_tasks(self.cache)

    def _need_readers(self, study: Study) -> None:
        """The same for what reads the pool, where the cache has not what it would find."""
        read = self.selector.needs & {"embeddings", "clustering", "quality"}
        missing = {name for name in read if not study.is_cached(name)}
        if missing & {"embeddings", "clustering"} and not study.is_cached("embeddings"):
            need_models(self.embedder, "embedder")
        if "quality" in missing:
            need_models(self.scorer, "scorer")

    def _learner(self, record: Record) -> Any:
        """The model in training, or None for a run that needs none."""
        if not (self.trainer.trains or self.evaluator.evaluates):
            return None
        from dsel.learner import Learner

        with record.stage("model") as stage:
            stage.cached = self.model.prepare(self.cache)
        return Learner(self.model, self.trainer, self.cache, seed=self.seed, report=self.tracker.log)
