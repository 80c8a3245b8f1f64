"""A causal language model as encoder, with a tiny random Llama built here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.component import digest
from dsel.embedder.base import Vectors
from dsel.embedder.causal_lm import CausalLMEmbedder
from dsel.errors import ConfigError
from dsel.reading import cuts
from tests.conftest import checked
from tests.embedder.chats import chat, chats

WORDS = "zero one two three four five six seven eight nine".split()
TEXTS = ["one", "two three four", " ".join(WORDS * 3), "one two", "nine nine nine nine"]


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without padding token, as Llama-2 is."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    vocabulary = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,  # large enough that positions and neighbours show in the vectors
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def embedder(folder: Path, **options: Any) -> CausalLMEmbedder:
    return CausalLMEmbedder(hub="unused/model", path=str(folder), device="cpu", **options)


def reference(folder: Path, texts: list[str], pooling: str, max_length: int = 64) -> Vectors:
    """One text at a time through the whole model: no batch, no padding, no mask."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][:max_length]])
        with torch.inference_mode():
            hidden = model(ids, output_hidden_states=True).hidden_states[-1][0]
        rows.append((hidden[-1] if pooling == "last" else hidden.mean(0)).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_padding_changes_nothing(llama_folder: Path, tmp_path: Path, pooling: str, batch_size: int) -> None:
    vectors = embedder(llama_folder, pooling=pooling, batch_size=batch_size).embed(chats(TEXTS), tmp_path)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference(llama_folder, TEXTS, pooling), atol=1e-4)


def test_last_and_mean_differ(llama_folder: Path) -> None:
    last, mean = (embedder(llama_folder, pooling=p).encode(TEXTS) for p in ("last", "mean"))
    assert np.abs(last - mean).max() > 0.1


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_texts_are_cut_at_max_length(llama_folder: Path, pooling: str) -> None:
    vectors = embedder(llama_folder, pooling=pooling, max_length=3).encode(TEXTS)
    np.testing.assert_allclose(vectors, reference(llama_folder, TEXTS, pooling, max_length=3), atol=1e-4)


def test_normalise_gives_the_same_directions_at_length_one(llama_folder: Path) -> None:
    unit, raw = (embedder(llama_folder, normalize=n).encode(TEXTS) for n in (True, False))
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)


def test_a_model_is_known_by_its_files_and_pooling(llama_folder: Path, tmp_path: Path) -> None:
    one = embedder(llama_folder)
    assert digest(one) == digest(embedder(Path(shutil.copytree(llama_folder, tmp_path / "copy"))))
    assert digest(one) == digest(replace(one, batch_size=1, device="cuda"))
    assert len({digest(e) for e in (one, replace(one, pooling="mean"), replace(one, normalize=True))}) == 3
    (tmp_path / "copy" / "config.json").write_text("{}")
    assert digest(one) != digest(embedder(tmp_path / "copy"))


def test_impossible_options_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    embedder(llama_folder).check()
    with pytest.raises(ConfigError, match=r"embedder\.pooling=first"):
        checked(embedder(llama_folder, pooling="first"), "embedder")
    with pytest.raises(ConfigError, match=r"embedder\.path"):
        embedder(tmp_path / "missing").check()


def test_a_prefix_and_the_end_token_stand_around_a_text(llama_folder: Path) -> None:
    """As E5-Mistral wants it, with its end token's state; also where its tokenizer adds none, and in cut texts."""
    plain = embedder(llama_folder, prefix="nine ", end_token=True)
    whole = embedder(llama_folder)
    np.testing.assert_allclose(plain.encode(["one"]), whole.encode(["nine one</s>"]), atol=1e-4)
    short = replace(plain, max_length=5)  # <s> nine, two words, </s>
    np.testing.assert_allclose(short.encode(["one two three"]), whole.encode(["nine one two</s>"]), atol=1e-4)
    assert short.sizes(["one two three"]) == [6]


def test_what_is_cut_is_counted(llama_folder: Path, tmp_path: Path) -> None:
    conversation = chat("one two", "three four", "five six", "seven eight", system="nine " * 9)
    conversations = [conversation, conversation[1:], conversation[3:]]
    vectors = embedder(llama_folder, max_length=8).embed(conversations, tmp_path)
    np.testing.assert_allclose(vectors, reference(llama_folder, ["five six seven eight"] * 3, "last"), atol=1e-4)
    (cut,) = cuts(tmp_path)
    assert cut | {"advice": ""} == {
        "reader": "embedder", "limit": 8, "texts": 2, "of": 3, "tokens": 13 + 4, "of_tokens": 18 + 9, "advice": "",
    }  # fmt: skip


def test_the_mean_of_windows_reads_all(llama_folder: Path, tmp_path: Path) -> None:
    texts = ["one two three four five six seven", "eight nine"]
    vectors = embedder(llama_folder, max_length=5, long="mean").embed(chats(texts), tmp_path)
    parts = reference(llama_folder, ["one two three four", "five six seven"], "last")
    np.testing.assert_allclose(vectors[0], parts.mean(0), atol=1e-4)
    np.testing.assert_allclose(vectors[1], reference(llama_folder, ["eight nine"], "last")[0], atol=1e-4)
    assert cuts(tmp_path) == []
    unit = embedder(llama_folder, max_length=5, long="mean", normalize=True).read(chats(texts))[0]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"embedder\.long=all: wants one of cut, mean"):
        checked(embedder(llama_folder, long="all"), "embedder")


def test_no_more_is_read_than_the_model_has_positions_for(
    llama_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        vectors = embedder(llama_folder, max_length=2048).embed(chats(["one two " * 50]), tmp_path)
    assert "embedder.max_length=2048: the model has 64 positions" in caplog.text
    assert cuts(tmp_path)[0]["limit"] == 64 and cuts(tmp_path)[0]["of_tokens"] == 101
    assert np.isfinite(vectors).all()
