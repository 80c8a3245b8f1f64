"""Progress on a terminal: work inside of other work has a bar of its own below, and both go away."""

from __future__ import annotations

import io

import pytest
import rich.console

from dsel import progress as module
from dsel.progress import progress


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
