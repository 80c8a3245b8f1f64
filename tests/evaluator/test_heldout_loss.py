"""The loss on held-out examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.errors import ConfigError
from dsel.evaluator.heldout_loss import HeldoutLoss
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from tests.conftest import make_pool


def test_it_is_the_mean_over_examples_with_its_standard_error(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    learner = Learner(spec, None, cache, seed=0)
    pool, heldout = make_pool(30).hold_out(10)
    found = HeldoutLoss().evaluate(learner, pool, heldout, cache, tmp_path)["heldout_loss"]
    losses = learner.nll(heldout.messages)
    assert found.value == pytest.approx(losses.mean())
    assert found.stderr == pytest.approx(losses.std(ddof=1) / np.sqrt(10))
    assert (found.n, found.higher_is_better) == (10, False)


def test_it_reads_any_instruction_file(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"q{i}", "completion": f"a{i}"}) + "\n" for i in range(7)))
    evaluator = HeldoutLoss(path=str(file), limit=5)
    empty = make_pool(3).take([])
    assert evaluator.evaluate(Learner(spec, None, cache, seed=0), make_pool(3), empty, cache, tmp_path)[
        "heldout_loss"
    ].n == 5  # fmt: skip


def test_nothing_held_out_is_said_in_one_line(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    pool = make_pool(3)
    with pytest.raises(ConfigError, match=r"has no example: a larger data\.holdout"):
        HeldoutLoss().evaluate(Learner(spec, None, cache, seed=0), pool, pool.take([]), cache, tmp_path)
