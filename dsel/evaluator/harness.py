"""lm-evaluation-harness, in this process; what it asks the model is answered by the workers of the engine."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from dsel.cache import Cache
from dsel.component import knob
from dsel.constraints import Count, Seed, Text
from dsel.errors import ConfigError, need
from dsel.evaluator.base import Asked, Metric, Subject, average
from dsel.evaluator.requests import By, asking
from dsel.evaluator.sandbox import in_place_of_code_eval
from dsel.evaluator.units import unit_of
from dsel.files import finite, write_json
from dsel.hub import reason
from dsel.model.vllm_here import need_vllm
from dsel.pool import Pool
from dsel.tasks import TASKS as TASKS
from dsel.tasks import index_of_tasks, texts_of_task

log = logging.getLogger(__name__)

KEPT = ("results", "groups", "n-shot", "n-samples", "versions")  # of the harness's results, in evaluation.json


class _Measured(TypedDict):
    shots: int
    metric: Text


class Task(_Measured, total=False):
    """What is said of a task: see `Harness`."""

    chat_template: bool
    limit: Count | None
    multiturn: bool
    unsafe: bool


@dataclass
class Harness:
    """Tasks of lm-evaluation-harness, its own and those in `dsel/evaluator/tasks`.

    tasks: name → {shots, metric}, with `metric` as the harness names it (`acc,none`), and optionally
      chat_template, limit: of this task, in place of the evaluator's;
      multiturn: with a chat template, each shot is a turn of its own (true, the default) or all are in one message;
      unsafe: true for tasks that run code the model wrote: they are left out, with a line in the log, unless
      `allow_code_execution` is set.
    limit: examples a task, of a group's tasks each (null: all). chat_template: wrap prompts in it. engine: what asks
    the model: transformers, or vLLM from the saved weights.

    Answers are generated as the task says; of the model's own generation settings only the end tokens count.
    """

    tasks: Mapping[Text, Task] = field(default_factory=dict)
    limit: Count | None = None
    chat_template: bool = False
    allow_code_execution: bool = False
    seed: Seed = 1234
    batch_size: Count = knob(16)
    engine: By = "transformers"

    evaluates = True
    uses_builtin_tasks: ClassVar[bool] = True  # reading the harness's own thousands of task files takes seconds

    def check(self) -> None:
        need(bool(self.tasks), "evaluator.tasks is empty: name tasks, or choose evaluator=none")
        if self.engine == "vllm":
            need_vllm("evaluator.engine=vllm", 1)

    def evaluate(self, learner: Subject, pool: Pool, heldout: Pool, cache: Cache, folder: Path) -> dict[str, Metric]:
        """A metric for each task and their average; the harness's full results go to `folder/evaluation.json`."""
        import lm_eval

        manager = self._manager(cache)
        lm = asking(learner, batch_size=self.batch_size, seed=self.seed, folder=folder, by=self.engine)
        metrics: dict[str, Metric] = {}
        full: dict[str, Any] = {}
        for name, spec in self.asked.items():
            log.info("evaluating %s (%d-shot)", name, spec["shots"])
            confined = in_place_of_code_eval() if spec.get("unsafe") else nullcontext()
            with confined, _git_unasked():
                results = lm_eval.simple_evaluate(
                    model=lm,
                    tasks=[name],
                    num_fewshot=spec["shots"],
                    limit=spec.get("limit", self.limit),
                    apply_chat_template=bool(spec.get("chat_template", self.chat_template)),
                    fewshot_as_multiturn=bool(spec.get("multiturn", True)),
                    task_manager=manager,
                    log_samples=False,
                    bootstrap_iters=1000,
                    random_seed=self.seed,
                    numpy_random_seed=self.seed,
                    torch_random_seed=self.seed,
                    fewshot_random_seed=self.seed,
                    confirm_run_unsafe_code=bool(spec.get("unsafe")),
                )
            full[name] = {k: results[k] for k in KEPT if k in results}
            write_json(folder / "evaluation.json", finite(full))
            metrics.update(self.read(name, spec, results))
        return self.average(metrics)

    @property
    def asked(self) -> dict[str, Mapping[str, Any]]:
        """The tasks, without those that run the model's code where that is not allowed."""
        return {n: s for n, s in self.tasks.items() if self.allow_code_execution or not s.get("unsafe")}

    def need_tasks(self, cache: Cache) -> None:
        """Raise `ConfigError` for a task that there is not, or whose data cannot be had: before anything is trained."""
        if not self.uses_builtin_tasks:
            return  # what they read is here
        from huggingface_hub import constants

        if unsafe := [name for name in self.tasks if name not in self.asked]:
            log.warning(
                "left out %s: it runs code written by the model on this machine; "
                "evaluator.allow_code_execution=true runs it, best inside a container",
                ", ".join(unsafe),
            )
        manager = self._manager(cache)
        for name, spec in self.asked.items():
            if name not in manager.all_tasks:
                near = difflib.get_close_matches(name, manager.all_tasks, n=3)
                like = f" (there are {', '.join(near)})" if near else ""
                raise ConfigError(f"evaluator.tasks.{name}: lm-evaluation-harness has no such task{like}")
            try:
                with in_place_of_code_eval() if spec.get("unsafe") else nullcontext():
                    manager.load([name])
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"evaluator.tasks.{name}: it needs a package that is not here ({reason(error)}): pip install "
                    "'dsel[eval]', or leave the task out"
                ) from error
            except Exception as error:  # each task loads its data and metrics in its own way
                raise ConfigError(
                    f"evaluator.tasks.{name}: what it needs cannot be had ({reason(error)}); fetch it once where there "
                    f"is a network and copy that hub cache here (HF_HOME={constants.HF_HOME}), or leave the task out"
                ) from error

    def texts(self, heldout: Pool, cache: Cache) -> Asked:
        """What its tasks ask of all their documents, of the tasks whose data are on this machine."""
        texts, missing = dict[str, str](), list[str]()
        for name, spec in self.asked.items():
            with in_place_of_code_eval() if spec.get("unsafe") else nullcontext():
                found = texts_of_task(name, lambda: self._manager(cache), cache)
            texts |= found or {}
            missing += [] if found else [name]
        return Asked(texts, missing)

    def _manager(self, cache: Cache) -> Any:
        return index_of_tasks(tuple(str(p) for p in self.task_folders(cache)), self.uses_builtin_tasks)

    def task_folders(self, cache: Cache) -> list[Path]:
        """Folders with task files beside the harness's own."""
        return [TASKS]

    def read(self, name: str, spec: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Metric]:
        """The configured metric of task `name` out of the harness's results."""
        return {name: metric_of(name, spec, results)}

    def average(self, metrics: dict[str, Metric]) -> dict[str, Metric]:
        """`metrics` with their mean in front, where there are several. That of accuracies and perplexities is none."""
        kinds = {(metric.unit, metric.higher_is_better) for metric in metrics.values()}
        return {"average": average(metrics), **metrics} if len(metrics) > 1 and len(kinds) == 1 else metrics


