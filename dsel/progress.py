"""One progress bar for every long stage: how far, how fast, how long still."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)

SILENT_FOR = 2.0  # seconds before the first sign of life, so that quick work leaves no trace
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw on

_displays: list[Progress] = []  # the one that is being drawn, if there is one


@contextmanager
def progress(title: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Shows the advance of `total` units of work; yields `advance(count)`.

    On a terminal a bar with throughput and remaining time; elsewhere (a batch job's log) a line every 30 s.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, title, total, unit) as advance:
            yield advance
    else:
        yield _lines(title, total, unit)


@contextmanager
def _bar(console: Console, title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    start = time.monotonic()
    with _display(console) as bars:
        task, done = bars.add_task(title, total=total, rate=""), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - start, 1e-9)
            bars.update(task, advance=count, rate=f"{rate:,.1f} {unit}/s")

        try:
            yield advance
        finally:
            bars.remove_task(task)


@contextmanager
def _display(console: Console) -> Iterator[Progress]:
    """Where bars are drawn: work inside of other work has a bar below the other's, as a terminal has one display."""
    if _displays:
        yield _displays[-1]
        return
    from rich import progress as rp

    columns = (
        rp.TextColumn("{task.description}"),
        rp.BarColumn(),
        rp.MofNCompleteColumn(),
        rp.TextColumn("{task.fields[rate]}"),
        rp.TimeElapsedColumn(),
        rp.TimeRemainingColumn(),
    )
    with rp.Progress(*columns, console=console, transient=True) as bars:
        _displays.append(bars)
        try:
            yield bars
        finally:
            _displays.pop()


def _lines(title: str, total: int | None, unit: str) -> Callable[[int], None]:
    start = time.monotonic()
    state = {"done": 0, "next": start + SILENT_FOR}

    def advance(count: int) -> None:
        state["done"] += count
        now = time.monotonic()
        if now < state["next"]:
            return
        state["next"] = now + LOG_EVERY
        rate = state["done"] / max(now - start, 1e-9)
        left = f", {(total - state['done']) / rate:,.0f} s left" if total and rate else ""
        of = f"/{total:,}" if total else ""
        log.info("%s: %s%s %s, %.1f %s/s%s", title, f"{state['done']:,}", of, unit, rate, unit, left)

    return advance
