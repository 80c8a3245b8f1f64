"""Cohere's real client against a local server that refuses, fails and checks the key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dsel.component import digest, identity
from dsel.embedder.cohere import MAX_BATCH, Cohere
from dsel.errors import ConfigError
from dsel.reading import cuts
from tests.conftest import checked
from tests.embedder.chats import chat, chats
from tests.embedder.test_openai import KEY, TEXTS, Body, Server, expected, serving, vector


def embeddings(body: Body) -> Body:
    return {
        "id": "1",
        "response_type": "embeddings_by_type",
        "texts": body["texts"],
        "embeddings": {"float": [vector(t) for t in body["texts"]]},
    }


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    monkeypatch.delenv("CO_API_KEY", raising=False)
    monkeypatch.delenv("CO_API_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_vectors_keep_the_order_of_the_texts_whatever_fails(tmp_path: Path, failures: int) -> None:
    with serving(embeddings, failures=failures) as server:
        vectors = Cohere(base_url=server.url, batch_size=8, concurrency=3).embed(chats(TEXTS), tmp_path)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    assert set(server.paths) == {"/v2/embed"}
    assert sorted(len(body["texts"]) for body in server.answered) == [2] + [8] * 6
    assert set(server.attempts.values()) == {failures + 1}


def test_the_request_asks_for_clustering_embeddings() -> None:
    with serving(embeddings) as server:
        Cohere(base_url=server.url).encode(["a"])
    body = server.answered[0]
    assert (body["model"], body["input_type"]) == ("embed-english-v3.0", "clustering")
    assert (body["embedding_types"], body["truncate"]) == (["float"], "END")


def test_batches_are_as_large_as_the_api_takes_and_no_larger() -> None:
    with serving(embeddings) as server:
        Cohere(base_url=server.url).encode(TEXTS * 4)
    assert sorted(len(body["texts"]) for body in server.answered) == [200 - 2 * MAX_BATCH, MAX_BATCH, MAX_BATCH]
    for batch_size in (0, MAX_BATCH + 1):
        with pytest.raises(ConfigError, match=r"embedder\.batch_size"):
            checked(Cohere(batch_size=batch_size), "embedder")


def test_it_gives_up_after_max_retries() -> None:
    from cohere.core import ApiError

    with serving(embeddings, failures=9) as server, pytest.raises(ApiError):
        Cohere(base_url=server.url, max_retries=4).encode(["a"])
    assert list(server.attempts.values()) == [5]


def test_either_variable_may_hold_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COHERE_API_KEY")
    monkeypatch.setenv("CO_API_KEY", KEY)
    with serving(embeddings) as server:
        embedder = Cohere(base_url=server.url)
        embedder.check()
        np.testing.assert_array_equal(embedder.encode(["a"]), expected(["a"]))


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Cohere().check()
    monkeypatch.delenv("COHERE_API_KEY")
    with pytest.raises(ConfigError, match="COHERE_API_KEY") as caught:
        Cohere().check()
    assert "\n" not in str(caught.value)


def test_the_identity_holds_neither_key_nor_speed() -> None:
    with serving(embeddings) as server:
        used = Cohere(base_url=server.url)
        used.encode(["a"])
    assert KEY not in str(identity(used)) + repr(used)
    assert digest(Cohere()) == digest(Cohere(batch_size=1, concurrency=1, max_retries=0))
    assert digest(Cohere()) != digest(Cohere(input_type="classification"))


def publish(server: Server, limit: int) -> None:
    """Have the server say of its model how much it reads, and how it counts: words, and two tokens around them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.enable_truncation(3)  # as published files may say
    server.pages["/tokenizer.json"] = json.loads(tokenizer.to_str())
    server.pages["/v1/models/embed-english-v3.0"] = {
        "name": "embed-english-v3.0", "context_length": limit, "tokenizer_url": f"{server.url}/tokenizer.json"
    }  # fmt: skip


def test_texts_are_cut_and_counted_by_the_models_own_tokens(tmp_path: Path) -> None:
    conversations = [chat("what is it ?", "it is"), chat("why ?", "so", system="s " * 20)]
    with serving(embeddings) as server:
        publish(server, limit=8)
        vectors = Cohere(base_url=server.url).embed(conversations, tmp_path)
    np.testing.assert_array_equal(vectors, expected(["what is it ?\nit is", "why ?\nso"]))
    (cut,) = cuts(tmp_path)
    counts = [cut[name] for name in ("limit", "texts", "of", "tokens", "of_tokens")]
    assert counts == [8, 1, 2, 20, 25]


def test_the_mean_of_windows_reads_all(tmp_path: Path) -> None:
    with serving(embeddings) as server:
        publish(server, limit=5)
        vectors = Cohere(base_url=server.url, long="mean").embed(chats(["a b cc d e ff", "x"]), tmp_path)
    np.testing.assert_allclose(vectors, [expected(["a b cc", "d e ff"]).mean(0), expected(["x"])[0]])
    assert cuts(tmp_path) == []


def test_a_server_that_does_not_say_what_it_reads_is_named(tmp_path: Path) -> None:
    with serving(embeddings) as server:
        Cohere(base_url=server.url).embed(chats(["a"]), tmp_path)
        assert cuts(tmp_path)[0]["texts"] is None
        with pytest.raises(ConfigError, match="says neither its limit nor its tokenizer"):
            Cohere(base_url=server.url, long="mean").embed(chats(["b"]), tmp_path / "other")
