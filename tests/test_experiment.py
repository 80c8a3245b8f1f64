"""The loop: what each kind of step does to the model and the record, and what it asks of its components."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dsel.cache import Cache
from dsel.clusterer.base import Clustering
from dsel.config_groups import register
from dsel.data.local import Local
from dsel.embedder.rds import Rds
from dsel.errors import ConfigError, need
from dsel.experiment import Experiment, Problem
from dsel.model.causal_lm import CausalLM
from dsel.model.tiny import Tiny
from dsel.plan import observed
from dsel.record.writer import Record
from dsel.selector.base import Choose, Selection, Selector, Step, Train
from dsel.stage import Stage
from dsel.study import Study
from dsel.trainer.base import Training
from dsel.trainer.none import NoTrainer
from tests.conftest import ROOT
from tests.selector.test_iterative import experiment


def test_a_pool_that_was_read_before_is_found(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    made = experiment(spec, cache)
    made.data = Local(path=file, holdout=2)
    stages: list[Stage] = []

    @contextmanager
    def stage(name: str) -> Iterator[Stage]:
        stages.append(Stage(name))
        yield stages[-1]

    def load(last: str) -> Problem:
        rows = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(40)] + [{"prompt": last, "completion": "a"}]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return made.problem(stage)

    first, again = load("q"), load("q")
    assert [(s.cached, s.items) for s in stages] == [(False, 39), (True, 39)]
    assert first.pool.fingerprint == again.pool.fingerprint and first.heldout.ids == again.heldout.ids
    assert first.pool.messages == again.pool.messages
    edited = load("another")
    assert not stages[-1].cached and edited.pool.fingerprint != first.pool.fingerprint


class Warming(Selector):
    """Trains on the last five of the pool, then chooses the first three and trains on."""

    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        before = learner.state
        time.sleep(0.2)
        yield Train(np.arange(len(study.pool) - 5, len(study.pool)), Training(epochs=1))
        assert learner.state != before
        yield Choose(Selection(np.arange(3)), Training(restart=False))
        assert [fit["part"] for fit in learner.state["history"]] == [[1, 1], [1, 1]]


def test_a_warm_up_trains_and_chooses_nothing(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    for cached in (False, True):
        folder = tmp_path / str(cached)
        folder.mkdir()
        made, record = experiment(spec, cache), Record(folder, {}, {})
        made.selector = Warming()
        made.run(record)
        facts = json.loads((folder / "record.json").read_text())
        (warmup,), (round,) = facts["warmups"], facts["rounds"]
        assert (warmup["after"], warmup["training"]["examples"]) == (0, 5)
        assert (round["examples"], round["training"]["examples"]) == (3, 3)
        stages = [(s["name"], s["cached"]) for s in facts["stages"] if s["name"] in ("select", "warm up", "train")]
        cost = facts["cost"]  # of a model that goes on from its warm-up
        assert cost["training"]["flops"] == sum(part["training"]["flops"] for part in (warmup, round))
        assert set(cost["choosing"]["parts"]) == {"select"} and not cost["choosing"]["unknown"]
        select = ("select", False)
        assert stages == [select, ("warm up", cached), select, ("train", cached), select]
        assert next(s for s in facts["stages"] if s["name"] == "select")["seconds"] >= 0.2  # before the first yield

    facts["config"] = {"trainer": vars(made.trainer)}
    for stage in facts["stages"]:
        stage["cached"] = False
    trained = [(name, units) for name, units, _ in observed(facts) if name in ("train", "warm up")]
    assert trained == [("train", warmup["training"]["tokens"]), ("train", round["training"]["tokens"])]


@pytest.mark.parametrize("group", ["data", "embedder", "clusterer", "scorer", "trainer", "evaluator", "tracker"])
def test_every_component_has_what_an_experiment_relies_on(group: str) -> None:
    """Those called `none` too."""
    kind = get_type_hints(Experiment)[group]
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for path in sorted((ROOT / "conf" / group).glob("[!_]*.yaml")):
            component = instantiate(compose("config", overrides=[f"{group}={path.stem}"])[group], _convert_="all")
            assert isinstance(component, kind), path.stem


@dataclass
class Halves:
    """A clusterer with no more than is asked for, and in need of no base class."""

    k: int = 2
    low_quality: float = 0.3

    def check(self) -> None:
        pass

    def check_size(self, n: int) -> None:
        need(n >= 100, "too few")

    def cluster(self, x: np.ndarray) -> Clustering:
        labels = np.arange(len(x)) * 2 // len(x)
        centroids = np.stack([x[labels == c].mean(0) for c in range(2)])
        return Clustering(labels, centroids, ((x - centroids[labels]) ** 2).sum(1))


def test_a_component_of_somebody_elses(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    made, record = experiment(spec, cache, "selector=kmeans_uniform"), Record(tmp_path, {}, {})
    made.clusterer, made.trainer = Halves(), NoTrainer()
    made.check()
    made.run(record)
    assert json.loads((tmp_path / "record.json").read_text())["clustering"]["k"] == 2
    made.data.limit = 50  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="too few"):
        made.problem()
    made.clusterer = "kmeans"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="clusterer=kmeans: wants a Clusterer"):
        made.check()


def test_a_model_is_made_for_an_embedder_that_only_the_selector_asks(
    spec: CausalLM, cache: Cache, tmp_path: Path
) -> None:
    """MIG embeds labels, and no example of the pool."""
    made = experiment(spec, cache, "selector=mig")
    made.trainer, made.embedder = NoTrainer(), Rds(model=Tiny(steps=2, hidden=32, layers=1, dtype="float32"))
    made.run(Record(tmp_path, {}, {}))
    assert (tmp_path / "selection.parquet").exists()


@pytest.mark.parametrize(("budget", "said"), [(1, True), (1.0, False), (0.5, False), (2, False)])
def test_a_budget_of_one_is_said_to_be_all(
    budget: float, said: bool, spec: CausalLM, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    made = experiment(spec, cache)
    made.budget = budget
    study = made.problem().study
    assert (study.budget == len(study.pool)) == (budget == 1)
    assert ("budget=1 means all of the pool" in caplog.text) == said
