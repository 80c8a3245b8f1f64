"""The sentence-transformers encoder, with a tiny random model built here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsel.component import digest, identity
from dsel.embedder.sentence_transformer import SentenceTransformer
from dsel.errors import ConfigError

TEXTS = ["one", "two three one", "three " * 30, "query: two"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer as Model
    from sentence_transformers import models
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three", "query", ":", "##s"]
    tokenizer = Tokenizer(WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / "bert")
    transformer = models.Transformer(str(folder / "bert"), max_seq_length=64)
    modules = [transformer, models.Pooling(transformer.get_word_embedding_dimension())]
    Model(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


def embedder(folder: Path, **options: object) -> SentenceTransformer:
    return SentenceTransformer(hub="unused/model", path=str(folder), device="cpu", **options)  # type: ignore[arg-type]


def test_vectors_do_not_depend_on_the_batch(model_folder: Path, tmp_path: Path) -> None:
    vectors = embedder(model_folder, batch_size=3).embed(TEXTS, tmp_path)
    assert vectors.shape == (4, 16) and vectors.dtype == np.float32
    alone = np.concatenate([embedder(model_folder).encode([text]) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    assert np.linalg.matrix_rank(vectors, tol=1e-4) > 1


def test_normalise_gives_the_same_directions_at_length_one(model_folder: Path) -> None:
    unit, raw = (embedder(model_folder, normalize=n).encode(TEXTS) for n in (True, False))
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.01
    np.testing.assert_allclose(unit, raw / lengths, atol=1e-5)


def test_the_prefix_is_read_as_part_of_the_text(model_folder: Path) -> None:
    with_prefix = embedder(model_folder, prefix="query: ").encode(["two"])
    np.testing.assert_allclose(with_prefix, embedder(model_folder).encode(["query: two"]), atol=1e-6)
    assert np.abs(with_prefix - embedder(model_folder).encode(["two"])).max() > 1e-3


def test_texts_are_cut_at_max_length(model_folder: Path) -> None:
    cut = embedder(model_folder, max_length=4)  # [CLS] two words [SEP]
    np.testing.assert_allclose(cut.encode(["one two three"]), cut.encode(["one two one two"]), atol=1e-6)
    whole = embedder(model_folder)
    assert np.abs(whole.encode(["one two three"]) - whole.encode(["one two one two"])).max() > 1e-3


def test_a_model_is_known_by_its_files_not_by_its_place(model_folder: Path, tmp_path: Path) -> None:
    here = Path(shutil.copytree(model_folder, tmp_path / "here"))
    there = Path(shutil.copytree(here, tmp_path / "there" / "deep"))
    assert digest(embedder(here)) == digest(embedder(there))
    assert str(tmp_path) not in str(identity(embedder(here)))
    weights = next(there.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert digest(embedder(here)) != digest(embedder(there))


def test_speed_is_not_part_of_the_identity(model_folder: Path) -> None:
    one = embedder(model_folder)
    assert digest(one) == digest(replace(one, batch_size=1, device="cuda"))
    for change in ({"prefix": "query: "}, {"normalize": False}, {"max_length": 9}, {"dtype": "bfloat16"}):
        assert digest(one) != digest(replace(one, **change))  # type: ignore[arg-type]


def test_a_missing_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"embedder\.path"):
        embedder(tmp_path / "missing").check()
    SentenceTransformer(hub="unused/model").check()
