"""Targets from tasks of lm-evaluation-harness: what they show a model before they ask, never what they ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dsel.cache import Cache
from dsel.constraints import Count, Seed, Text
from dsel.errors import ConfigError, need
from dsel.hub import reason
from dsel.pool import Example, Pool
from dsel.targets.base import Target, need_once
from dsel.tasks import TASKS, index_of_tasks


@dataclass
class LmEvalTargets:
    """Documents of named tasks, as question and answer, each task with those of its group as subtasks.

    tasks: their names, or names of groups. examples: so many of each task (all where it has fewer). documents: of which
    split, `fewshot`, `validation` or `training`; one that a task evaluates on is refused. seed: which.
    """

    tasks: Sequence[Text] = ()
    examples: Count = 24
    documents: Literal["fewshot", "validation", "training"] = "fewshot"
    seed: Seed = 0

    def check(self) -> None:
        need(bool(self.tasks), "targets.tasks is empty: name tasks of lm-evaluation-harness, as targets.tasks=[gsm8k]")
        need_once(self.tasks, "targets.tasks")

    def take(self, pool: Pool, cache: Cache) -> tuple[Pool, Target | None]:
        manager = index_of_tasks((str(TASKS),), True)
        examples: list[Example] = []
        tasks: list[str] = []
        for name in self.tasks:
            for subtask in self._tasks_of(manager, name):
                found = self._documents(subtask)
                examples += [self._example(subtask, document, i) for i, document in enumerate(found)]
                tasks += [name] * len(found)
        targets = Pool.build("targets", examples)
        return pool, Target(targets, tasks, list(targets.sources))

    def _tasks_of(self, manager: Any, name: str) -> list[Any]:
        """The tasks that a name stands for."""
        need(name in manager.all_tasks, f"targets.tasks: lm-evaluation-harness has no task {name}")
        try:
            loaded = manager.load([name])["tasks"]
        except Exception as error:  # each task loads its data in its own way
            raise ConfigError(f"targets.tasks: what {name} needs cannot be had ({reason(error)})") from error
        return [loaded[key] for key in sorted(loaded)]

    def _documents(self, task: Any) -> list[Any]:
        """The documents to take: those that are written into the task, or of a split that it is not evaluated on."""
        written = getattr(getattr(task, "fewshot_cfg", None), "samples", None)
        if self.documents == "fewshot" and written is not None:
            documents: Iterable[Any] = written() if callable(written) else written
        else:
            documents = task.dataset[self._split(task)]
            documents = documents if task.config.process_docs is None else task.config.process_docs(documents)
        documents = list(documents)
        rows = np.sort(np.random.default_rng(self.seed).permutation(len(documents))[: self.examples])
        return [documents[row] for row in rows.tolist()]

    def _split(self, task: Any) -> str:
        asked = task.config.test_split or task.config.validation_split
        split = {
            "fewshot": task.config.fewshot_split or task.config.training_split,
            "validation": task.config.validation_split,
            "training": task.config.training_split,
        }[self.documents]
        name = task.config.task
        need(split is not None, f"targets.documents={self.documents}: the task {name} has no such split")
        need(
            split != asked,
            f"targets.documents={self.documents}: the task {name} is evaluated on that split, {split}; what it asks "
            "may not choose what is trained on",
        )
        return str(split)

    def _example(self, task: Any, document: Any, number: int) -> Example:
        name, question, answer = task.config.task, task.doc_to_text(document), task.doc_to_target(document)
        if task.config.doc_to_choice is not None and isinstance(answer, int):
            answer = task.doc_to_choice(document)[answer]
        if isinstance(answer, (list, tuple)) and answer:
            answer = answer[0]
        plain = isinstance(question, str) and isinstance(answer, str)
        need(plain, f"targets.tasks: {name} does not ask for one answer in text, so it has no targets")
        messages = [
            {"role": "user", "content": question.strip()},
            {"role": "assistant", "content": answer.strip()},
        ]
        return Example(f"{name}/{number}", messages, name, {"question": question, "answer": answer})
