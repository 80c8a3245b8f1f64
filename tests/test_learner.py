"""What selectors and evaluators ask of the model: losses and answers."""

from __future__ import annotations

import numpy as np
import pytest

from dsel import learner as learner_module
from dsel.cache import Cache
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED, encode, render
from tests.conftest import make_pool


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
    monkeypatch.setattr(learner_module, "TOKENS_A_BATCH", 1)
    np.testing.assert_allclose(learner.nll(conversations()), whole, rtol=1e-5)


def test_nll_of_a_response_beyond_the_limit_is_nan(learner: Learner) -> None:
    losses = learner.nll(conversations(), max_length=20)
    assert np.isnan(losses[9])
    assert np.isfinite(losses[0])


def test_answers_come_in_order_and_do_not_depend_on_the_batch(learner: Learner) -> None:
    import torch

    prompts = [messages[:-1] for messages in conversations()]
    batched = learner.generate(prompts, max_new_tokens=8)
    assert batched == learner.generate(prompts, max_new_tokens=8, batch_size=1)
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
