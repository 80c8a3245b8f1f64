"""The table at the end of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from dsel.record import Record

SHOWN_METRICS = 8


def show(record: Record, console: Console | None = None) -> None:
    """Print method, budget, metrics with their standard errors, time per stage, and where the record is."""
    console = console or Console()
    console.print(table(record))


def table(record: Record) -> Table:
    facts = record.facts
    choices, metrics = facts["choices"], facts["metrics"]
    out = Table(show_header=False, title=f"{choices['selector']} on {facts['pool']['name']}", title_justify="left")
    out.add_row("method", str(choices["selector"]))
    share = facts["budget"] / facts["pool"]["examples"]
    out.add_row("budget", f"{facts['budget']:,} of {facts['pool']['examples']:,} examples ({share:.1%})")
    out.add_row("model", f"{choices['model']}, trainer {choices['trainer']}, seed {facts['config']['seed']}")
    out.add_section()
    for name, metric in list(metrics.items())[:SHOWN_METRICS]:
        error = "" if metric["stderr"] is None or math.isnan(metric["stderr"]) else f" ± {metric['stderr']:.4f}"
        out.add_row(name, f"{metric['value']:.4f}{error}  ({metric['metric']})")
    if len(metrics) > SHOWN_METRICS:
        out.add_row("…", f"{len(metrics) - SHOWN_METRICS} more in the record")
    out.add_section()
    for stage in record.stages:
        rate = f"  {stage.per_second:,.0f} examples/s" if stage.items and not stage.cached else ""
        out.add_row(stage.name, f"{stage.seconds:.1f} s{rate}{'  (from the cache)' if stage.cached else ''}")
    out.add_row("total", f"{facts['seconds']:.1f} s")
    out.add_section()
    out.add_row("record", str(record.folder / "record.json"))
    return out
