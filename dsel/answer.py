"""Under the tables of runs: what a comparison came to, and where to go from here."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence

from dsel.config_groups import NO_RESULT
from dsel.record.reader import RunFolder
from dsel.remote_runs import original
from dsel.report.statistics import CONFIDENCE, difference, over_items

BASELINE = "random"
UNASKED = {"experiments", "sweeps", "runs", "cache", "scratch", "rerun", *NO_RESULT}
"""What is typed for a run and changes nothing of what a report counts, or has its own place in the command."""
OWN = "python -m dsel select my.jsonl --budget 1000"


def answers(runs: Sequence[RunFolder]) -> list[str]:
    """How far each way of choosing is from random choice, a line each, with the interval that the runs allow.

    Over the seeds that both have, if there are several; else over the examples of the test set. None for runs that
    differ in more than their selector and seed: those are for a report.
    """
    measured = [run for run in runs if run.objective is not None]
    by_method: dict[str, dict[int, RunFolder]] = {}
    for run in measured:
        by_method.setdefault(str(run.choice("selector")), {})[run.seed] = run
    if len({_asked(run) for run in measured}) != 1 or BASELINE not in by_method:
        return []
    return [_line(name, found, by_method[BASELINE]) for name, found in by_method.items() if name != BASELINE]


def onward(*runs: RunFolder) -> list[str]:
    """Where the examples are that the last of some runs chose, and the commands that come next."""
    run = runs[-1]
    lines = [] if run.folder is None else [f"chosen: {run.folder / 'selected.jsonl'}", *closer(runs)]
    lines += _report(*runs)
    if run.choice("data") == "procedural":
        lines.append(f"your own data: {OWN}")
    return lines


def closer(runs: Sequence[RunFolder]) -> list[str]:
    """The commands that look into runs: at the last one alone, and beside the last that chose in another way."""
    here = [run for run in runs if run.folder is not None]
    if not here:
        return []
    last, named = here[-1], [original(run.folder) for run in here if run.folder is not None]
    others = [name for name, run in zip(named, here) if run.choice("selector") != last.choice("selector")]
    lines = [f"look: {shlex.join(['python', '-m', 'dsel', 'show', named[-1]])}"]
    if others:
        both = (others[-1], named[-1])
        lines.append(f"compare: {shlex.join(['python', '-m', 'dsel.compare', *both])}")
    return lines


def beyond(a: RunFolder | None, b: RunFolder | None) -> list[str]:
    """The commands that come after a comparison of two subsets, of those of them that are runs'."""
    runs = [run for run in (a, b) if run is not None]
    return list(dict.fromkeys(line for part in (closer(runs)[:1], *map(_report, runs)) for line in part))


def _report(*runs: RunFolder) -> list[str]:
    """The command for the tables of the last run's experiment, where it has measured something for them.

    With what was typed for all of `runs`: a report counts those that were made so.
    """
    run = runs[-1]
    experiment, folder = run.choice("experiments"), run.setting("runs")
    if not experiment or not run.facts["metrics"]:
        return []
    typed = sorted(frozenset.intersection(*map(_asked, runs)))
    given = [f"experiments={experiment}", *(o for o in typed if re.split("[.=]", o)[0] not in UNASKED)]
    where = [] if folder in (None, "runs") else [f"runs={folder}"]
    return [f"report: {shlex.join(['python', '-m', 'dsel.report', *given, *where])}"]


def _asked(run: RunFolder) -> frozenset[str]:
    """What was typed for a run beside its selector and its seed."""
    return frozenset(o for o in run.facts.get("overrides", []) if o.partition("=")[0] not in ("selector", "seed"))


def _line(name: str, runs: Mapping[int, RunFolder], baseline: Mapping[int, RunFolder]) -> str:
    metric = str(next(iter(runs.values())).headline)  # there is one, as the run has an objective
    values, below = _values(runs, metric), _values(baseline, metric)
    gap = difference(values, below)
    if gap is None:
        return f"{name}: no seed in common with {BASELINE}"
    if gap.pairs > 1:
        (low, high), basis = gap.interval, f"{gap.pairs} seeds"
    else:
        (seed,) = set(values) & set(below)
        low, high = over_items(gap.points, runs[seed].test_error(metric), baseline[seed].test_error(metric))
        basis = "one seed, so of the test's examples alone"
    said, of = f"{name} − {BASELINE}: {gap.points:+.4f}", f"({metric}, {CONFIDENCE:.0%} interval, {basis})"
    if math.isnan(low):
        return f"{said} {of}"
    sign = 1 if next(iter(runs.values())).higher_is_better(metric) else -1
    verdict = "not told apart" if low <= 0 <= high else "better" if sign * gap.points > 0 else "worse"
    return f"{said} [{low:+.4f}, {high:+.4f}]: {verdict} {of}"


def _values(runs: Mapping[int, RunFolder], metric: str) -> dict[int, float]:
    found = {seed: run.value(metric) for seed, run in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None}
