"""The table at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from dsel.answer import onward
from dsel.record.reader import RunFolder
from dsel.show import Table, say, show_table, to_terminal
from dsel.stage import Stage


def show(run: RunFolder, console: Console | None = None) -> None:
    """Print method, budget, metrics with their standard errors, time per stage, where all is, and what comes next."""
    console = console or to_terminal()
    show_table(table(run), console)
    for line in (f"record: {run.where}", *onward(run)):
        say(line, console)


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
            error = "" if metric["stderr"] is None or math.isnan(metric["stderr"]) else f" ± {metric['stderr']:.4f}"
            rows.append((name, f"{metric['value']:.4f}{error}  ({metric['metric']})"))
    parts = sum(metric["detail"] for metric in metrics.values())
    if parts:
        rows.append(("", f"{parts} parts of these in the record"))
    rows.append(None)
    for name, stages in _by_name(run.stages).items():
        seconds, items = sum(s.seconds for s in stages), sum(s.items or 0 for s in stages)
        note = "  (from the cache)" if all(s.cached for s in stages) else ""
        speed = items / seconds if seconds else 0.0  # a record has milliseconds
        rate = f"  {speed:,.{0 if speed >= 10 else 2}f} examples/s" if speed and not note else ""
        rows.append((name, f"{seconds:.1f} s{rate}{note}"))
    rows.append(("total", f"{facts['seconds']:.1f} s"))
    return Table(rows, title=f"{choices['selector']} on {facts['pool']['name']}")


def _by_name(stages: Sequence[Stage]) -> dict[str, list[Stage]]:
    """The rounds' stages together, in the order they first came."""
    named: dict[str, list[Stage]] = {}
    for stage in stages:
        named.setdefault(stage.name, []).append(stage)
    return named
