"""What a run leaves behind: configuration, selection, metrics, timings and the circumstances, in its folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.component import digest
from dsel.files import finite, write_sealed
from dsel.interrupt import heed
from dsel.record.cost import TRAININGS, cost
from dsel.record.environment import environment
from dsel.record.facts import FORMAT
from dsel.record.process import this_process
from dsel.record.tables import write_scores, write_selection, write_table
from dsel.secrets import redact
from dsel.stage import Stage

if TYPE_CHECKING:
    from pyarrow import Table

    from dsel.clusterer.choice import Choice
    from dsel.evaluator.base import Metric
    from dsel.pool import Pool
    from dsel.selector.base import Selection


class Record:
    """Collects a run's facts and keeps `record.json` in `folder` up to date, each time whole.

    keep: called after each stage of a run that has begun, and at its end: copies the folder to where others find it.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        choices: Mapping[str, Any],
        *,
        keep: Callable[[], None] = lambda: None,
    ):
        self.folder = folder
        self._keep = keep
        self.begun = False  # till then, a run may be refused, and leaves nothing
        self.stages: list[Stage] = []
        self._open: list[Stage] = []
        self._selections: list[Selection] = []
        self._tables: dict[str, list[Any]] = {}
        self._start = self._counted = time.monotonic()
        config = redact(config)
        self.facts: dict[str, Any] = {
            "format": FORMAT,
            "status": "running",
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "config_digest": digest(config),
            "choices": dict(choices),
            "config": config,
            "pool": {},
            "rounds": [],
            "warmups": [],
            "metrics": {},
            "stages": [],
            "environment": environment(),
            "process": this_process(),
        }
        self.save()

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Times a stage. Stages nest; a stage met again (a round's training) gets an entry of its own."""
        heed()
        self._count()
        stage = Stage(name)
        self.stages.append(stage)
        self._open.append(stage)
        try:
            yield stage
        finally:
            self._count()
            self._open.pop()
            self.save()
            if self.begun:
                self._keep()

    def _count(self) -> None:
        """Gives the innermost open stage the time since the last call: a kill at any moment finds all of it counted."""
        now = time.monotonic()
        if self._open:
            self._open[-1].seconds += now - self._counted
        self._counted = now

    def pool(self, pool: Pool, budget: int) -> None:
        self.facts["pool"] = {
            "name": pool.name,
            "examples": len(pool),
            "fingerprint": pool.fingerprint,
            "skipped": dict(pool.skipped),
        }
        self.facts["budget"] = budget
        self.save()

    def round(self, selection: Selection, pool: Pool) -> None:
        """Adds a round and rewrites `selection.parquet` and `selected.jsonl` with all rounds so far."""
        self._selections.append(selection)
        chosen = pool.take(selection.indices).sources
        clusters = selection.clusters
        self.facts["rounds"].append(
            {
                "round": len(self._selections),
                "examples": len(selection.indices),
                "sources": dict(Counter(chosen).most_common()),
                "clusters": None if clusters is None else len(np.unique(clusters)),
            }
        )
        write_selection(self.folder, self._selections, pool)
        self.save()

    @property
    def chosen(self) -> npt.NDArray[np.int64]:
        """All that was chosen so far: distinct indices into the pool, in their order."""
        return np.unique(np.concatenate([s.indices for s in self._selections]))

    def scores(self, pool: Pool, quality: npt.NDArray[np.float32]) -> None:
        """Writes `scores.parquet`: id and quality of every example of the pool, chosen or not."""
        self.facts["scores"] = {"mean": quality.mean(), "lowest": quality.min(), "highest": quality.max()}
        write_scores(self.folder, pool, quality)
        self.save()

    def clusters(self, facts: Mapping[str, Any], rows: Table, choice: Choice | None) -> None:
        """Writes `clusters.parquet`, a row for each cluster of the pool, and what k was chosen by, where it was."""
        self.facts["clustering"] = dict(facts)
        write_table(self.folder / "clusters.parquet", rows)
        if choice is not None:
            choice.save(self.folder)
        self.save()

    def note(self, table: str, round: int, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> None:
        """Adds rows about a round to `rounds/<table>.parquet`: what an iterative selector weighed and heard."""
        import pyarrow as pa

        length = len(next(iter(columns.values())))
        rows = self._tables.setdefault(table, [])
        rows.append(pa.table({"round": np.full(length, round), **columns}))
        (self.folder / "rounds").mkdir(exist_ok=True)
        write_table(self.folder / "rounds" / f"{table}.parquet", pa.concat_tables(rows))

    def targets(self, facts: Mapping[str, Any]) -> None:
        """What was chosen for: how many examples, and of which tasks."""
        self.facts["targets"] = dict(facts)
        self.save()

    def contamination(self, facts: Mapping[str, Any]) -> None:
        """How much of what is evaluated on, or chosen for, is in what was chosen."""
        self.facts["contamination"] = dict(facts)
        self.save()

    def map(self, points: Table) -> None:
        """Writes `map.parquet`, a plane picture of the pool."""
        write_table(self.folder / "map.parquet", points)

    def training(self, outcome: Mapping[str, float], *, warmup: bool = False) -> None:
        """What the trainer reports of the last round, or of a warm-up after it: examples, tokens, steps, loss."""
        if warmup:
            self.facts["warmups"].append({"after": len(self.facts["rounds"]), "training": dict(outcome)})
        else:
            self.facts["rounds"][-1]["training"] = dict(outcome)
        self.save()

    def discard_trainings(self) -> None:
        """The model begins anew: what was trained till now was for the choice alone."""
        for stage in self.stages:
            stage.discarded = stage.discarded or stage.name in TRAININGS

    def metrics(self, metrics: Mapping[str, Metric]) -> None:
        self.facts["metrics"] = {name: metric.to_dict() for name, metric in metrics.items()}
        self.save()

    def tracked(self, where: Mapping[str, Any]) -> None:
        """Where the tracker keeps this run."""
        self.facts["tracker"] = dict(where)
        self.save()

    def finish(self, status: str, error: str | None = None) -> None:
        self.facts["status"] = status
        if error is not None:
            self.facts["error"] = redact(error)
        self.facts["seconds"] = round(time.monotonic() - self._start, 3)
        self.save()
        self._keep()

    def save(self) -> None:
        self.facts["stages"] = [s.to_dict() for s in self.stages]
        self.facts["cost"] = cost(self.stages).to_dict()
        write_sealed(self.folder / "record.json", finite(self.facts))