def metric_of(name: str, spec: Mapping[str, Any], results: Mapping[str, Any]) -> Metric:
    """The figure `spec["metric"]` of task or group `name`. Raises `ConfigError` naming those there are."""
    row = results["results"][name]
    wanted = spec["metric"]
    if wanted not in row:
        have = ", ".join(k for k, v in row.items() if isinstance(v, (int, float)) and "stderr" not in k)
        raise ConfigError(f"evaluator.tasks.{name}.metric={wanted}: the task reports {have}")
    metric, _, filtered = wanted.partition(",")
    stderr = row.get(f"{metric}_stderr,{filtered}")
    samples = results.get("n-samples", {})
    n = samples.get(name, {}).get("effective")
    if n is None and samples:  # a group: all its tasks
        members = results.get("group_subtasks", {}).get(name, list(samples))
        n = sum(samples[m]["effective"] for m in members if m in samples)
    better = results.get("higher_is_better", {}).get(name, {}).get(metric)
    return Metric(
        value=float(row[wanted]),
        stderr=float(stderr) if isinstance(stderr, (int, float)) else float("nan"),
        metric=wanted,
        n=n,
        shots=spec["shots"],
        higher_is_better=True if better is None else bool(better),
        unit=unit_of(wanted),
    )


def write_task(path: Path, task: Mapping[str, Any]) -> None:
    """A task or group file of the harness."""
    path.write_text(json.dumps(task, indent=2), encoding="utf-8")  # JSON is YAML


@contextmanager
def _git_unasked() -> Iterator[None]:
    """The harness asks git for the commit of the current folder, and git complains where that is no repository."""
    import lm_eval.evaluator as module

    asks = module.get_git_commit_hash
    module.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        module.get_git_commit_hash = asks
