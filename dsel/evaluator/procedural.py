"""Held-out procedural tasks as lm-eval tasks: one for each kind, so that every kind counts the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsel.cache import Cache
from dsel.component import digest
from dsel.constraints import Count, Seed, Text
from dsel.evaluator.base import Asked, Metric
from dsel.evaluator.harness import TASKS, Harness, metric_of, write_task
from dsel.pool import Pool

GROUP = "procedural"


@dataclass
class Procedural(Harness):
    """`per_kind` held-out prompts of each kind (or of some `kinds`), answered greedily; the metric is exact match.

    The prompts never occur in any pool of `data=procedural`, whatever its seed. The tasks are ordinary files in the
    cache (`tasks/<digest>`), which the harness's own command line can be pointed at as well.
    """

    per_kind: Count = 16
    heldout_seed: Seed = 0
    max_new_tokens: Count = 24
    kinds: Sequence[Text] | None = None

    uses_builtin_tasks = False

    def check(self) -> None:
        super().check()
        from dsel.data.procedural import need_kinds

        need_kinds(self.kinds or (), "evaluator.kinds")

    def texts(self, heldout: Pool, cache: Cache) -> Asked:
        """The prompts of all kinds."""
        return Asked({f"{GROUP}/{i}": example["prompt"] for i, example in enumerate(self._examples())})

    def task_folders(self, cache: Cache) -> list[Path]:
        examples = self._examples()
        key = {"examples": digest(examples), "max_new_tokens": self.max_new_tokens, "place": str(cache.folder)}
        final = cache.path("tasks", key)  # the task files name their data by where it will be
        cache.artifact("tasks", key, lambda folder: self._write(folder, final, examples), lease=True)
        return [TASKS, final]

    def _examples(self) -> list[dict[str, str]]:
        from dsel.data.procedural import heldout

        return heldout(self.per_kind, self.heldout_seed, self.kinds)

    def read(self, name: str, spec: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Metric]:
        """The mean over kinds, and each kind."""
        kinds = sorted(t for t in results["results"] if t != name)
        each = {t.removeprefix(f"{GROUP}_"): replace(metric_of(t, spec, results), detail=True) for t in kinds}
        return {name: metric_of(name, spec, results), **each}

    def average(self, metrics: dict[str, Metric]) -> dict[str, Metric]:
        return metrics  # the group is the average

    def _write(self, folder: Path, final: Path, examples: list[dict[str, str]]) -> None:
        kinds = sorted({e["kind"] for e in examples})
        for kind in kinds:
            rows = [json.dumps(e) + "\n" for e in examples if e["kind"] == kind]
            (folder / f"{kind}.jsonl").write_text("".join(rows), encoding="utf-8")
            task = {
                "include": str(TASKS / "_procedural.yaml"),
                "task": f"{GROUP}_{kind}",
                "dataset_kwargs": {"file": str(final / f"{kind}.jsonl")},
                "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": self.max_new_tokens},
            }
            write_task(folder / f"{kind}.yaml", task)
        group = {
            "group": GROUP,
            "task": [f"{GROUP}_{kind}" for kind in kinds],
            "aggregate_metric_list": [{"metric": "exact_match", "weight_by_size": False, "filter_list": ["answer"]}],
            "metadata": {"version": 1},
        }
        write_task(folder / f"{GROUP}.yaml", group)
