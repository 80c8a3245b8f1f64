"""The sentence-transformers encoder, with a tiny random model built here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsel.component import digest, identity
from dsel.data.local import Local
from dsel.embedder.sentence_transformer import SentenceTransformer
from dsel.errors import ConfigError
from dsel.reading import cuts, sentence
from tests.conftest import ROOT, shared
from tests.embedder.chats import chat, chats

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
    vectors = embedder(model_folder, batch_size=3).embed(chats(TEXTS), tmp_path)
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
    for change in (
        {"text": "prompt"},
        {"long": "mean"},
        {"prefix": "query: "},
        {"normalize": False},
        {"max_length": 9},
        {"dtype": "bfloat16"},
    ):
        assert digest(one) != digest(replace(one, **change))  # type: ignore[arg-type]


def test_a_missing_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"embedder\.path"):
        embedder(tmp_path / "missing").check()
    SentenceTransformer(hub="unused/model").check()


LONG = "three : " * 60  # longer than the 64 tokens that the model reads


def test_a_shared_system_prompt_does_not_hide_the_examples(model_folder: Path, tmp_path: Path) -> None:
    """Behind one long prompt, unlike examples get unlike vectors: those of what they say themselves."""
    own = [("one", "two"), ("two two", "three one"), ("three", "query one")]
    vectors = embedder(model_folder).embed([chat(*turns, system=LONG) for turns in own], tmp_path)
    np.testing.assert_allclose(vectors, embedder(model_folder).encode(["\n".join(turns) for turns in own]), atol=1e-6)
    (cut,) = cuts(tmp_path)
    assert (cut["limit"], cut["texts"], cut["of"]) == (64, 3, 3)
    assert cut["tokens"] == 3 * 120 and cut["of_tokens"] == 3 * 120 + sum(2 + len(" ".join(t).split()) for t in own)


def test_what_fits_is_read_as_it_stands(model_folder: Path, tmp_path: Path) -> None:
    conversation = chat("one", "two\n", "", "three", system="query")
    vectors = embedder(model_folder).embed([conversation], tmp_path)
    np.testing.assert_array_equal(vectors, embedder(model_folder).encode(["query\none\ntwo\n\n\nthree"]))
    assert cuts(tmp_path) == []


def test_the_prefix_and_special_tokens_count(model_folder: Path, tmp_path: Path) -> None:
    """[CLS] query : one two [SEP]: six tokens of seven words."""
    vectors = embedder(model_folder, prefix="query: ", max_length=6).embed(chats(["one one one two two"]), tmp_path)
    expected = embedder(model_folder, prefix="query: ").encode(["one two"])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)  # of an instruction its beginning and its end
    (cut,) = cuts(tmp_path)
    assert (cut["tokens"], cut["of_tokens"]) == (3, 9)


def test_the_mean_of_windows_is_a_unit_vector(model_folder: Path, tmp_path: Path) -> None:
    text = "one two three one two three two"
    found = embedder(model_folder, max_length=6, long="mean").embed(chats([text, "one"]), tmp_path)
    parts = embedder(model_folder).encode(["one two three one", "two three two"])
    expected = parts.sum(0) / np.linalg.norm(parts.sum(0))
    np.testing.assert_allclose(found, [expected, embedder(model_folder).encode(["one"])[0]], atol=1e-5)
    raw = embedder(model_folder, max_length=6, long="mean", normalize=False).read(chats([text, "one"]))[0]
    parts = embedder(model_folder, normalize=False).encode(["one two three one", "two three two"])
    np.testing.assert_allclose(raw[0], parts.mean(0), atol=1e-5)


def test_a_limit_beyond_the_models_positions_is_its_positions(
    model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        vectors = embedder(model_folder, max_length=4096).embed(chats(["one two " * 400]), tmp_path)
    assert np.isfinite(vectors).all() and cuts(tmp_path)[0]["limit"] == 512
    assert "embedder.max_length=4096: the model has 512 positions" in caplog.text


@pytest.mark.slow
def test_of_alpaca_gpt4_a_quarter_is_longer_than_minilm_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run says so: its texts are counted by the real tokenizer, the vectors here are none."""
    folder = ROOT / "models" / "all-minilm-l6-v2"
    if not folder.exists():
        pytest.skip(f"needs {folder}")
    pool = Local(path=str(shared("data/alpaca_gpt4_999.json"))).load()
    monkeypatch.setattr(SentenceTransformer, "encode", lambda self, texts: np.ones((len(texts), 2), np.float32))
    embedder(folder).embed(pool.messages, tmp_path)
    (cut,) = cuts(tmp_path)
    assert (cut["of"], cut["limit"]) == (999, 256) and 0.25 < cut["texts"] / cut["of"] < 0.3
    assert "texts are longer than the 256 tokens that the embedder reads" in sentence(cut)
    assert sentence(cut).endswith("embedder.long=mean reads all")
    assert embedder(folder, long="mean").embed(pool.messages[:50], tmp_path).shape == (50, 2)
