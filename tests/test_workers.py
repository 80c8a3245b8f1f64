"""Whole runs whose maps are computed by two workers, beside those of one: the same files, also after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import inject
from tests.test_strategies import ROUNDS, Runs, same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
FILES = {
    "embeddings": "embeddings.npy", "scores": "scores.npy", "answers": "answers.json", "feedback": "losses.npy"
}  # fmt: skip
OPTIONS = [
    *ROUNDS[:-1], "scorer=perplexity", "scorer.hub=none", "embedder=rds", "trainer.strategy=single", "data.size=300",
    "data.holdout=0", "evaluator.batch_size=1",
]  # fmt: skip


def found(folder: Path) -> dict[str, list[bytes]]:
    """What is in the cache of a run, by kind."""
    return {kind: sorted(f.read_bytes() for f in folder.rglob(f"{kind}/*/{name}")) for kind, name in FILES.items()}


def test_maps_by_two_workers_leave_the_files_of_one(tmp_path: Path, small_model: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import dsel.embedder.base as base\nbase.SHARD = 64\n")
    runs = Runs(tmp_path, small_model, "full")
    runs.options += [*OPTIONS, f"scorer.path={small_model}"]
    code, said = runs.start("one")
    assert code == 0, said
    code, said = runs.start("two", "engine.workers=2")
    assert code == 0, said
    for title in ("embedding", "perplexity", "evaluating"):
        assert f"{title}: 2 workers" in said
    files = found(tmp_path / "two")
    assert files == found(tmp_path / "one") and all(files.values()), {kind: len(f) for kind, f in files.items()}
    same(runs.left("two"), runs.left("one"))
    given = "dsel.engine.spread:Shards.hand_to"  # two when the workers are ready, then one for each that is done
    told = {inject.FAULT: json.dumps({"point": [given] * 5, "fault": "SIGKILL"})}
    told[inject.STRUCK] = str(tmp_path / "struck")
    code, said = runs.start("killed", "engine.workers=2", **told)
    assert code == -9, said
    code, said = runs.start("killed", "engine.workers=2")
    assert code == 0 and "examples were done before" in said, said
    assert found(tmp_path / "killed") == files
    same(runs.left("killed"), runs.left("one"))
