"""What a run that is refused leaves behind: nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dsel.remote_runs import here

NOTES = ("multirun.yaml", ".failed", ".running", ".ended")  # what Hydra and `dsel.sweep` write beside the runs


class Begin(Callback):
    """Hydra's callback before a multirun, whose folder of `runs` is then known."""

    runs: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Begin.runs = Path(here(str(config.runs), str(config.scratch)))


def discard(folder: Path, runs: Path) -> None:
    """Remove the `folder` of a run that never began, and `runs` where that was all there is."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # others are in it, or it is elsewhere
        runs.rmdir()


@contextmanager
def no_empty_sweep() -> Iterator[None]:
    """Inside, there may be a multirun. If no run is left of it, or of another, its notes go too."""
    try:
        yield
    finally:
        runs = Begin.runs
        if runs is not None and runs.is_dir() and {path.name for path in runs.iterdir()} <= set(NOTES):
            (runs / NOTES[0]).unlink(missing_ok=True)
            for name in NOTES[1:]:
                shutil.rmtree(runs / name, ignore_errors=True)
            with suppress(OSError):
                runs.rmdir()
