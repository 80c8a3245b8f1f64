"""Every experiment runs with every sweep it is meant for, at toy size: a small pool, model and encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dsel.cache import Cache
from dsel.config_groups import GROUPS, options, register
from dsel.experiment import Experiment
from dsel.model.causal_lm import CausalLM
from dsel.record.writer import Record
from dsel.trainer.none import NoTrainer
from tests.conftest import ROOT
from tests.report.test_experiments import jobs, pairs

TOY = [
    "data=procedural", "data.size=60", "embedder=tfidf_svd", "clusterer.k=4", "scorer=column", "scorer.name=rating",
    "trainer=full", "trainer.epochs=1", "trainer.max_length=64", "evaluator=none", "tracker=none",
]  # fmt: skip
LARGE = ("budget", "clusterer.k", "embedder", "model", "data", "selector/feedback")


@pytest.mark.parametrize(("name", "sweep"), pairs())
def test_the_last_job_of_each_grid_runs(name: str, sweep: str, spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    """What the grid varies is kept, but for sizes and parts that no toy has. Only selectors that look have a model."""
    kept = [o for o in jobs(name, sweep)[-1] if o.partition("=")[0] not in LARGE]
    own = ["~targets.tasks", *TARGETS, "selector=dsir"] if name == "targeted" else []  # its targets are of the hub
    run_toy([f"experiments={name}", *kept, *TOY, *own], spec, cache, tmp_path)


VARIANTS = [name for name in options("selector") if name.startswith("iterative_")]  # of one that runs here


@pytest.mark.parametrize(
    "selector",
    [pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else []) for name in options("selector")],
)
def test_every_selector_runs_in_the_quickstart(selector: str, spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    """With its own embedder and scorer, and nothing of the hub but a feedback that a selector is called after."""
    small = ["data.size=60", "clusterer.k=4", "trainer.epochs=1", "trainer.max_length=64", "evaluator=none"]
    small += FURTHER.get(selector, [])
    budget = 60 if selector == "full" else 12
    run_toy(["experiments=quickstart", f"selector={selector}", *small, "tracker=none"], spec, cache, tmp_path, budget)


TARGETS = ["targets=split", "targets.sources=[classroom]", "targets.examples=3"]
FURTHER = {  # what those that choose for a target are told of it
    "bm25": TARGETS,
    "dsir": TARGETS,
    "nearest": [*TARGETS, "embedder=hashing"],
    "tsds": [*TARGETS, "embedder=hashing"],
    "gist": [*TARGETS, "trainer=lora", "trainer.max_length=64", "selector.checkpoints=2", "selector.dimensions=64"],
    "less": [*TARGETS, "trainer=lora", "trainer.max_length=64", "selector.checkpoints=2", "selector.dimensions=64"],
}


def run_toy(overrides: list[str], spec: CausalLM, cache: Cache, folder: Path, budget: int = 12) -> None:
    """Without training where the selector does not look; where it does, the model is its feedback."""
    if "feedback" in composed(overrides).selector:
        overrides = [*overrides, "selector/feedback=perplexity", "selector.max_new_tokens=4"]
    parts = {group: instantiate(composed(overrides)[group], _convert_="all") for group in GROUPS}
    if "model" not in parts["selector"].needs:
        parts["trainer"] = NoTrainer()
    made = Experiment(**parts | {"model": spec}, budget=budget, seed=0, cache=cache)
    made.check()
    record = Record(folder, {}, {})
    made.run(record)
    assert sum(r["examples"] for r in record.facts["rounds"]) >= 12
    assert len((folder / "selected.jsonl").read_text().splitlines()) >= 12


def composed(overrides: list[str]) -> Any:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=overrides)
