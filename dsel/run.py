"""python -m dsel.run: compose a configuration, run the experiment it describes, show what came out.

This module stays light: `--help` and every complaint about a configuration come before anything heavy loads.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dsel import config_groups, sweep, usage
from dsel.config_groups import GROUPS
from dsel.configured import component, need_names, settings
from dsel.distributed import refuse_launcher, tell_libraries
from dsel.ending import in_one_line
from dsel.errors import ConfigError, world
from dsel.explain import one_line
from dsel.interrupt import ending, heed, told, wait_for_logging
from dsel.leftovers import discard, no_empty_sweep
from dsel.overrides import multirun_first, readable
from dsel.references import refuse, refuse_overrides
from dsel.remote_runs import Runs, here
from dsel.secrets import cover
from dsel.verbosity import without_flags

if TYPE_CHECKING:
    from dsel.experiment import Experiment

log = logging.getLogger("dsel.run")  # also where it is run as __main__


config_groups.register()
_names: dict[Any, str] = {}


def unique(job: Any) -> str:
    """Eight random digits, the same whenever this process asks for the same job: run folders never collide."""
    return _names.setdefault(job, os.urandom(4).hex())


OmegaConf.register_new_resolver("dsel.unique", unique, replace=True)
OmegaConf.register_new_resolver("dsel.here", here, replace=True)


def job(config: DictConfig) -> float | None:
    """One run; Hydra calls this once for each job of a multirun, and its sweepers may use what it returns.

    A launcher may do so in another process, which finds it by its name.
    """
    prepare()
    sweep.begin()
    try:
        with ending():
            heed()
            return _run(config)
    except Exception as error:
        known = one_line(error) if isinstance(error, ConfigError) else world(error)
        several = HydraConfig.get().mode == RunMode.MULTIRUN
        if several:
            log.error("this run failed: %s", known or one_line(error), exc_info=known is None)
            sweep.failed(_runs(config).folder, _asked(), known or one_line(error))
        if isinstance(error, ConfigError):
            _leave_nothing(config)
        if not several:
            if known is None:
                raise
            sys.stderr.write(f"dsel: {known}\n")
            sys.exit(2)
        return float("nan")  # the other jobs go on; the end of the sweep lists this one


run = hydra.main(version_base="1.3", config_path=None, config_name="config")(job)


def described(config: DictConfig) -> Experiment:
    """The experiment that a configuration describes.

    Raises:
        ConfigError: something in it is not what it may be, or is known to fail, before anything heavy loads.
    """
    given = settings(config)
    components = {group: component(config, group) for group in GROUPS}
    from dsel import cache
    from dsel.experiment import Experiment

    kept = cache.at(given.cache, given.scratch)
    experiment = Experiment(**components, budget=given.budget, seed=given.seed, cache=kept)
    experiment.check()
    return experiment


def _run(config: DictConfig) -> float | None:
    _refuse_secrets(config)
    from dsel.data.base import removes
    from dsel.record.reader import RunFolder

    experiment = described(config)
    components = {group: getattr(experiment, group) for group in GROUPS}
    job, runs = HydraConfig.get(), _runs(config)
    folder = Path(job.runtime.output_dir)
    removed = removes(experiment.data)
    key = sweep.run_key(components, {"budget": config.budget, "seed": config.seed, **removed})
    if config.plan:
        from dsel import plan

        plan.show(plan.plan(experiment, OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
        discard(folder, runs.folder)
        return None
    runs.check()
    if job.mode != RunMode.MULTIRUN:
        return _alone(config, experiment, key, folder, runs)
    with sweep.alone(runs.folder, key):
        there = not config.rerun and runs.fetch(key)
        earlier = None if config.rerun else sweep.finished(runs.folder, key)
        if earlier is not None:
            log.info("finished before, not run again (rerun=true would): %s", earlier)
            shutil.rmtree(folder, ignore_errors=True)
            sweep.tidy(runs.folder, key, experiment.cache)
            if not there:
                runs.finish(earlier, key)
        figure = _alone(config, experiment, key, folder, runs) if earlier is None else RunFolder.read(earlier).objective
        sweep.ended(runs.folder, earlier or folder)
        return figure


def _runs(config: DictConfig) -> Runs:
    return Runs(str(config.runs), str(config.scratch))


def _alone(config: DictConfig, experiment: Experiment, key: str, folder: Path, runs: Runs) -> float | None:
    """The run itself; in a sweep, the only one of its key at this time."""
    from dsel.record.facts import objective
    from dsel.record.reader import NAME, RunFolder
    from dsel.record.writer import Record

    job = HydraConfig.get()
    with open_dict(config):
        config.pop("report", None)  # what an experiment's tables show has no part in a run
    record = Record(
        folder,
        OmegaConf.to_container(config, resolve=True),  # type: ignore[arg-type]
        {str(group): choice for group, choice in job.runtime.choices.items() if not str(group).startswith("hydra")},
        keep=partial(runs.keep, folder),
    )
    record.facts |= {"key": key, "overrides": _asked()}
    if job.mode == RunMode.MULTIRUN:
        record.facts["sweep"] = os.environ[sweep.SWEEP]
    try:
        learner = experiment.run(record)
    except BaseException as error:
        if isinstance(error, ConfigError) and not record.begun:  # refused: `run` removes what has no record
            (folder / NAME).unlink(missing_ok=True)
            raise
        status = "interrupted" if told() or isinstance(error, KeyboardInterrupt) else "failed"
        for step in (partial(record.finish, status, error=world(error) or one_line(error)), experiment.tracker.fail):
            try:
                step()
            except Exception as second:  # it shall not bury the first
                log.warning("this failure could not be noted: %s", world(second) or one_line(second))
        raise
    weights = [] if learner is None else learner.trainings.names
    sweep.remember(runs.folder, key, folder, weights)
    record.finish("finished")
    runs.finish(folder, key)
    from dsel.summary import show

    show(RunFolder(record.facts, str(folder / NAME), folder))
    if learner is not None:
        learner.forget()
    return objective(record.facts)


def _asked() -> list[str]:
    """The overrides of this job as they were typed: what refers to a variable still does."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # type: ignore[return-value]


