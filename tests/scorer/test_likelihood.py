"""IFD and perplexity against their definitions, one example at a time; the published code's numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.component import digest
from dsel.errors import ConfigError
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED
from dsel.model.likelihood import Encoded, batches, mean_nll
from dsel.reading import cuts
from dsel.scorer import base
from dsel.scorer.ifd import IFD, SYSTEM, difficulty, encode
from dsel.scorer.perplexity import Perplexity
from tests.conftest import ROOT, shared
from tests.scorer.pools import MIXED, pool_of

POOL = pool_of(*MIXED)
SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"


@pytest.fixture
def ifd(small_model: Path) -> IFD:
    return IFD(hub="", path=str(small_model), dtype="float32", device="cpu")


@pytest.fixture
def perplexity(small_model: Path) -> Perplexity:
    return Perplexity(hub="", path=str(small_model), dtype="float32", device="cpu")


def loss(model: Any, ids: list[int], positions: Sequence[int]) -> float:
    """Mean −log p of the tokens at `positions`, from the whole logits."""
    import torch

    with torch.no_grad():
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return float(np.mean([-logp[t - 1, ids[t]] for t in positions]))


@pytest.mark.parametrize("turn", ["first", "last"])
def test_ifd_is_the_ratio_of_perplexities(ifd: IFD, spec: CausalLM, tmp_path: Path, turn: str) -> None:
    tokenizer = spec.load_tokenizer()
    model = spec.load(tokenizer)
    expected = []
    for messages in POOL.messages:
        *before, answer = messages[:2] if turn == "first" else messages
        before = [{"role": "system", "content": SYSTEM}, *before]
        losses = []
        for chat in ([*before, answer], [answer]):
            ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
            header = tokenizer.convert_tokens_to_ids("<|assistant|>")
            start = max(t for t, token in enumerate(ids) if token == header)
            losses.append(loss(model, ids, range(start + 1, len(ids))))
        expected.append(np.exp(losses[0]) / np.exp(losses[1]))
    scores = replace(ifd, turn=turn).score(POOL, tmp_path)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert len(set(scores.tolist())) == len(scores)


def test_perplexity_is_minus_the_mean_loss_of_the_responses(
    perplexity: Perplexity, spec: CausalLM, tmp_path: Path
) -> None:
    tokenizer = spec.load_tokenizer()
    model = spec.load(tokenizer)
    header, end = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|end|>"])
    expected = []
    for messages in POOL.messages:
        ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        inside = []
        for start in (t for t, token in enumerate(ids) if token == header):
            inside += range(start + 1, ids.index(end, start) + 1)
        expected.append(-loss(model, ids, inside))
    np.testing.assert_allclose(perplexity.score(POOL, tmp_path), expected, rtol=1e-4)


@pytest.mark.parametrize("which", ["ifd", "perplexity"])
def test_neither_batch_nor_shard_changes_the_scores(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = request.getfixturevalue(which)
    (tmp_path / "one").mkdir()
    (tmp_path / "all").mkdir()
    together = replace(scorer, tokens_a_batch=10**6).score(POOL, tmp_path / "all")
    monkeypatch.setattr(base, "SHARD", 2)
    alone = replace(scorer, tokens_a_batch=1).score(POOL, tmp_path / "one")
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_both_texts_hold_the_same_answer(spec: CausalLM) -> None:
    tokenizer = spec.load_tokenizer()
    for prompt, response in [("Say it", "words of an answer"), ("Say it", ""), ("|end|>", "assistant|>"), ("a", "a")]:
        given, alone = encode(tokenizer, prompt, response, max_length=512)
        answers = [[token for token in labels if token != IGNORED] for _, labels in (given, alone)]
        assert (
            answers[0]
            == answers[1]
            == tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        )
        assert all(labels[-len(answers[0]) :] == answers[0] for _, labels in (given, alone))


def test_both_are_cut_to_the_same_answer(spec: CausalLM) -> None:
    tokenizer = spec.load_tokenizer()
    given, alone = encode(tokenizer, "word " * 30, "blue " * 100, max_length=64)
    counts = [sum(label != IGNORED for label in labels) for _, labels in (given, alone)]
    assert len(given[0]) == 64
    assert counts[0] == counts[1] > 0
    given, alone = encode(tokenizer, "word " * 100, "blue", max_length=64)
    assert all(label == IGNORED for label in given[1] + alone[1])


def test_a_prompt_that_leaves_no_room_gets_the_lowest_score(
    ifd: IFD, perplexity: Perplexity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of([("word " * 200, "answer")], [("Why ?", "because")], [("Who ?", "me , of course")])
    for scorer in (ifd, perplexity):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            scores = replace(scorer, max_length=64).score(pool, tmp_path)
        assert np.isfinite(scores).all() and scores[0] == (0 if scorer is ifd else scores[1:].min())
        assert "ids e0" in caplog.text


def test_what_is_cut_is_counted_and_a_system_prompt_goes_first(
    ifd: IFD, perplexity: Perplexity, tmp_path: Path
) -> None:
    conversations = [[("Why ?", "because")], [("Who ?", "me , of course")]]
    pool, bare = pool_of(*conversations, system="word " * 90), pool_of(*conversations)
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    short = replace(perplexity, max_length=64)
    np.testing.assert_allclose(short.score(pool, folders[0]), short.score(bare, folders[1]), rtol=1e-5)
    (cut,) = cuts(folders[0])
    assert (cut["reader"], cut["limit"], cut["texts"], cut["of"]) == ("perplexity scorer", 64, 2, 2)
    assert cut["tokens"] >= 180 and cuts(folders[1]) == []
    replace(ifd, max_length=64).score(pool_of([("Why ?", "word " * 90)], [("Why ?", "yes")]), folders[2])
    (cut,) = cuts(folders[2])
    assert (cut["reader"], cut["limit"], cut["texts"], cut["of"]) == ("ifd scorer", 64, 1, 2)
    assert cut["of_tokens"] - cut["tokens"] == 64


def test_a_killed_scoring_goes_on(ifd: IFD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    expected = ifd.score(POOL, tmp_path / "whole")
    monkeypatch.setattr(base, "SHARD", 3)
    calls: list[int] = []

    def counted(model: Any, encoded: Sequence[Encoded], **options: Any) -> Any:
        calls.append(len(encoded))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return mean_nll(model, encoded, **options)

    monkeypatch.setattr("dsel.scorer.ifd.mean_nll", counted)
    with pytest.raises(KeyboardInterrupt):
        ifd.score(POOL, tmp_path / "killed")
    np.testing.assert_allclose(ifd.score(POOL, tmp_path / "killed"), expected, rtol=1e-5)
    assert calls == [6, 6, 6, 2]  # each response with and without its prompt


def test_a_model_that_rescales_its_logits_is_read_through_its_own_head() -> None:
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, pad_token_id=0,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    texts = [[3, 4, 5, 6, 7], [8, 9, 10]]
    found = mean_nll(model, [(ids, [IGNORED, *ids[1:]]) for ids in texts])
    np.testing.assert_allclose(found, [loss(model, ids, range(1, len(ids))) for ids in texts], rtol=1e-5)


def test_a_text_without_labels_has_no_loss(spec: CausalLM) -> None:
    model = spec.load(spec.load_tokenizer())
    found = mean_nll(model, [([5, 6], [IGNORED, IGNORED]), ([5, 6], [IGNORED, 6])])
    assert np.isnan(found[0]) and np.isfinite(found[1])
    assert np.isnan(mean_nll(model, [([5, 6], [IGNORED, IGNORED])])).all()


def test_batches_hold_their_budget_and_everything_once() -> None:
    lengths = [5, 1, 9, 3, 3, 30, 2]
    found = batches(lengths, 12)
    assert sorted(i for batch in found for i in batch) == list(range(7))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 12 for batch in found)
    assert found[0] == [5]


def test_a_template_that_refuses_is_a_configuration_error(ifd: IFD, tmp_path: Path) -> None:
    path = tmp_path / "strict.jinja"
    refuses = "{% if messages[0]['role'] == 'assistant' %}{{ raise_exception('users first') }}{% endif %}"
    path.write_text(refuses + "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}")
    with pytest.raises(ConfigError, match=r"users first.*scorer\.chat_template=turns"):
        replace(ifd, chat_template=str(path)).score(POOL, tmp_path)
    with pytest.raises(ConfigError, match="neither one of .*turns"):
        replace(ifd, chat_template="nowhere").check()
    assert np.isfinite(replace(ifd, chat_template="turns").score(POOL, tmp_path)).all()


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_dir(), reason=f"needs {SMOLLM2}")
def test_the_published_code_gives_the_same_ifd() -> None:
    golden = json.loads(shared("golden/ifd_smollm2.json").read_text())
    scorer = IFD(hub="", path=str(SMOLLM2), dtype="float32", device="cpu")
    model, tokenizer = scorer.load()
    prompts = [e["instruction"] + (f"\nInput: {e['input']}" if e["input"] else "") for e in golden["examples"]]
    pairs = [
        encode(tokenizer, prompt, example["output"], max_length=2048)
        for prompt, example in zip(prompts, golden["examples"], strict=True)
    ]
    given, alone = ([pair[side] for pair in pairs] for side in (0, 1))
    for texts, starts in ((given, golden["cond_start"]), (alone, golden["prior_start"])):
        assert [labels.count(IGNORED) for _, labels in texts] == starts
        assert [len(ids) - start for (ids, _), start in zip(texts, starts, strict=True)] == golden["answer_len"]
    assert tokenizer.decode(given[0][0]) == golden["whole_text0"]
    assert tokenizer.decode(alone[0][0]) == golden["prior_text0"]
    conditional, prior = mean_nll(model, given), mean_nll(model, alone)
    np.testing.assert_allclose(conditional, golden["cond_nll"], atol=1e-4)
    np.testing.assert_allclose(prior, golden["prior_nll"], atol=1e-4)
    np.testing.assert_allclose(difficulty(conditional, prior), golden["ifd"], rtol=1e-3)


def test_a_template_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jinja", tmp_path / "two.jinja"
    for path in (one, two):
        path.write_text("{{ messages }}")
    keys = [digest(IFD(hub="x", chat_template=str(path))) for path in (one, two)]
    two.write_text("{{ messages[0] }}")
    assert keys[0] == keys[1] != digest(IFD(hub="x", chat_template=str(two)))
