"""Runs killed at a point, launched again, and compared with one left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsel.interrupt import TO_GO_ON
from dsel.record.facts import OddRecord
from dsel.record.reader import RunFolder
from tests.conftest import QUICK, offline
from tests.faults.inject import SMALL
from tests.faults.launch import Ended, launch
from tests.faults.outcome import Outcome

TOY = [
    *QUICK, "data.size=200", "budget=24", "trainer.batch_size=4", "trainer.micro_batch_size=4", "evaluator.per_kind=1",
    "trainer.checkpoint_minutes=1e-9", "scorer=column", "scorer.name=rating", "clusterer.k=6",
]  # fmt: skip
PIPELINES = {
    "kmq": ["selector=kmq", "tracker=wandb", "tracker.mode=offline"],
    "iterative": ["selector=iterative_perplexity", "selector.max_new_tokens=8", "tracker=none"],
    "iterit": ["selector=iterit", "tracker=none"],
}
SHARDS = {"dsel.questions:ANSWERS_A_SHARD": 5, "dsel.scorer.base:SHARD": 16}
OFTEN = {**SHARDS, "dsel.clusterer.kept:EVERY": 0}

BEGINS, SAVES = "dsel.trainer.sft:tokenized", "dsel.trainer.checkpoints:save_state"
POINTS: dict[tuple[str, str], list[str]] = {
    ("kmq", "pool read"): ["dsel.data.procedural:Procedural.load"],
    ("kmq", "record begun"): ["dsel.record.writer:Record.save"],
    ("kmq", "pool recorded"): ["dsel.record.writer:Record.pool"],
    ("kmq", "tracker started"): ["dsel.tracker.wandb:Wandb.start"],
    ("kmq", "embeddings written"): ["dsel.npy:Rows.write */embeddings/*"],
    ("kmq", "embeddings have their name"): ["dsel.cache:publish */embeddings/*"],
    ("kmq", "clusters half computed"): ["dsel.clusterer.kept:save_piece"] * 5,
    ("kmq", "clusters written"): ["dsel.clusterer.base:Clustering.save"],
    ("kmq", "clusters have their name"): ["dsel.cache:publish */clusterings/*"],
    ("kmq", "scores written"): ["numpy:save */scores/*"],
    ("kmq", "selection written"): ["dsel.record.writer:write_selection"],
    ("kmq", "training begins"): [BEGINS],
    ("kmq", "first checkpoint half written"): [BEGINS, SAVES],
    ("kmq", "second checkpoint half written"): [BEGINS, SAVES, SAVES],
    ("kmq", "a checkpoint whole"): [BEGINS, "dsel.trainer.checkpoints:write_json */digests.json"],
    ("kmq", "weights written"): ["dsel.trainer.job:save"],
    ("kmq", "weights have their name"): ["dsel.cache:publish */fits/*"],
    ("kmq", "training recorded"): ["dsel.record.writer:Record.training"],
    ("kmq", "evaluated"): ["dsel.evaluator.procedural:Procedural.read"],
    ("kmq", "metrics recorded"): ["dsel.record.writer:Record.metrics"],
    ("kmq", "tracker in its last second"): ["dsel.tracker.wandb:Wandb.finish"],
    ("kmq", "record finished"): ["dsel.record.writer:Record.finish"],
    ("kmq", "remembered"): ["dsel.sweep:remember"],
    ("kmq", "weights renamed away"): ["dsel.sweep:remember", "pathlib:Path.rename"],
    ("iterative", "answers half generated"): ["dsel.shards:save_piece */answers/*-00000005-*.json"],
    ("iterative", "feedback half computed"): ["dsel.shards:save_piece */feedback/*-00000016-*.npy"],
    ("iterative", "second training's checkpoint"): [BEGINS, BEGINS, SAVES, SAVES],
    ("iterative", "second training done"): ["dsel.cache:publish */fits/*", "dsel.cache:publish */fits/*"],
    ("iterit", "difficulty half measured"): ["dsel.shards:save_piece */ifd/*-00000016-*.npy"],
    ("iterit", "second part's checkpoint"): [BEGINS, BEGINS, SAVES, SAVES],
    ("iterit", "optimizer used up"): ["dsel.cache:Lease.drop"],
}
SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGUSR1")


class Pipeline:
    """Runs of one configuration in one folder, with what an undisturbed run of it leaves."""

    def __init__(self, name: str, folder: Path, model: Path):
        self.name, self.folder = name, folder
        self.arguments = ["-m", *TOY, *PIPELINES[name], f"model.path={model}"]
        self.calm = self.run(folder / "calm")
        assert self.calm.code == 0, self.calm.out[-3000:]
        self.expected = left(folder / "calm" / "runs")

    def run(
        self,
        folder: Path,
        *more: str,
        point: Sequence[str] = (),
        fault: str = "",
        environment: Mapping[str, str] = {},
    ) -> Ended:
        """Launch it with `folder` for its cache, runs and HOME, and a fault at a point."""
        (folder / "home").mkdir(parents=True, exist_ok=True)
        own = {"WANDB_MODE": "offline", "HOME": str(folder / "home"), SMALL: json.dumps(OFTEN), **environment}
        arguments = [
            *self.arguments,
            *([] if any(m.startswith("runs=") for m in more) else [f"runs={folder / 'runs'}"]),
        ]
        return launch([*arguments, *more], folder, environment=offline(folder, **own), point=point, fault=fault)

    def killed(self, where: str, signal: str) -> Outcome:
        """Kill at the point called `where`, launch again, and compare."""
        folder = self.folder / f"{where.replace(' ', '-').replace(chr(39), '')}-{signal}"
        first = self.run(folder, point=POINTS[self.name, where], fault=signal)
        again = self.run(folder)
        wrong = []
        expected = {"SIGKILL": -9, "SIGINT": 1}.get(signal, TO_GO_ON)
        if first.code not in (expected, 0, 130):
            wrong.append(f"ended with {first.code}: {first.out[-300:]}")
        if first.traceback or again.traceback:
            wrong.append("traceback")
        if signal != "SIGKILL" and first.seconds > 5:
            wrong.append(f"{signal} took {first.seconds:.1f} s")
        if again.code != 0:
            wrong.append(f"the next launch ended with {again.code}: {again.out[-500:]}")
        elif left(folder / "runs") != self.expected:
            wrong.append("another selection or other metrics")
        wrong += leftovers(folder / "cache")
        if not wrong:
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(signal, f"{self.name}: {where}", "equal after another launch", "; ".join(wrong))


def left(runs: Path) -> dict[str, Any]:
    """What the one finished run in `runs` left."""
    found = all_left(runs)
    assert len(found) == 1, f"{len(found)} finished runs"
    return found[0]


def all_left(runs: Path) -> list[dict[str, Any]]:
    """What each finished run in `runs` left: its selection, byte for byte, its metrics and its last losses."""
    found = []
    for file in runs.glob("*/record.json"):
        try:
            record, selection = RunFolder.read(file.parent).facts, (file.parent / "selection.parquet").read_bytes()
        except (OddRecord, OSError, ValueError):  # of a run that is unfinished or damaged
            continue
        if record["status"] == "finished":
            losses = [round(part["training"]["loss"], 5) for part in record["rounds"]]
            found.append({"selection": selection, "metrics": record["metrics"], "losses": losses})
    return found


def leftovers(cache: Path) -> list[str]:
    """Folders in the cache that nobody will ever look at again, or that should have gone."""
    names = [p.relative_to(cache).as_posix() for p in cache.glob("*/*") if p.is_dir()]
    odd = [n for n in names if ".gone-" in n or n.endswith((".partial", ".damaged")) or n.startswith("fits/")]
    return [f"left in the cache: {', '.join(odd)}"] if odd else []
