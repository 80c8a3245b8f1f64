"""What may stand side by side in a table: averages over the same tasks, and published figures measured the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsel.record.reader import RunFolder
from dsel.record.settings import literal
from dsel.report.statistics import mean

AVERAGE = "average"  # the metric of that name: the mean over the tasks that a run has

POOLS = ("data", "targets")  # the config groups that say what is chosen from

Settings = Mapping[str, Mapping[str, Any]]


def settings(evaluator: Mapping[str, Any]) -> Settings:
    """How an evaluator of this configuration measures each task: what tasks leave to the evaluator filled in."""
    found = {}
    tasks = evaluator.get("tasks") if isinstance(evaluator, Mapping) else None
    for name, spec in tasks.items() if isinstance(tasks, Mapping) else ():
        if not isinstance(spec, Mapping):  # in a record anything may stand
            continue
        chat = bool(spec.get("chat_template", evaluator.get("chat_template", False)))
        found[name] = {
            "shots": spec.get("shots"),
            "metric": spec.get("metric"),
            "chat_template": chat,
            "multiturn": chat and bool(spec.get("multiturn", True)),
            "limit": spec.get("limit", evaluator.get("limit")),
        }
    return found


def otherwise(task: str, runs: Iterable[RunFolder], published: Settings) -> str:
    """In what the runs measured `task` otherwise than the experiment's file has it; empty where they did not."""
    changes: dict[str, None] = {}
    for run in runs:
        own = settings(run.facts["config"].get("evaluator") or {}).get(task)
        for key, value in (own or {}).items():
            theirs = published.get(task, {}).get(key, value)
            if value != theirs:
                changes[f"{key}={literal(value)} instead of {literal(theirs)}"] = None
    return ", ".join(changes)


def other_pools(rows: Mapping[str, Sequence[RunFolder]], told_apart: Iterable[str]) -> Iterator[str]:
    """Which rows chose from another pool than most, with the same seed, though nothing in the table says so.

    A pool is known by its content: examples may have been taken out of it as targets, or held out.

    Args:
        rows: the runs of each row of a table.
        told_apart: the settings in which rows, or columns, differ; a table of several pools says so itself.
    """
    if any(setting.partition(".")[0] in POOLS for setting in told_apart):
        return
    seeds = sorted({run.seed for runs in rows.values() for run in runs})
    apart: dict[str, dict[int, None]] = {}
    for seed in seeds:
        own = [(row, run) for row, runs in rows.items() for run in runs if run.seed == seed and run.fingerprint]
        pools = Counter(run.fingerprint for _, run in own)
        if len(pools) > 1:
            usual = max(pools, key=lambda pool: pools[pool])
            for row, run in own:
                if run.fingerprint != usual:
                    text = f"{row} ({run.facts['pool'].get('examples', 'unknown number of')} examples)"
                    apart.setdefault(text, {})[seed] = None
    if apart:
        listed = "; ".join(
            f"{text}, {'seed' if len(found) == 1 else 'seeds'} {', '.join(map(str, found))}"
            for text, found in apart.items()
        )
        yield f"Not of one pool, so not to be compared: the others' is another one than that of {listed}."


@dataclass(frozen=True)
class Average:
    """What a table's averages are over, so that all of them are over the same tasks.

    tasks: those that all of its runs with an average have, None where there is no such run. left_out: those that only
    some have. published: the tasks of the published averages.
    """

    tasks: tuple[str, ...] | None
    left_out: tuple[str, ...]
    published: frozenset[str]

    @classmethod
    def of(cls, runs: Iterable[RunFolder], published: Collection[str]) -> Average:
        sets = [run.tasks for run in runs if run.value(AVERAGE) is not None]
        some = dict.fromkeys(task for tasks in sets for task in tasks)
        shared = tuple(task for task in some if all(task in tasks for tasks in sets))
        left_out = tuple(task for task in some if task not in shared)
        return cls(shared if sets else None, left_out, frozenset(published))

    @property
    def as_published(self) -> bool:
        return self.tasks is None or set(self.tasks) == self.published

    def value(self, run: RunFolder) -> float | None:
        """The average of a run over the tasks that all runs have; None where it has none."""
        given = run.value(AVERAGE)
        if given is None or not self.left_out:
            return given
        values = [value for task in self.tasks or () if (value := run.value(task)) is not None]
        return mean(values) if values else None

    def figure(self, given: float | None, figures: Mapping[str, float]) -> float | None:
        """The published average over the tasks of the runs. given: as it is published, figures: those of its tasks.

        None where a task's figure, which it takes to know that, is not published.
        """
        if given is None or self.as_published:
            return given
        own = [figures[task] for task in self.tasks or () if task in figures]
        return mean(own) if own and len(own) == len(self.tasks or ()) else None

    def notes(
        self, names: Mapping[str, str], *, given: Sequence[float | None], shown: Sequence[float | None]
    ) -> Iterator[str]:
        """What to know of the averages. names: what tasks are called. given, shown: the published figures."""
        if self.tasks is None:
            return

        def listed(tasks: Iterable[str]) -> str:
            return ", ".join(names.get(task, task) for task in tasks)

        if self.left_out:
            over = (
                f"over the {len(self.tasks)} tasks that all runs have"
                if self.tasks
                else "left out: no task is all runs'"
            )
            yield f"The average is {over}, without {listed(self.left_out)}."
        if self.as_published or all(figure is None for figure in given):
            return
        missing = [task for task in sorted(self.published) if task not in self.tasks]
        added = [task for task in self.tasks if task not in self.published]
        apart = "; ".join(
            text
            for text in (
                f"without {listed(missing)}" if missing else "",
                f"with {listed(added)}, which is not in the published one" if added else "",
            )
            if text
        )
        if any(figure is not None for figure in shown):
            yield f"Published averages are recomputed over the tasks of the runs: {apart}."
        else:
            yield (
                f"Published averages are left out: they are over {len(self.published)} tasks, and those of the runs "
                f"over {len(self.tasks)} ({apart})."
            )
