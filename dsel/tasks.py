"""The tasks of lm-evaluation-harness that there are, its own and ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dsel.cache import Cache
from dsel.files import read_json, write_json
from dsel.hub import reason

log = logging.getLogger(__name__)

TASKS = Path(__file__).parent / "evaluator" / "tasks"


@lru_cache(maxsize=1)
def index_of_tasks(folders: tuple[str, ...], builtin: bool) -> Any:
    """The harness's index of tasks: read once in a process, as it has thousands of files of its own."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(folders), include_defaults=builtin)


def texts_of_task(name: str, manager: Callable[[], Any], cache: Cache) -> dict[str, str] | None:
    """What a task, or each of a group, asks in all documents that it is evaluated on, by task and number.

    None where its data are not on this machine, as nothing is fetched. Read once, and kept in the cache.

    Args:
        name: of the task or the group.
        manager: has the index of tasks, where they have to be read.
        cache: where the texts are kept.
    """
    key = {"task": name, "harness": metadata.version("lm_eval"), "version": 1}
    if not cache.fetch("asked", key):
        try:
            with _offline():
                loaded = manager().load([name])["tasks"]
                found = {f"{task}/{i}": text for task in sorted(loaded) for i, text in _texts(loaded[task])}
        except Exception as error:  # each task loads its data in its own way
            log.info("%s: what it asks is not at hand (%s)", name, reason(error))
            return None
        cache.artifact("asked", key, lambda folder: write_json(folder / "texts.json", found))
    texts: dict[str, str] = read_json(cache.path("asked", key) / "texts.json")
    return texts


def _texts(task: Any) -> Iterator[tuple[int, str]]:
    """The number of each document that is evaluated on, and what it asks: the question alone where a task says it."""
    for number, document in enumerate(task.eval_docs):
        try:
            text = task.doc_to_decontamination_query(document) if task.should_decontaminate() else None
        except (SyntaxError, ValueError):
            text = None  # the harness takes what a template makes for an expression
        text = task.doc_to_text(document) if not isinstance(text, str) else text
        if isinstance(text, str):
            yield number, text


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's libraries find what they have, and ask nobody."""
    from datasets import config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before
