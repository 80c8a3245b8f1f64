"""Many processes at once, on one cold cache."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.faults.kills import Pipeline, leftovers
from tests.faults.outcome import Outcome, Trial


def _start(pipeline: Pipeline, folder: Path, name: str, more: list[str], results: Path) -> None:
    ended = pipeline.run(folder / name, *more)
    (results / f"{name}.json").write_text(json.dumps([ended.code, ended.out[-400:]]))


def _all(pipeline: Pipeline, folder: Path, more: dict[str, list[str]]) -> dict[str, tuple[int, str]]:
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_start, args=(pipeline, folder, n, m, results)) for n, m in more.items()]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {name: tuple(json.loads((results / f"{name}.json").read_text())) for name in more}  # type: ignore[misc]


def equal_runs(pipeline: Pipeline, processes: int, times: int) -> Iterator[Trial]:
    """Equal runs, training included, which all compute the same artifacts and forget the same weights."""
    for number in range(times):
        yield partial(_equal_runs, pipeline, processes, number)


def _equal_runs(pipeline: Pipeline, processes: int, number: int) -> Outcome:
    folder = pipeline.folder / f"race-{number}"
    cache = f"cache={folder / 'cache'}"
    ended = _all(pipeline, folder, {f"p{i}": [cache] for i in range(processes)})
    wrong = [f"{name} ended with {code}: {out}" for name, (code, out) in ended.items() if code]
    selections = {p.read_bytes() for p in folder.glob("p*/runs/*/selection.parquet")}
    if selections != {pipeline.expected["selection"]}:
        wrong.append(f"{len(selections)} selections")
    wrong += leftovers(folder / "cache")
    return Outcome(f"{processes} processes", f"one cold cache, time {number + 1}", "all equal", "; ".join(wrong))


def equal_sweeps(pipeline: Pipeline, sweeps: int) -> Outcome:
    """Sweeps of the same four jobs, launched at once: four runs in all."""
    folder = pipeline.folder / "sweeps"
    shared = [f"cache={folder / 'cache'}", f"runs={folder / 'runs'}", "seed=0,1", "budget=12,24"]
    ended = _all(pipeline, folder, {f"s{i}": shared for i in range(sweeps)})
    wrong = [f"{name} ended with {code}: {out}" for name, (code, out) in ended.items() if code]
    finished = [p for p in folder.glob("runs/*/record.json") if json.loads(p.read_text())["status"] == "finished"]
    if len(finished) != 4:
        wrong.append(f"{len(finished)} finished runs")
    return Outcome(f"{sweeps} sweeps at once", "four equal jobs", "each job ran once", "; ".join(wrong))
