"""Run folders as runs leave them, without the running: real configurations and records, made-up figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsel.evaluator.base import Metric, average
from dsel.record.reader import RunFolder
from dsel.record.writer import Record
from dsel.report.match import Composer
from dsel.stage import Stage

ENVIRONMENT = {"python": "3.11", "versions": {}, "commit": None, "dirty": False, "gpus": [], "processors": 2}


def made_record(
    folder: Path,
    *overrides: str,
    seed: int = 0,
    values: Mapping[str, float | None],
    started: str = "2026-01-01T00:00:00+00:00",
    higher_is_better: bool = True,
    sources: Mapping[str, int] | None = None,
    silhouette: float | None = None,
    status: str = "finished",
    stages: Sequence[Stage] = (),
    pool: str = "0" * 24,
) -> Record:
    """The record of a run in `folder` of the configuration that Hydra composes of `overrides` and `seed`.

    values: of its metrics, as shares of one. stages: what it went through. pool: what its pool is known by.
    """
    from omegaconf import OmegaConf

    folder.mkdir(parents=True, exist_ok=True)
    composer = Composer([*overrides, f"seed={seed}"])
    config = composer.composed(()).config
    choices = {"experiments": next((o[12:] for o in overrides if o.startswith("experiments=")), None)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsel.record.writer.environment", lambda: ENVIRONMENT)
        record = Record(
            folder, OmegaConf.to_container(config, resolve=True), {**choices, **composer.composed(()).choices}
        )
    budget = int(config.budget * 6000) if config.budget <= 1 else int(config.budget)
    record.facts |= {
        "started": started,
        "pool": {"name": str(config.data.name), "examples": 6000, "fingerprint": pool, "skipped": {}},
        "budget": budget,
        "rounds": [{"round": 1, "examples": budget, "sources": dict(sources or {"forum": budget}), "clusters": 8}],
    }
    if silhouette is not None:
        record.facts["clustering"] = {"k": config.clusterer.k, "inertia": 1.0, "silhouette": silhouette}
    record.stages = list(stages)
    metrics = {
        name: Metric(value, 0.01, "acc,none", 100, higher_is_better=higher_is_better)
        for name, value in values.items()
        if value is not None
    }
    if len(metrics) > 1 and "average" not in metrics:
        metrics = {"average": average(metrics), **metrics}
    record.metrics(metrics)
    if status == "running":
        record.save()
    else:
        record.finish(status)
    return record


def made_run(folder: Path, *overrides: str, **facts: Any) -> RunFolder:
    """As `made_record`, read as the report reads it."""
    record = made_record(folder, *overrides, **facts)
    return RunFolder.read(record.folder)


def made_grid(
    folder: Path, experiment: str, rows: Mapping[str, Sequence[float]], *, metric: str = "procedural", **facts: Any
) -> list[RunFolder]:
    """A run for each value of each row: overrides (with spaces between them) → the metric for seeds 0, 1, …"""
    return [
        made_run(
            folder / f"{number}_{seed}", f"experiments={experiment}", *overrides.split(), seed=seed,
            values={metric: value}, **facts,
        )
        for number, (overrides, values) in enumerate(rows.items())
        for seed, value in enumerate(values)
    ]  # fmt: skip


def add_rounds(folder: Path, *, clusters: int = 20, rounds: int = 3) -> None:
    """What an iterative selector notes of its rounds."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(clusters), rounds)
    (folder / "rounds").mkdir()
    table = pa.table(
        {
            "round": np.repeat(np.arange(1, rounds + 1), clusters),
            "cluster": np.tile(np.arange(clusters), rounds),
            "size": np.full(rounds * clusters, 30),
            "weight": weights.ravel(),
            "chosen": np.full(rounds * clusters, 3),
        }
    )
    pq.write_table(table, folder / "rounds" / "weights.parquet")


def add_map(folder: Path, *, n: int = 3000, clusters: int = 8) -> None:
    """The map of a pool, as a run with embeddings writes it."""
    rng = np.random.default_rng(1)
    centres, own = rng.normal(size=(clusters, 2)) * 4, rng.integers(clusters, size=n)
    xy = centres[own] + rng.normal(size=(n, 2))
    chosen = rng.random(n) < 0.1
    pq.write_table(pa.table({"x": xy[:, 0], "y": xy[:, 1], "cluster": own, "chosen": chosen}), folder / "map.parquet")
