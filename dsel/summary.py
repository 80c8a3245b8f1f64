"""The table at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dsel.answer import answers, onward
from dsel.contamination import shared
from dsel.progress import speed
from dsel.record.reader import RunFolder
from dsel.show import Table, say, show_table, to_terminal
from dsel.stage import Stage


def show(run: RunFolder, console: Console | None = None) -> None:
    """Print method, budget, metrics with their standard errors, time per stage, where all is, and what comes next."""
    console = console or to_terminal()
    show_table(table(run), console)
    following = onward(run)
    for line in (f"record: {run.where}", *(following[:1] if "sweep" in run.facts else following)):
        say(line, console)  # what comes next, a sweep says at its end


def show_sweep(runs: Sequence[RunFolder], console: Console | None = None) -> None:
    """Print a row for each run of a sweep, how far each method is from random choice, and what comes next."""
    console = console or to_terminal()
    show_table(sweep_table(runs), console)
    here = [run for run in runs if run.facts.get("tracker", {}).get("mode") == "offline" and run.folder is not None]
    if here and any(run.facts["metrics"] for run in here):
        say(f"W&B kept them offline; upload all: wandb sync {_shared(here)}/*/wandb/offline-run-*", console)
    for line in (*answers(runs), *onward(*runs)):
        say(line, console)


def sweep_table(runs: Sequence[RunFolder]) -> Table:
    """Of each run the method, the budget, what else it differs in, and its metrics with their standard errors."""
    settings = [dict(o.split("=", 1) for o in run.facts.get("overrides", []) if "=" in o) for run in runs]
    names = dict.fromkeys(name for each in settings for name in each if name not in ("selector", "budget"))
    varied = [name for name in names if len({each.get(name) for each in settings}) > 1]
    metrics = list(dict.fromkeys(name for run in runs for name, m in run.facts["metrics"].items() if not m["detail"]))
    rows = [
        (
            str(run.choice("selector")),
            f"{run.facts.get('budget', 0):,}",
            *(each.get(name, "") for name in varied),
            *(_metric(run.facts["metrics"].get(name)) for name in metrics),
            f"{run.facts.get('seconds') or 0:,.0f} s",
        )
        for run, each in zip(runs, settings, strict=True)
    ]
    header = ("method", "budget", *varied, *metrics, "time")
    count = f"{len(runs)} run" if len(runs) == 1 else f"{len(runs)} runs"
    return Table(rows, f"{count} of this sweep", header, "lr" + "l" * len(varied) + "r" * (len(metrics) + 1))


def _metric(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "–"
    unknown = found["stderr"] is None or math.isnan(found["stderr"])
    return f"{found['value']:.4f}" + ("" if unknown else f" ± {found['stderr']:.4f}")


def _shared(runs: Sequence[RunFolder]) -> Path:
    """The folder of runs."""
    return next(run.folder for run in runs if run.folder is not None).parent


def table(run: RunFolder) -> Table:
    """The table of a finished run."""
    facts = run.facts
    choices, metrics = facts["choices"], facts["metrics"]
    share = facts["budget"] / facts["pool"]["examples"]
    rows: list[tuple[str, str] | None] = [
        ("method", str(choices["selector"])),
        ("budget", f"{facts['budget']:,} of {facts['pool']['examples']:,} examples ({share:.1%})"),
        ("seed", str(run.seed)),
    ]
    trained = [part["training"] for part in facts["rounds"] if part.get("training")]
    if trained or metrics:
        rows.append(("model", f"{choices['model']}, trainer {choices['trainer']}"))
    losses = [training["loss"] for training in trained if isinstance(training.get("loss"), float)]
    if losses:
        rows.append(("training loss", ", ".join(f"{loss:.4f}" for loss in losses)))
    rows.append(None)
    for name, metric in metrics.items():
        if not metric["detail"]:
            rows.append((name, f"{_metric(metric)}  ({metric['metric']})"))
    parts = sum(metric["detail"] for metric in metrics.values())
    if parts:
        rows.append(("", f"{parts} parts of these in the record"))
    found = facts.get("contamination") or {}
    if found.get("examples"):
        of = shared(found.get("origins") or ())
        rows.append(("contamination", f"{found['examples']:,} of {found.get('of', 0):,} chosen have {of}"))
    rows.append(None)
    for name, stages in _by_name(run.stages).items():
        seconds, items = sum(s.seconds for s in stages), sum(s.items or 0 for s in stages)
        note = "  (from the cache)" if all(s.cached for s in stages) else ""
        rate = f"  {speed(items / seconds, 'examples')}" if items and seconds and not note else ""  # in milliseconds
        rows.append((name, f"{seconds:.1f} s{rate}{note}"))
    rows.append(("total", f"{facts['seconds']:.1f} s"))
    rows += [(f"cost of {what}", text) for what, text in run.cost.told.items()]
    return Table(rows, title=f"{choices['selector']} on {facts['pool']['name']}")


def _by_name(stages: Sequence[Stage]) -> dict[str, list[Stage]]:
    """The rounds' stages together, in the order they first came."""
    named: dict[str, list[Stage]] = {}
    for stage in stages:
        named.setdefault(stage.name, []).append(stage)
    return named
