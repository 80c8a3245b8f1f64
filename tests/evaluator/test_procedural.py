"""The procedural tasks: every kind counts the same, and what is asked was never in a pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsel.cache import Cache
from dsel.data.procedural import KINDS, heldout
from dsel.errors import ConfigError
from dsel.evaluator.procedural import Procedural
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from tests.conftest import make_pool

TASKS = {"procedural": {"shots": 0, "metric": "exact_match,answer"}}


def evaluate(spec: CausalLM, cache: Cache, folder: Path):  # type: ignore[no-untyped-def]
    evaluator = Procedural(tasks=TASKS, per_kind=2, chat_template=True, max_new_tokens=4)
    return evaluator.evaluate(Learner(spec, None, cache, seed=0), make_pool(4), make_pool(4).take([]), cache, folder)


def test_one_task_for_each_kind_and_their_mean(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    metrics = evaluate(spec, cache, tmp_path)
    assert set(metrics) == {"procedural", *(kind.name for kind in KINDS)}
    assert metrics["procedural"].n == 2 * len(KINDS)
    assert not metrics["procedural"].detail
    assert all(metrics[kind.name].detail and metrics[kind.name].n == 2 for kind in KINDS)


def test_right_answers_score_one_and_half_right_a_half(
    spec: CausalLM, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval.models.huggingface as hf

    rows = heldout(2, 0)
    answers = {row["prompt"]: row["answer"] for row in rows}
    wrong = {row["prompt"] for row in rows[::2]}

    def answer(self, requests, disable_tqdm=False):  # type: ignore[no-untyped-def]
        out = []
        for request in requests:
            prompt = max((p for p in answers if p in request.args[0]), key=len)
            out.append("no idea" if prompt in wrong else f" {answers[prompt]}")
        return out

    monkeypatch.setattr(hf.HFLM, "generate_until", answer)
    metrics = evaluate(spec, cache, tmp_path)
    assert metrics["procedural"].value == pytest.approx(0.5)
    assert metrics["procedural"].stderr > 0


def test_some_kinds_are_asked_the_same_as_among_all() -> None:
    some = heldout(3, 0, ["past", "capital"])
    assert some == [row for row in heldout(3, 0) if row["kind"] in ("past", "capital")]
    with pytest.raises(ConfigError, match=r"evaluator\.kinds: there is no kind verse; there are"):
        Procedural(tasks=TASKS, kinds=["past", "verse"]).check()
