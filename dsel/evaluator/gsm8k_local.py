"""GSM8K from a local file: a real benchmark without the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsel.cache import Cache
from dsel.component import content_of
from dsel.constraints import Count, Text
from dsel.errors import ConfigError, need, need_path
from dsel.evaluator.base import Asked
from dsel.evaluator.harness import TASKS, Harness, write_task
from dsel.pool import Pool


@dataclass
class Gsm8kLocal(Harness):
    """`path`: JSON lines with `question` and `answer` (…#### number). `fewshot_path`: where the shots come from, for
    instance the training file; without it they are other problems of `path`."""

    path: Text | None = None
    fewshot_path: Text | None = None
    max_new_tokens: Count = 256

    uses_builtin_tasks = False

    def check(self) -> None:
        super().check()
        need(self.path is not None, "evaluator=gsm8k_local needs evaluator.path=…, the test file (JSON lines)")
        need_path(str(self.path), option="evaluator.path")
        if self.fewshot_path is not None:
            need_path(self.fewshot_path, option="evaluator.fewshot_path")

    def extra_identity(self) -> dict[str, Any]:
        return {"path": content_of(self.path), "fewshot_path": content_of(self.fewshot_path)}

    def texts(self, heldout: Pool, cache: Cache) -> Asked:
        """The questions of the test file."""
        with Path(str(self.path)).expanduser().open(encoding="utf-8") as lines:
            try:
                questions = [str(json.loads(line)["question"]) for line in lines if line.strip()]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{self.path}: wants JSON lines with `question` and `answer` ({error})") from error
        return Asked({f"gsm8k_local/{i}": question for i, question in enumerate(questions)})

    def task_folders(self, cache: Cache) -> list[Path]:
        files = {"test": str(Path(str(self.path)).expanduser().resolve())}
        if self.fewshot_path is not None:
            files["train"] = str(Path(self.fewshot_path).expanduser().resolve())
        stop = {"until": ["Question:", "<|im_end|>", "</s>"], "do_sample": False, "max_gen_toks": self.max_new_tokens}
        task = {
            "include": str(TASKS / "_gsm8k_local.yaml"),
            "task": "gsm8k_local",
            "dataset_kwargs": {"data_files": files},
            "generation_kwargs": stop,
            **({"training_split": "train", "fewshot_split": "train"} if "train" in files else {}),
        }
        folder, _ = cache.artifact("tasks", task, lambda f: write_task(f / "gsm8k_local.yaml", task), lease=True)
        return [TASKS, folder]
