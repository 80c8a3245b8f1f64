"""Progress on a terminal: work inside of other work has a bar of its own below, and both go away."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import rich.console

from dsel import progress as module
from dsel.progress import STEP, progress, said, tracked


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out, console = io.StringIO(), rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda **options: console(file=out, force_terminal=True, width=120, **_none(options))
    )
    return out


def _none(options: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name != "stderr"}


def test_a_bar_inside_of_another_is_drawn_below_it(terminal: io.StringIO) -> None:
    with progress("outer work", total=2, unit="shards") as outer:
        for _ in range(2):
            with progress("inner work", total=3, unit="answers") as inner:
                inner(3)
                (display,) = module._displays
                display.refresh()
                assert [task.description for task in display.tasks] == ["outer work", "inner work"]
            outer(1)
        assert [(task.description, task.completed) for task in display.tasks] == [("outer work", 2)]
    assert not module._displays
    assert "inner work" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_an_error_takes_the_bars_with_it(terminal: io.StringIO) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError), progress("work", total=1, unit="rows"):
            raise RuntimeError
        assert not module._displays


def test_with_q_there_is_no_progress(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("dsel.progress.SILENT_FOR", 0.0)
    for level, lines in (("WARNING", 0), ("INFO", 1)):
        monkeypatch.setenv("DSEL_LOG", level)
        caplog.clear()
        with progress("reading", total=2, unit="rows") as advance:
            advance(2)
        assert len(caplog.records) == lines


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_FOR", 0.02)
    monkeypatch.setattr(module, "LOG_EVERY", 0.05)


@pytest.mark.usefixtures("quick")
def test_without_a_terminal_there_is_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), progress("work", total=10, unit="rows") as advance:
        time.sleep(0.2)  # one step that takes long
        advance(5)
        time.sleep(0.2)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "work: 0/10 rows, 0 s so far"
    assert said[-1].startswith("work: 5/10 rows, ") and said[-1].endswith(" s left")
    assert not [thread for thread in threading.enumerate() if "progress" in thread.name]


def test_quick_work_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), progress("work", total=1, unit="rows") as advance:
        advance(1)
    assert not caplog.records


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("count", [0, 3, STEP, STEP + 1])
def test_what_is_gone_through_is_counted(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    @contextmanager
    def counting(title: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        yield told.append

    monkeypatch.setattr(module, "progress", counting)
    assert list(tracked(iter(range(count)), "work", total=count, unit="rows")) == list(range(count))
    assert sum(told) == count


@pytest.mark.parametrize(
    ("done", "total", "line"),
    [
        (0, None, "SVD: 35 s so far"),
        (0, 100, "SVD: 0/100 texts, 35 s so far"),
        (70, 100, "SVD: 70/100 texts, 2 texts/s, 15 s left"),
        (7_000, None, "SVD: 7,000 texts, 200 texts/s"),
        (1, 2, "SVD: 1/2 texts, 0.0286 texts/s, 35 s left"),
    ],
)
def test_a_line_says_how_far_how_fast_and_how_long_still(done: int, total: int | None, line: str) -> None:
    assert said("SVD", done, total, "texts", 35.0) == line


@pytest.mark.usefixtures("quick")
def test_tfidf_is_not_silent(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsel.embedder.tfidf_svd import TfidfSvd

    texts = [f"what is the meaning of word {i} and of word {i % 97}" for i in range(3000)]
    monkeypatch.setattr(module, "SILENT_FOR", 0.001)
    with caplog.at_level("INFO"):
        TfidfSvd(dimensions=16).encode(texts)
    heads = {record.getMessage().partition(":")[0] for record in caplog.records}
    assert heads == {"TF-IDF", "SVD of TF-IDF to 16 dimensions"}
