"""One progress bar for every long stage: how far, how fast, how long still."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from dsel.verbosity import is_quiet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)

SILENT_FOR = 2.0  # seconds before the first sign of life, so that quick work leaves no trace
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw on
STEP = 64  # items of `tracked` counted at once

T = TypeVar("T")

Tell = Callable[[str, "int | None", str, "int | None"], None]

_displays: list[Progress] = []  # the one that is being drawn, if there is one
_elsewhere: list[Tell] = []  # who is told of it, if another process draws it


def show_elsewhere(tell: Tell) -> None:
    """From here on, hand what there is to show on: `tell(title, total, unit, count)`, with None when it is over."""
    _elsewhere[:] = [tell]


@contextmanager
def progress(title: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Shows the advance of `total` units of work, None where that is not known; yields `advance(count)`.

    On a terminal a bar with throughput and remaining time; elsewhere (a batch job's log) a line after two seconds and
    every 30 s, also where a single step takes longer than that. With -q nothing.
    """
    if _elsewhere:
        tell = _elsewhere[0]
        tell(title, total, unit, 0)
        try:
            yield lambda count: tell(title, total, unit, count)
        finally:
            tell(title, total, unit, None)
        return
    if is_quiet():
        yield lambda count: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, title, total, unit) as advance:
            yield advance
    else:
        with _lines(title, total, unit) as advance:
            yield advance


def tracked(items: Iterable[T], title: str, *, total: int | None, unit: str) -> Iterator[T]:
    """`items`, with the progress of whoever goes through them."""
    with progress(title, total=total, unit=unit) as advance:
        taken = 0
        for taken, item in enumerate(items, start=1):
            yield item
            if taken % STEP == 0:
                advance(STEP)
        advance(taken % STEP)


@contextmanager
def _bar(console: Console, title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    start = time.monotonic()
    with _display(console) as bars:
        task, done = bars.add_task(title, total=total, rate=""), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - start, 1e-9)
            bars.update(task, advance=count, rate=speed(rate, unit))

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


@contextmanager
def _lines(title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    start, done, over = time.monotonic(), 0, threading.Event()

    def advance(count: int) -> None:
        nonlocal done
        done += count

    def tell() -> None:
        pause = SILENT_FOR
        while not over.wait(pause):
            log.info("%s", said(title, done, total, unit, time.monotonic() - start))
            pause = LOG_EVERY

    thread = threading.Thread(target=tell, name=f"progress of {title}", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()


def said(title: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    """A line on work of which so much is `done` after so many seconds: how far it is, how fast, how long still."""
    of = f"/{total:,}" if total else ""
    if not done:
        return f"{title}: {f'0{of} {unit}, ' if total else ''}{seconds:,.0f} s so far"
    rate = done / max(seconds, 1e-9)
    left = f", {max(total - done, 0) / rate:,.0f} s left" if total else ""
    return f"{title}: {done:,}{of} {unit}, {speed(rate, unit)}{left}"


def speed(rate: float, unit: str) -> str:
    """So many units a second in three digits: what takes minutes each, as a large model's answers do, is not 0."""
    return f"{f'{rate:,.0f}' if rate >= 10 else f'{rate:.3g}'} {unit}/s"
