"""The reward scorer on a small random model, against one conversation at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from dsel.errors import ConfigError
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import render, template
from dsel.reading import cuts
from dsel.scorer.reward import Reward, padding_for
from tests.conftest import ROOT
from tests.scorer.pools import MIXED, Turns, pool_of

POOL = pool_of(*MIXED, system="Be kind.")


def build(folder: Path, spec: CausalLM, *, labels: int = 1, pad: str | None = None) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = spec.load_tokenizer()
    if pad is not None:
        tokenizer.pad_token = pad
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_labels=labels, pad_token_id=tokenizer.pad_token_id, initializer_range=0.3,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def expected(folder: Path) -> list[float]:
    """The head applied to the last token's hidden state, without any padding."""
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForSequenceClassification.from_pretrained(folder, use_safetensors=True).eval()
    out = []
    with torch.no_grad():
        for messages in POOL.messages:
            ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
            out.append(float(model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1])))
    return out


@pytest.mark.parametrize("pad", [None, "<|end|>"])
@pytest.mark.parametrize("tokens", [1, 10**6])
def test_scores_are_the_logit_at_the_last_token(spec: CausalLM, tmp_path: Path, pad: str | None, tokens: int) -> None:
    folder = build(tmp_path / "model", spec, pad=pad)
    scorer = Reward(hub="", path=str(folder), dtype="float32", device="cpu", tokens_a_batch=tokens)
    scorer.check()
    scores = scorer.score(POOL, tmp_path)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected(folder), rtol=1e-4, atol=1e-5)
    assert len(set(scores.tolist())) == len(scores)


def test_a_model_with_several_logits_is_refused(spec: CausalLM, tmp_path: Path) -> None:
    folder = build(tmp_path / "model", spec, labels=2)
    with pytest.raises(ConfigError, match="has one logit, this one has 2"):
        Reward(hub="", path=str(folder)).score(POOL, tmp_path)


def test_a_long_conversation_is_cut_and_its_last_exchange_read(spec: CausalLM, tmp_path: Path) -> None:
    scorer = Reward(hub="", path=str(build(tmp_path / "model", spec)), dtype="float32", device="cpu", max_length=64)

    def score(*conversations: Turns, system: str | None = None, max_length: int = 64) -> list[float]:
        scratch = tmp_path / str(len(list(tmp_path.iterdir())))
        scratch.mkdir()
        noted.append(scratch)
        pool = pool_of(*conversations, system=system)
        return replace(scorer, max_length=max_length).score(pool, scratch).tolist()

    noted: list[Path] = []
    short: list[Turns] = [[("Why ?", "so")], [("How ?", "thus")]]
    np.testing.assert_allclose(score(*short, system="word " * 90), score(*short), rtol=1e-5)
    (cut,) = cuts(noted[0])
    assert (cut["reader"], cut["limit"], cut["texts"], cut["of"]) == ("reward scorer", 64, 2, 2)
    assert cut["tokens"] > 180 and cuts(noted[1]) == []
    np.testing.assert_allclose(score([("word " * 90, "x " * 90), *short[0]]), score(short[0]), rtol=1e-5)
    one, other = score([("word " * 90, "yes")], [("word " * 90, "no")])
    assert one != other != score([("word " * 90, "no")], max_length=512)[0]


def test_no_more_is_read_than_the_model_has_positions_for(spec: CausalLM, tmp_path: Path) -> None:
    folder = build(tmp_path / "model", spec)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 80}))
    scorer = Reward(hub="", path=str(folder), dtype="float32", device="cpu")
    scorer.score(pool_of([("word " * 90, "yes")]), tmp_path)
    assert cuts(tmp_path)[0]["limit"] == 80


def test_hh_rlhf_reads_conversations_as_it_was_trained(spec: CausalLM, tmp_path: Path) -> None:
    """Its model card's format, with the token that begins a text."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=["scorer=reward_hh_rlhf"]).scorer
    assert (config.hub, config.revision) == ("weqweasdas/hh_rlhf_rm_open_llama_3b", "refs/pr/2")
    tokenizer = spec.load_tokenizer()
    tokenizer.chat_template = template(config.chat_template, option="scorer.chat_template")
    tokenizer.bos_token = "<s>"
    two = [("How do wolves live ?\n", "In packs. "), ("And {bears} ?", "Alone.")]
    (plain,), (told,) = pool_of(two).messages, pool_of(two, system="Be brief.").messages
    expected = "###Human: How do wolves live ? ###Assistant: In packs. ###Human: And {bears} ? ###Assistant: Alone."
    assert render(tokenizer, plain) == "<s>" + expected
    assert render(tokenizer, told) == "<s>" + expected.replace("Human: How", "Human: Be brief.\nHow")
    assert render(tokenizer, plain[:3], generation_prompt=True).endswith("And {bears} ? ###Assistant:")
    folder = build(tmp_path / "model", spec)
    scorer = Reward(hub="", path=str(folder), dtype="float32", device="cpu", chat_template="hh_rlhf")
    scorer.check()
    assert len(set(scorer.score(POOL, tmp_path).tolist())) == len(POOL)


def test_padding_is_no_token_of_the_texts() -> None:
    assert padding_for([[1, 2], [3]], 0) == 0
    assert padding_for([[1, 2], [0]], 0) == 3
    assert padding_for([[1, 2]], None) == 0
