"""The tasks of lm-evaluation-harness that there are, its own and ours."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

TASKS = Path(__file__).parent / "evaluator" / "tasks"


@lru_cache(maxsize=1)
def index_of_tasks(folders: tuple[str, ...], builtin: bool) -> Any:
    """The harness's index of tasks: read once in a process, as it has thousands of files of its own."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(folders), include_defaults=builtin)
