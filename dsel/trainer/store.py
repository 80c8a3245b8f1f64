"""The trainings of a run: each is known by all that the model has learnt, and kept in a folder of the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dsel.cache import Cache, Lease, found
from dsel.component import identity
from dsel.model.causal_lm import CausalLM
from dsel.pool import Pool
from dsel.spent import Spent, counted, keep, kept
from dsel.trainer.base import Training
from dsel.trainer.checkpoints import CHECKPOINTS, MOMENTS, moments, seconds_before, why_without_moments
from dsel.trainer.job import Job, outcome_of
from dsel.trainer.sft import SFT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """One finetuning: the examples, how, what came before it, and how many steps that took."""

    pool: Pool
    trainer: SFT
    training: Training
    before: Fit | None
    steps: int

    @property
    def history(self) -> list[dict[str, Any]]:
        """All that the model has learnt, in order: with the base model and the seed, what it is known by."""
        own = {"trainer": identity(self.trainer), "examples": self.pool.fingerprint, "part": list(self.training.part)}
        return [*([] if self.before is None else self.before.history), own]


class Trainings:
    """Has done what is not in the cache yet, and keeps it there until `forget`: a killed run does not train again.

    last: the newest one, None before any. train: an engine's, or what else does a job and fills the folder.
    """

    def __init__(
        self, model: CausalLM, trainer: SFT, cache: Cache, *, seed: int, train: Callable[[Job, Pool, Path], None]
    ):
        self.last: Fit | None = None
        self._model, self._trainer, self._cache, self._seed, self._train = model, trainer, cache, seed, train
        self._leases: dict[Path, Lease] = {}
        self._steps = 0  # of all fits before this one

    def fit(self, pool: Pool, training: Training) -> dict[str, float]:
        """Train, or find that it has been done: what the trainer reports, and `cached` where it was found."""
        trainer = self._trainer if training.epochs is None else replace(self._trainer, epochs=training.epochs)
        fit = Fit(pool, trainer, training, None if training.restart else self.last, self._steps)
        folder = self._cache.path("fits", self.key(fit))
        if folder not in self._leases:
            self._leases[folder] = Lease(folder)
        known = self._cache.fetch("fits", self.key(fit))
        self.folder(fit)
        self.last = fit
        if training.part[0] > 1:  # twice the model's size, and used up
            self._leases[self._cache.path("fits", self.key(fit.before))].drop(MOMENTS)
        outcome = outcome_of(folder)
        self._steps += int(outcome["steps"])
        if known:
            log.info("training: reused what an interrupted run had learnt (%s)", folder.name)
            outcome["cached"] = 1.0
        return outcome

    def key(self, fit: Fit | None) -> dict[str, Any]:
        """What the model after `fit` is known by."""
        known = {"model": identity(self._model)}
        return known if fit is None else {**known, "seed": self._seed, "history": fit.history}

    def job(self, fit: Fit) -> Job:
        """`fit` as plain data."""
        start = None if fit.before is None else str(self._cache.path("fits", self.key(fit.before)))
        return Job(
            self._model,
            fit.trainer,
            fit.pool.fingerprint,
            self._seed,
            start,
            fit.training.part,
            fit.steps,
            fit.training.moments,
        )

    def folder(self, fit: Fit, needs: Sequence[str] = ()) -> Path:
        """Where the weights of `fit`, and the files it `needs`, are: trained now, unless they are there."""
        key, build = self.key(fit), partial(self._build, fit)
        folder = self._cache.path("fits", key)
        if needs and found(folder) and not self._cache.fetch("fits", key, needs):
            log.warning("training: %s is done again, %s", folder.name, why_without_moments(folder))
        return self._cache.artifact("fits", key, build, needs=needs)[0]

    def _build(self, fit: Fit, folder: Path) -> None:
        if fit.before is not None:
            self.folder(fit.before, needs=(MOMENTS,) if fit.training.part[0] > 1 else ())
        before = seconds_before(folder / CHECKPOINTS)
        with counted() as spent:
            self._train(self.job(fit), fit.pool, folder)
        outcome = outcome_of(folder)
        spent.seconds += before
        spent.add(outcome.get("flops"), int(outcome.get("tokens_in_all", 0)))
        keep(spent, folder)

    def moments(self, fit: Fit) -> dict[str, dict[str, Any]]:
        """What the optimizer held of each trained parameter after `fit`, by name; trained again where it is gone."""
        return moments(self.folder(fit, needs=(MOMENTS,)))

    @property
    def account(self) -> tuple[str, Spent | None]:
        """What the last one is called in the cache and what it has cost, whoever did it; None where nobody knows."""
        assert self.last is not None
        folder = self.folder(self.last)
        return f"fits/{folder.name}", kept(folder)

    @property
    def names(self) -> list[str]:
        """The folders under `fits` that `forget` removes."""
        return [folder.name for folder in self._leases]

    def forget(self) -> None:
        """Drop the trained weights from the cache, but those another run uses: the run that needed them is complete."""
        for folder, lease in self._leases.items():
            if lease.remove():
                self._cache.withdraw("fits", folder.name)
        self._leases.clear()
