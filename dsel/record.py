"""What a run leaves behind: configuration, selection, metrics, timings and the circumstances, in its folder."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.component import digest
from dsel.distributed import world_size
from dsel.files import finite, read_json, unsealed, write_sealed
from dsel.interrupt import heed
from dsel.secrets import redact
from dsel.stage import Stage

if TYPE_CHECKING:
    from dsel.evaluator.base import Metric
    from dsel.pool import Pool
    from dsel.selector.base import Selection

log = logging.getLogger(__name__)

PACKAGES = (
    "dsel torch transformers trl peft accelerate datasets lm_eval sentence-transformers faiss-cpu faiss-gpu "
    "scikit-learn numpy hydra-core wandb"
).split()

FORMAT = 1  # of record.json: what is in it, and what it is called

MAP_POINTS = 4000  # chosen, and as many others, in the picture of the pool


class Record:
    """Collects a run's facts and keeps `record.json` in `folder` up to date, each time whole.

    In a job of several processes only the first one writes (`writes=True`).
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], choices: Mapping[str, Any], *, writes: bool = True):
        self.folder = folder
        self.writes = writes
        self.stages: list[Stage] = []
        self._open: list[Stage] = []
        self._selections: list[Selection] = []
        self._tables: dict[str, list[Any]] = {}
        self._start = time.monotonic()
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
        }
        self.save()

    @staticmethod
    def read(folder: Path) -> Mapping[str, Any]:
        """The facts that a run left in `folder`. Raises OSError or ValueError where that has changed."""
        return unsealed(read_json(folder / "record.json"))

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Times a stage. Stages nest; a stage met again (a round's training) gets an entry of its own."""
        heed()
        stage = Stage(name)
        self.stages.append(stage)
        self._open.append(stage)
        start = time.monotonic()
        try:
            yield stage
        finally:
            elapsed = time.monotonic() - start
            stage.seconds += elapsed
            self._open.pop()
            if self._open:
                self._open[-1].seconds -= elapsed
            self.save()

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
        if self.writes:
            write_selection(self.folder, self._selections, pool)
        self.save()

    def computed(self, known: Mapping[str, Any], pool: Pool, *, low_quality: float) -> None:
        """Adds what the selector had computed of the whole pool, once: nothing is computed for the record's sake.

        known: a study's `clustering` and `quality`, where it has them. Writes `clusters.parquet` (with what k was
        chosen by) and `scores.parquet`, the id and quality of every example, chosen or not.
        """
        clustering, quality = known.get("clustering"), known.get("quality")
        if quality is not None and "scores" not in self.facts:
            self.facts["scores"] = {"mean": quality.mean(), "lowest": quality.min(), "highest": quality.max()}
            if self.writes:
                write_scores(self.folder, pool, quality)
        if clustering is not None and "clustering" not in self.facts:
            from dsel.clusterer.diagnostics import report

            folder = self.folder if self.writes else None
            self.facts["clustering"] = report(clustering, pool, quality, low_quality=low_quality, folder=folder)
        self.save()

    def note(self, table: str, round: int, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> None:
        """Adds rows about a round to `rounds/<table>.parquet`: what an iterative selector weighed and heard."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        length = len(next(iter(columns.values())))
        rows = self._tables.setdefault(table, [])
        rows.append(pa.table({"round": np.full(length, round), **columns}))
        if self.writes:
            (self.folder / "rounds").mkdir(exist_ok=True)
            temporary = self.folder / "rounds" / f"{table}.tmp"
            pq.write_table(pa.concat_tables(rows), temporary)
            temporary.replace(temporary.with_suffix(".parquet"))

    def map(self, known: Mapping[str, Any]) -> None:
        """Writes `map.parquet`, a plane picture of the pool, where the selector had its `embeddings` computed."""
        embeddings, clustering = known.get("embeddings"), known.get("clustering")
        if self.writes and embeddings is not None and len(embeddings) > 2:
            chosen = np.unique(np.concatenate([s.indices for s in self._selections]))
            write_map(self.folder, embeddings, None if clustering is None else clustering.labels, chosen)

    def training(self, outcome: Mapping[str, float], *, warmup: bool = False) -> None:
        """What the trainer reports of the last round, or of a warm-up after it: examples, tokens, steps, loss."""
        if warmup:
            self.facts["warmups"].append({"after": len(self.facts["rounds"]), "training": dict(outcome)})
        else:
            self.facts["rounds"][-1]["training"] = dict(outcome)
        self.save()

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

    def save(self) -> None:
        if self.writes:
            self.facts["stages"] = [s.to_dict() for s in self.stages]
            write_sealed(self.folder / "record.json", finite(self.facts))


def objective(facts: Mapping[str, Any]) -> float | None:
    """The figure a sweeper looks at: the first metric that is no detail of another; the average where there is one."""
    metrics = {name: m["value"] for name, m in facts["metrics"].items() if not m["detail"]}
    return metrics.get("average", next(iter(metrics.values()), None))


def write_selection(folder: Path, rounds: list[Selection], pool: Pool) -> None:
    """Writes `selection.parquet` and `selected.jsonl`.

    The first has a row for each choice; the second each chosen example in its original form, once even where several
    rounds chose it (a method that wants it twice says so: `Selection.repeats`).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    indices = np.concatenate([s.indices for s in rounds])

    def column(name: str, dtype: Any) -> Any:
        parts = [getattr(s, name) for s in rounds]
        nothing = [p is None for p in parts]
        values = np.concatenate(
            [np.zeros(len(s.indices)) if p is None else np.asarray(p) for s, p in zip(rounds, parts, strict=True)]
        )
        mask = np.concatenate([np.full(len(s.indices), n) for s, n in zip(rounds, nothing, strict=True)])
        return pa.array(values, mask=mask).cast(dtype)

    taken = pool.take(indices)
    table = pa.table(
        {
            "round": np.concatenate([np.full(len(s.indices), i + 1) for i, s in enumerate(rounds)]),
            "index": indices,
            "id": taken.ids,
            "source": taken.sources,
            "cluster": column("clusters", pa.int64()),
            "weight": column("weights", pa.float64()),
            "score": column("scores", pa.float32()),
        }
    )
    temporary = folder / "selection.parquet.tmp"
    pq.write_table(table, temporary)
    temporary.replace(folder / "selection.parquet")
    temporary = folder / "selected.jsonl.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        seen: set[int] = set()
        for selection in rounds:
            own = [int(i) for i in selection.indices if int(i) not in seen]
            seen.update(own)
            file.writelines(line + "\n" for line in pool.take(own).originals["json"])
    temporary.replace(folder / "selected.jsonl")


def write_scores(folder: Path, pool: Pool, quality: npt.NDArray[np.float32]) -> None:
    """Writes `scores.parquet`: id and quality of every example of the pool."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": pool.ids, "score": quality}), folder / "scores.parquet")


def write_map(
    folder: Path,
    embeddings: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64] | None,
    chosen: npt.NDArray[np.int64],
) -> None:
    """Writes `map.parquet`: index, x, y (the first two principal components), cluster or null, and whether chosen.

    Of the examples chosen and of the others, up to MAP_POINTS each; the components are those of these points.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.decomposition import PCA

    others = np.setdiff1d(np.arange(len(embeddings)), chosen)
    draws = np.random.default_rng(0)
    shown = [np.sort(draws.permutation(part)[:MAP_POINTS]) for part in (chosen, others)]
    index = np.concatenate(shown)
    plane = PCA(2, svd_solver="randomized", random_state=0).fit_transform(embeddings[index])
    table = pa.table(
        {
            "index": index,
            "x": plane[:, 0].astype(np.float32),
            "y": plane[:, 1].astype(np.float32),
            "cluster": pa.nulls(len(index), pa.int64()) if labels is None else pa.array(labels[index]),
            "chosen": np.arange(len(index)) < len(shown[0]),
        }
    )
    pq.write_table(table, folder / "map.parquet")


def environment() -> dict[str, Any]:
    """Versions, commit and hardware: what somebody who repeats the run needs to compare. Imports nothing heavy."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "versions": versions,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "system": platform.platform(),
        "processors": _processors(),
        "processes": world_size(),
        "gpus": _gpus(),
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()
