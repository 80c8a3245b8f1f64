"""RDS+'s embeddings: the released code's, and right whatever is in the batch."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from dsel.embedder.rds import Rds
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import encode
from tests.conftest import ROOT

TARGETS = ROOT.parent / "shared" / "golden" / "targets"
SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"
TULU = """{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] }}{% if m['role'] == 'assistant' %}\
{{ eos_token }}{% endif %}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}\
{{ '\\n<|assistant|>\\n' }}{% endif %}"""

CHATS = [
    [{"role": "user", "content": "Say one"}, {"role": "assistant", "content": "one"}],
    [{"role": "user", "content": "Say many more words than that, " * 9}, {"role": "assistant", "content": "two " * 30}],
    [{"role": "user", "content": "Say three"}, {"role": "assistant", "content": "three, and then four"}],
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: Any) -> CausalLM:
    """A model of random weights in a folder, with a tokenizer."""
    from dsel.model.pretraining import train_tokenizer

    folder = tmp_path_factory.mktemp("rds")
    tokenizer = train_tokenizer([m["content"] for chat in CHATS for m in chat] * 3)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return CausalLM(hub="", path=str(folder), dtype="float32")


@pytest.mark.parametrize("pooling", ["weighted", "mean", "last"])
def test_pooled_as_defined_whatever_else_is_in_the_batch(small, pooling):
    embedder = Rds(model=small, pooling=pooling, max_length=40)
    found, counts = embedder.read(CHATS)
    tokenizer = small.load_tokenizer()
    model = small.load(tokenizer).eval()
    for chat, vector, (size, read, limit) in zip(CHATS, found, counts, strict=True):
        ids = encode(tokenizer, chat)[0]
        assert (size, read, limit) == (len(ids), min(len(ids), 40), 40)
        with torch.no_grad():
            hidden = model.model(torch.tensor([ids[:40]])).last_hidden_state[0]
        weight = torch.arange(1.0, len(hidden) + 1) if pooling == "weighted" else torch.ones(len(hidden))
        mean = hidden[-1] if pooling == "last" else (hidden * (weight / weight.sum())[:, None]).sum(dim=0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_what_is_cut_is_counted_and_embed_gives_the_same(small, tmp_path):
    embedder = Rds(model=small, max_length=40)
    found = embedder.embed(CHATS, tmp_path)
    np.testing.assert_allclose(found, embedder.read(CHATS)[0], atol=1e-6)
    assert not np.allclose(found, replace(embedder, text="prompt").read([embedder.turns(c)[:1] for c in CHATS])[0])


@pytest.mark.slow
@pytest.mark.skipif(not (SMOLLM2.is_dir() and TARGETS.is_dir()), reason=f"needs {SMOLLM2} and {TARGETS}")
def test_embeddings_are_the_released_ones(tmp_path):
    golden = np.load(TARGETS / "rdsplus_embed.npz")
    (tmp_path / "tulu.jinja").write_text(TULU)
    model = CausalLM(hub="", path=str(SMOLLM2), dtype="float32", chat_template=str(tmp_path / "tulu.jinja"))
    train, query = (
        [json.loads(line)["messages"] for line in (TARGETS / f"rdsplus_{name}.jsonl").read_text().splitlines()]
        for name in ("train", "query")
    )
    for pooling, name in (("weighted", "weighted_mean"), ("mean", "mean"), ("last", "none")):
        embedder = Rds(model=model, pooling=pooling)
        (pool, counts), (targets, _) = embedder.read(train), embedder.read(query)
        np.testing.assert_array_equal(counts[:, 0], golden["train_lengths"])
        np.testing.assert_allclose(targets @ pool.T, golden[f"{name}_cossim"], atol=1e-5)
        if pooling == "weighted":
            np.testing.assert_allclose(pool, golden["weighted_mean_train_embeds"], atol=1e-5)