def _leave_nothing(config: DictConfig) -> None:
    """Remove the folder of a run that was refused before it began."""
    from dsel.record.reader import NAME

    folder = Path(HydraConfig.get().runtime.output_dir)
    if not (folder / NAME).exists():
        discard(folder, _runs(config).folder)


def _refuse_secrets(config: DictConfig) -> None:
    """`refuse`, also for the job of a sweep, of which Hydra has written a copy by now: that goes."""
    try:
        refuse(config)
    except ConfigError:
        job = HydraConfig.get()
        shutil.rmtree(Path(job.runtime.output_dir) / str(job.output_subdir), ignore_errors=True)
        raise


def prepare() -> None:
    """Set up this process: as often as one likes."""
    tell_libraries()
    logging.raiseExceptions = False  # a log that cannot be written (a full disk) is no reason for a traceback a line
    warnings.simplefilter("ignore", FutureWarning)  # between libraries, about each other
    cover()
    wait_for_logging()


def main() -> None:
    """The entry point: anything wrong with what was asked for ends in one line and exit code 2."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        usage.say(usage.run_screen())
        return
    if "--version" in sys.argv[1:]:
        usage.say([usage.version()])
        return
    prepare()
    sweep.begin()
    with in_one_line():
        refuse_launcher()
        sys.argv[1:] = multirun_first(map(readable, without_flags(sys.argv[1:])))
        refuse_overrides(sys.argv[1:])
        need_names(sys.argv[1:])
        with no_empty_sweep():
            run()
            heed()
        if sweep.End.finished:
            sweep.show_finished(sweep.End.finished)
        if sweep.End.failures:
            sweep.show_failures(sweep.End.failures)
            sys.exit(1)


if __name__ == "__main__":
    from dsel import run as found  # by its name, for launchers that send a job to other processes

    found.main()
