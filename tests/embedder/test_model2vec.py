"""Static embeddings: what the library gives, with what is cut counted, from a small model that is made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.component import identity
from dsel.embedder.model2vec import Model2Vec
from dsel.errors import ConfigError
from dsel.reading import cuts
from tests.conftest import checked
from tests.embedder.chats import chat, chats

library = pytest.importorskip("model2vec")

WORDS = "one two three four five six seven eight".split()


def build(folder: Path, **options: Any) -> Path:
    """A model of a vector for each of WORDS."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.random.default_rng(0).normal(size=(len(WORDS) + 1, 6)).astype(np.float32)
    library.StaticModel(vectors, tokenizer, **options).save_pretrained(folder)
    return folder


def embedder(folder: Path, **options: Any) -> Model2Vec:
    return Model2Vec(hub="unused/model", path=str(folder), **options)


def test_vectors_are_the_librarys(tmp_path: Path) -> None:
    texts = ["one two two", "eight", "three what four", "five " * 40]
    weights = np.linspace(0.5, 2, len(WORDS) + 1).astype(np.float32)
    for name, options in {"plain": {}, "weighted": {"weights": weights}}.items():
        folder = build(tmp_path / name, **options)
        expected = library.StaticModel.from_pretrained(folder).encode(texts)
        plain = embedder(folder, normalize=False)
        checked(plain, "embedder")
        (tmp_path / f"{name}-out").mkdir()
        np.testing.assert_allclose(plain.embed(chats(texts), tmp_path / f"{name}-out"), expected, atol=1e-6)
        unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(embedder(folder).encode(texts), unit, atol=1e-6)


def test_a_text_without_a_known_token_has_a_direction_too(tmp_path: Path) -> None:
    vectors = embedder(build(tmp_path)).encode(["", "what", "one"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])


@pytest.mark.parametrize("long", ["cut", "mean"])
def test_longer_texts_are_counted_and_cut_or_read_in_full(tmp_path: Path, long: Any) -> None:
    folder = build(tmp_path / "model", max_length=4)
    model = embedder(folder, long=long)
    assert model.limit == 4 and embedder(folder, max_length=6).limit == 6
    conversation = chat("one two three four", "five six", system="seven " * 20)
    found = model.embed([conversation, *chats(["one two"])], tmp_path)
    if long == "cut":
        np.testing.assert_allclose(found[0], model.encode(["one four five six"])[0], atol=1e-6)
        (cut,) = cuts(tmp_path)
        assert (cut["texts"], cut["of"], cut["limit"], cut["tokens"], cut["of_tokens"]) == (1, 2, 4, 22, 26)
        assert "embedder.long=mean" in cut["advice"]
    else:
        assert cuts(tmp_path) == []
        assert np.linalg.norm(found[0]) == pytest.approx(1)
        assert found[0] @ model.encode(["seven"])[0] > 0.5


def test_it_is_known_by_its_files_and_refused_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path / "model")
    known = identity(embedder(folder))
    assert known["hub"] is None and known["files"] and known["software"].keys() == {"model2vec", "tokenizers"}
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json in this folder"):
        embedder(folder).check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package 'model2vec': pip install '?dsel\[static"):
        embedder(folder).check()
