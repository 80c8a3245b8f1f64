"""The loop: what each kind of step does to the model and the record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsel.cache import Cache
from dsel.model.causal_lm import CausalLM
from dsel.plan import observed
from dsel.record.writer import Record
from dsel.selector.base import Choose, Selection, Selector, Step, Train
from dsel.study import Study
from dsel.trainer.base import Training
from tests.selector.test_iterative import experiment


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
        select = ("select", False)
        assert stages == [select, ("warm up", cached), select, ("train", cached), select]
        assert next(s for s in facts["stages"] if s["name"] == "select")["seconds"] >= 0.2  # before the first yield

    facts["config"] = {"trainer": vars(made.trainer)}
    for stage in facts["stages"]:
        stage["cached"] = False
    trained = [(name, units) for name, units, _ in observed(facts) if name in ("train", "warm up")]
    assert trained == [("train", warmup["training"]["tokens"]), ("train", round["training"]["tokens"])]
