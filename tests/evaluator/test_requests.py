"""The harness's requests by shards: the answers of its own model, whoever gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.described import describe, make
from dsel.engine.local import Local
from dsel.evaluator.base import Evaluator
from dsel.evaluator.harness import Harness
from dsel.evaluator.heldout_loss import HeldoutLoss
from dsel.evaluator.procedural import Procedural
from dsel.evaluator.requests import Kind, Request, Requests, asking, live_model
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from tests.conftest import make_pool

GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 4}
SAMPLED = {"until": [], "do_sample": True, "temperature": 1.0, "max_gen_toks": 4}
CONTEXTS = [f"Say the {'very ' * (i % 5)}number {i}." for i in range(19)]


@pytest.fixture
def learner(spec: CausalLM, cache: Cache) -> Learner:
    return Learner(spec, None, cache, seed=0)


def requests(kind: Kind, generation: dict[str, Any] = GREEDY) -> list[Request]:
    more: dict[str, list[Any]] = {
        "loglikelihood": [(" yes",), (" or no",)],
        "loglikelihood_rolling": [()],
        "generate_until": [(generation,)],
    }
    return [Request((context, *rest)) for context in CONTEXTS for rest in more[kind]]


@pytest.mark.parametrize("kind", ["loglikelihood", "loglikelihood_rolling", "generate_until"])
def test_answers_by_shards_are_those_of_the_harness(kind: Kind, learner: Learner, tmp_path: Path) -> None:
    found = getattr(asking(learner, batch_size=1, seed=0, folder=tmp_path), kind)(requests(kind))
    expected = getattr(live_model(learner.snapshot(), 4), kind)(requests(kind), disable_tqdm=True)
    if kind == "generate_until":
        assert found == expected
    else:
        np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-5)
    if kind == "loglikelihood":
        assert {type(each) for pair in found for each in pair} == {float, bool}
    assert not list(tmp_path.iterdir())


def test_what_is_drawn_depends_on_seed_and_request_alone(learner: Learner, tmp_path: Path) -> None:
    same = [Request(("Say a number.", SAMPLED))] * 24  # three shards

    def drawn(seed: int) -> list[str]:
        return asking(learner, batch_size=1, seed=seed, folder=tmp_path).generate_until(same)

    first = drawn(0)
    assert drawn(0) == first != drawn(1)
    assert first[:8] != first[8:16]


def test_requests_can_be_sent(learner: Learner) -> None:
    worker = Requests(learner.snapshot(), "generate_until", 4, 3)
    assert make(json.loads(json.dumps(describe(worker)))) == worker
    assert (worker.shard_size, worker.suffix) == (32, ".json")


@pytest.mark.slow
def test_two_workers_measure_what_one_does(spec: CausalLM, tmp_path: Path) -> None:
    """Answers, likelihoods and losses, to the last digit; the leading process loads no model."""
    rows = [{"q": f"Is {i} a number?", "choices": ["yes", "no", "who knows"], "a": i % 3} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "chosen",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "chosen.yaml").write_text(json.dumps(task))

    class Chosen(Harness):
        uses_builtin_tasks = False

        def task_folders(self, cache: Cache) -> list[Path]:
            return [tmp_path / "tasks"]

    evaluators: list[Evaluator] = [
        Chosen(tasks={"chosen": {"shots": 0, "metric": "acc,none"}}, batch_size=2),
        Procedural(tasks={"procedural": {"shots": 0, "metric": "exact_match,answer"}}, per_kind=2, batch_size=2),
        HeldoutLoss(),
    ]
    found = []
    for workers in (1, 2):
        learner = Learner(spec, None, Cache(tmp_path / "cache"), seed=0, engine=Local(workers))
        pools = make_pool(300).hold_out(200)
        found.append([each.evaluate(learner, *pools, learner.cache, tmp_path) for each in evaluators])
        assert ("model" in vars(learner.snapshot())) == (workers == 1)
    assert found[0] == found[1]
