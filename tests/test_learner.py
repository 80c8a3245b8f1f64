"""What selectors and evaluators ask of the model: losses, answers, and to learn, from the start or on from there."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel import snapshot as snapshot_module
from dsel.cache import Cache
from dsel.learner import Learner
from dsel.model import vllm
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED, encode, render
from dsel.pool import Pool
from dsel.trainer.base import Training
from dsel.trainer.sft import SFT
from tests.conftest import make_pool
from tests.trainer.small import SETTINGS


@pytest.fixture
def learner(spec: CausalLM, cache: Cache) -> Learner:
    return Learner(spec, None, cache, seed=0)


def conversations() -> list[list[dict[str, str]]]:
    long = make_pool(5, prompt="word " * 30 + "{i}", answer="answer " * 9 + "{i}").messages
    return [*make_pool(9).messages, *long, *make_pool(3).messages]


def test_nll_is_the_mean_loss_over_response_tokens(learner: Learner) -> None:
    import torch

    expected = []
    for messages in conversations():
        ids, labels = encode(learner.tokenizer, messages)
        with torch.no_grad():
            logits = learner.model(torch.tensor([ids])).logits[0, :-1].double()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=IGNORED)
        expected.append(float(loss))
    np.testing.assert_allclose(learner.nll(conversations()), expected, rtol=1e-5)


def test_nll_does_not_depend_on_how_it_is_batched(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = learner.nll(conversations())
    monkeypatch.setattr(snapshot_module, "TOKENS_A_BATCH", 1)
    np.testing.assert_allclose(learner.nll(conversations()), whole, rtol=1e-5)


def test_nll_of_a_response_beyond_the_limit_is_nan(learner: Learner) -> None:
    losses = learner.nll(conversations(), max_length=20)
    assert np.isnan(losses[9])
    assert np.isfinite(losses[0])


def test_answers_come_in_order_and_do_not_depend_on_the_batch(learner: Learner) -> None:
    import torch

    prompts = [messages[:-1] for messages in conversations()]
    batched = learner.generate(prompts, max_new_tokens=8)
    assert batched == [learner.generate([prompt], max_new_tokens=8)[0] for prompt in prompts]
    ids = learner.tokenizer(
        render(learner.tokenizer, prompts[10], generation_prompt=True), add_special_tokens=False, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        for _ in range(8):
            token = learner.model(ids).logits[0, -1].argmax()
            ids = torch.cat([ids, token.view(1, 1)], dim=1)
            if token == learner.tokenizer.eos_token_id:
                break
    text = learner.tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text.endswith(batched[10])


# Trainings

LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
ON = Training(restart=False)

both = pytest.mark.parametrize("options", [{}, LORA], ids=["full", "lora"])
pytestmark = pytest.mark.usefixtures("quick_collections")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = {"examples": 1, "tokens": 1, "steps": 2, "loss": 0.5}
    monkeypatch.setattr(SFT, "train", lambda *args, **kwargs: dict(outcome))


def new_learner(spec: CausalLM, cache: Cache, *, seed: int = 0, **options: Any) -> Learner:
    return Learner(spec, SFT(**{**SETTINGS, **options}), cache, seed=seed)


def pools() -> tuple[Pool, Pool]:
    return make_pool(16), make_pool(16, prompt="What is {i}?")


def weights(learner: Learner) -> dict[str, Any]:
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


def equal(one: dict[str, Any], two: dict[str, Any]) -> bool:
    import torch

    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@both
def test_a_fit_begins_at_the_base_model_or_where_the_last_one_ended(
    spec: CausalLM, tmp_path: Path, options: dict[str, Any]
) -> None:
    first, second = pools()
    alone = new_learner(spec, Cache(tmp_path / "alone"), **options)
    alone.fit(second)
    learner = new_learner(spec, Cache(tmp_path / "cache"), **options)
    learner.fit(first)
    once = weights(learner)
    learner.fit(second, ON)
    twice = weights(learner)
    learner.fit(second)
    again = weights(learner)
    assert equal(again, weights(alone))
    assert not equal(twice, again)
    assert not equal(twice, once)
    if options:
        changed = {name for name in once if not bool((once[name] == twice[name]).all())}
        assert changed and all("lora_" in name for name in changed)
    else:
        learner.fit(first)
        learner.write(tmp_path / "first")
        from_there = new_learner(replace(spec, path=str(tmp_path / "first")), Cache(tmp_path / "there"))
        from_there.fit(second)
        assert equal(weights(from_there), twice)


@both
def test_what_was_asked_of_the_base_model_before_changes_nothing(
    spec: CausalLM, tmp_path: Path, options: dict[str, Any], learner: Learner
) -> None:
    pool, _ = pools()
    quiet, asked = (new_learner(spec, Cache(tmp_path / name), **options) for name in ("quiet", "asked"))
    np.testing.assert_array_equal(asked.nll(pool.messages), learner.nll(pool.messages))
    assert asked.generate(pool.prompts, max_new_tokens=4) == learner.generate(pool.prompts, max_new_tokens=4)
    quiet.fit(pool)
    asked.fit(pool)
    assert equal(weights(quiet), weights(asked))


def test_a_training_can_have_its_own_number_of_epochs(spec: CausalLM, cache: Cache) -> None:
    pool, _ = pools()
    longer = new_learner(spec, cache)
    assert longer.fit(pool, Training(epochs=2))["steps"] == 4
    same = new_learner(spec, cache, epochs=2)
    assert same.fit(pool) == {**longer.fit(pool, Training(epochs=2)), "cached": 1}
    assert same.state == longer.state


@pytest.mark.usefixtures("no_training")
def test_a_model_is_known_by_all_that_it_has_learnt(spec: CausalLM, tmp_path: Path) -> None:
    first, second = pools()
    histories: dict[str, tuple[dict[str, Any], list[tuple[Pool, Training]]]] = {
        "first": ({}, [(first, Training())]),
        "second": ({}, [(second, Training())]),
        "first, second": ({}, [(first, Training()), (second, ON)]),
        "second, first": ({}, [(second, Training()), (first, ON)]),
        "first, first": ({}, [(first, Training()), (first, ON)]),
        "two epochs": ({}, [(first, Training(epochs=2))]),
        "two epochs, second": ({}, [(first, Training(epochs=2)), (second, ON)]),
        "part one of two": ({}, [(first, Training(part=(1, 2)))]),
        "part one of three": ({}, [(first, Training(part=(1, 3)))]),
        "in parts": ({}, [(first, Training(part=(1, 2))), (second, Training(restart=False, part=(2, 2)))]),
        "other rate": ({"learning_rate": 1e-3}, [(first, Training())]),
        "lora": (LORA, [(first, Training())]),
        "other seed": ({"seed": 1}, [(first, Training())]),
        "nothing": ({}, []),
    }
    same: dict[str, tuple[dict[str, Any], list[tuple[Pool, Training]]]] = {
        "first": ({}, [(second, Training()), (first, Training())]),
        "first, second": ({"log_every": 3, "save": True}, [(second, ON), (first, Training(epochs=1)), (second, ON)]),
        "two epochs": ({"epochs": 2}, [(first, ON)]),  # to go on from nothing is to begin
    }

    def state(name: str, options: dict[str, Any], fits: list[tuple[Pool, Training]]) -> str:
        learner = new_learner(spec, Cache(tmp_path / name), **options)
        for pool, training in fits:
            learner.fit(pool, training)
        return learner.cache.path("model", learner.state).name

    states = {name: state(name, *history) for name, history in histories.items()}
    assert len(set(states.values())) == len(histories)
    for name, history in same.items():
        assert state(f"{name} again", *history) == states[name], name


@both
def test_a_fit_that_is_known_loads_nothing_until_the_model_is_asked(
    spec: CausalLM, cache: Cache, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pools()
    known = new_learner(spec, cache, **options)
    outcomes = [known.fit(first), known.fit(second, ON)]
    losses = known.nll(first.messages)
    loads: list[str | None] = []
    load = CausalLM.load

    def counted(self: CausalLM, *args: Any, **kwargs: Any) -> Any:
        loads.append(self.path)
        return load(self, *args, **kwargs)

    monkeypatch.setattr(CausalLM, "load", counted)
    again = new_learner(spec, cache, **options)
    assert [again.fit(first), again.fit(second, ON)] == [{**outcome, "cached": 1} for outcome in outcomes]
    assert again.state == known.state
    assert loads == []
    np.testing.assert_array_equal(again.nll(first.messages), losses)
    assert len(loads) == 1


@pytest.mark.usefixtures("no_training")
def test_forgetting_drops_every_training_of_the_run(spec: CausalLM, cache: Cache) -> None:
    first, second = pools()
    other = new_learner(spec, cache, seed=9)
    other.fit(first)
    (kept,) = (p for p in cache.folder.glob("fits/*") if p.is_dir())
    learner = new_learner(spec, cache)
    learner.fit(first)
    learner.fit(second, ON)
    learner.fit(second)
    new_learner(spec, cache).fit(first)  # found, not another one
    assert len([p for p in cache.folder.glob("fits/*") if p.is_dir()]) == 4
    learner.forget()
    assert [p for p in cache.folder.glob("fits/*") if p.is_dir()] == [kept]


@both
def test_a_trained_model_answers_as_what_was_saved_of_it(spec: CausalLM, cache: Cache, options: dict[str, Any]) -> None:
    """In bfloat16 too, where training's autocast would stay around the model, and casting it would round its rotary
    frequencies: a run that was killed reads the model from its folder, and must see the same one."""
    spec = replace(spec, dtype="bfloat16")
    options = options or {"dtype": "float32"}
    pool, _ = pools()
    learner = new_learner(spec, cache, **options)
    learner.fit(pool)
    reader = new_learner(spec, cache, **options)
    assert "cached" in reader.fit(pool)
    np.testing.assert_array_equal(learner.nll(pool.messages), reader.nll(pool.messages))
    ids = reader.tokenizer("Say the number 3.", return_tensors="pt")
    assert learner.model(**ids).logits.equal(reader.model(**ids).logits)


def test_between_parts_the_weights_stay_as_precise_as_in_training(spec: CausalLM, cache: Cache) -> None:
    import torch

    pool, _ = pools()
    learner = new_learner(replace(spec, dtype="bfloat16"), cache, dtype="float32")
    learner.fit(pool, Training(part=(1, 2)))
    assert learner.model.dtype == torch.float32
    assert any(bool((p != p.bfloat16()).any()) for p in learner.model.parameters())
    assert np.isfinite(learner.nll(pool.messages)).all()
    learner.fit(pool, Training(part=(2, 2), restart=False))
    assert learner.model.dtype == torch.bfloat16


@both
@pytest.mark.usefixtures("no_training")
def test_vllm_reads_the_model_as_it_stands(
    spec: CausalLM, cache: Cache, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model, then the trained weights or the adapters on it: with all that was said of the model."""
    asked: list[tuple[CausalLM, dict[str, Any]]] = []

    def answer(
        model: CausalLM,
        tokenizer: Any,
        texts: list[str],
        *,
        weights: Path | None = None,
        adapters: Path | None = None,
        **more: Any,
    ) -> list[str]:
        asked.append((model, {"weights": weights, "adapters": adapters}))
        return texts

    monkeypatch.setattr(vllm, "chosen", lambda model: True)
    monkeypatch.setattr(vllm, "generate", answer)
    spec = replace(spec, revision="refs/pr/1", trust_remote_code=True)
    learner = new_learner(spec, cache, **options)
    learner.generate(make_pool(1).prompts)
    learner.fit(make_pool(8))
    learner.generate(make_pool(1).prompts)
    folder = learner.trainings.folder(learner.trainings.last)
    nothing = {"weights": None, "adapters": None}
    assert asked == [(spec, nothing), (spec, nothing | {"adapters" if options else "weights": folder})]


def test_a_training_leaves_nothing_in_memory(spec: CausalLM, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = SFT.load

    def watched(*args: Any, **kwargs: Any) -> Any:
        model = load(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(SFT, "load", watched)
    new_learner(spec, cache).fit(make_pool(8))
    assert [model() for model in loaded] == [None]
