"""The table at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dsel.record.reader import RunFolder
from dsel.stage import Stage


def show(run: RunFolder, console: Console | None = None) -> None:
    """Print method, budget, metrics with their standard errors, time per stage, and where the record is."""
    console = console or Console()
    console.print(table(run))
    console.print(f"record: {run.where}", soft_wrap=True, highlight=False)


def table(run: RunFolder) -> Table:
    facts = run.facts
    choices, metrics = facts["choices"], facts["metrics"]
    out = Table(show_header=False, title=f"{choices['selector']} on {facts['pool']['name']}", title_justify="left")
    out.add_row("method", str(choices["selector"]))
    share = facts["budget"] / facts["pool"]["examples"]
    out.add_row("budget", f"{facts['budget']:,} of {facts['pool']['examples']:,} examples ({share:.1%})")
    out.add_row("model", f"{choices['model']}, trainer {choices['trainer']}, seed {facts['config']['seed']}")
    out.add_section()
    for name, metric in metrics.items():
        if not metric["detail"]:
            error = "" if metric["stderr"] is None or math.isnan(metric["stderr"]) else f" ± {metric['stderr']:.4f}"
            out.add_row(name, f"{metric['value']:.4f}{error}  ({metric['metric']})")
    parts = sum(metric["detail"] for metric in metrics.values())
    if parts:
        out.add_row("", f"{parts} parts of these in the record")
    out.add_section()
    for name, stages in _by_name(run.stages).items():
        seconds, items = sum(s.seconds for s in stages), sum(s.items or 0 for s in stages)
        note = "  (from the cache)" if all(s.cached for s in stages) else ""
        speed = items / seconds if seconds else 0.0  # a record has milliseconds
        rate = f"  {speed:,.{0 if speed >= 10 else 2}f} examples/s" if speed and not note else ""
        out.add_row(name, f"{seconds:.1f} s{rate}{note}")
    out.add_row("total", f"{facts['seconds']:.1f} s")
    return out


def _by_name(stages: Sequence[Stage]) -> dict[str, list[Stage]]:
    """The rounds' stages together, in the order they first came."""
    named: dict[str, list[Stage]] = {}
    for stage in stages:
        named.setdefault(stage.name, []).append(stage)
    return named
