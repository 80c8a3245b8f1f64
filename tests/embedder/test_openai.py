"""OpenAI's real client against a local server that refuses, fails and checks the key."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
import pytest

from dsel.component import digest, identity
from dsel.embedder.base import Vectors
from dsel.embedder.openai import OpenAI
from dsel.errors import ConfigError
from dsel.reading import cuts
from tests.embedder.chats import chat, chats

KEY = "sk-a-key-for-this-test-only"
TEXTS = [f"{'text ' * (i % 7)}{i}" for i in range(50)]

Body = dict[str, Any]


def vector(text: str) -> list[float]:
    return [float(len(text)), float(sum(map(ord, text)) % 997), 0.5]


def expected(texts: list[str]) -> Vectors:
    return np.array([vector(t) for t in texts], dtype=np.float32)


@dataclass
class Server:
    """What the local server was asked, and how often it fails a request before it answers: first 429, then 500."""

    failures: int = 0
    url: str = ""
    paths: list[str] = field(default_factory=list)
    answered: list[Body] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    pages: dict[str, Body] = field(default_factory=dict)


@contextmanager
def serving(answer: Callable[[Body], Body], *, failures: int = 0) -> Iterator[Server]:
    """A server on this machine that answers each POST with `answer(body)` when it carries KEY."""
    server, lock = Server(failures), Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                server.paths.append(self.path)
                server.attempts[raw.decode()] += 1
                attempt = server.attempts[raw.decode()]
            if self.headers["Authorization"] != f"Bearer {KEY}":
                self.reply(401, {"error": {"message": "wrong key"}})
            elif attempt <= server.failures:
                self.reply(429 if attempt % 2 else 500, {"error": {"message": "later"}})
            else:
                body = json.loads(raw)
                with lock:
                    server.answered.append(body)
                found = answer(body)
                self.reply(found.pop("status", 200), found)

        def do_GET(self) -> None:
            found = server.pages.get(self.path)
            self.reply(404 if found is None else 200, found or {})

        def reply(self, status: int, body: Body) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After-Ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def embeddings(body: Body) -> Body:
    data = [{"object": "embedding", "index": i, "embedding": vector(t)} for i, t in enumerate(body["input"])]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "model": body["model"], "data": data[::-1], "usage": usage}  # the order is not promised


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_vectors_keep_the_order_of_the_texts_whatever_fails(tmp_path: Path, failures: int) -> None:
    with serving(embeddings, failures=failures) as server:
        vectors = OpenAI(base_url=f"{server.url}/v1", batch_size=8, concurrency=3).embed(chats(TEXTS), tmp_path)
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    assert set(server.paths) == {"/v1/embeddings"}
    assert sorted(len(body["input"]) for body in server.answered) == [2] + [8] * 6
    assert set(server.attempts.values()) == {failures + 1}


def test_the_request_says_model_and_dimensions() -> None:
    with serving(embeddings) as server:
        OpenAI(base_url=server.url, model="m", dimensions=3).encode(["a"])
        OpenAI(base_url=server.url, model="m").encode(["a"])
    one, other = server.answered
    assert (one["model"], one["dimensions"]) == ("m", 3)
    assert "dimensions" not in other


def test_it_gives_up_after_max_retries() -> None:
    from openai import APIStatusError

    with serving(embeddings, failures=9) as server, pytest.raises(APIStatusError):
        OpenAI(base_url=server.url, max_retries=4).encode(["a"])
    assert list(server.attempts.values()) == [5]


def test_a_wrong_key_is_not_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    with serving(embeddings) as server, pytest.raises(ConfigError, match="refused the key in OPENAI_API_KEY"):
        OpenAI(base_url=server.url).encode(["a"])
    assert list(server.attempts.values()) == [1]


def test_a_request_stays_below_what_the_api_takes_in_all() -> None:
    texts = [f"{i:03d} " + "詞 " * 4_000 for i in range(80)]
    with serving(embeddings) as server:
        np.testing.assert_array_equal(OpenAI(base_url=server.url).encode(texts), expected(texts))
    sizes = [sum(len(text.encode()) for text in body["input"]) for body in server.answered]
    assert max(sizes) <= 300_000  # tokens a request, of a byte at least


SAYS = [
    "This model's maximum context length is 40 tokens, however you requested {n} tokens ({n} in your prompt; 0 for the "
    "completion). Please reduce your prompt; or completion length.",
    "Invalid 'input[0]': maximum input length is 40 tokens.",
    "Input validation error: `inputs` must have less than 40 tokens. Given: {n}",
    "input too long",
]


def limited(says: str, status: int = 400, most: int = 40) -> Callable[[Body], Body]:
    """A server whose tokens are characters, and that takes no text with more than `most` of them."""

    def answer(body: Body) -> Body:
        longest = max(map(len, body["input"]))
        if longest > most:
            return {"status": status, "error": {"message": says.format(n=longest)}}
        return {**embeddings(body), "usage": {"prompt_tokens": sum(map(len, body["input"])), "total_tokens": 1}}

    return answer


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_is_refused_is_sent_shorter(tmp_path: Path, says: str, status: int) -> None:
    conversations = [chat(f"ask {i}", f"answer {i}", system="s" * 100 if i % 3 == 0 else "s") for i in range(10)]
    conversations[4] = chat("q" * 70, "a" * 50)
    with serving(limited(says, status)) as server:
        vectors = OpenAI(base_url=server.url, batch_size=4, concurrency=2).embed(conversations, tmp_path)
    read = [f"ask {i}\nanswer {i}" if i % 3 == 0 else f"s\nask {i}\nanswer {i}" for i in range(10)]
    kept = vectors[4, 0]
    assert 10 < kept <= 40
    np.testing.assert_array_equal(np.delete(vectors, 4, 0), np.delete(expected(read), 4, 0))
    (cut,) = cuts(tmp_path)
    assert (cut["texts"], cut["of"], cut["limit"]) == (5, 10, 40 if "40" in says else cut["limit"])
    assert cut["tokens"] == pytest.approx(4 * 101 + 121 - kept, abs=5)
    assert cut["of_tokens"] == pytest.approx(4 * 116 + 121, abs=5)


def test_the_mean_of_windows_reads_all(tmp_path: Path) -> None:
    with serving(limited(SAYS[0])) as server:
        vectors = OpenAI(base_url=server.url, long="mean").embed(chats(["x" * 100, "y"]), tmp_path)
    windows = [text for body in server.answered for text in body["input"] if text[0] == "x" and len(text) <= 40]
    assert "".join(windows) == "x" * 100 and cuts(tmp_path) == []
    np.testing.assert_allclose(vectors, [expected(windows).mean(0), expected(["y"])[0]], rtol=1e-6)


def test_what_is_refused_for_another_reason_is_an_error() -> None:
    from openai import BadRequestError

    refusing = limited("no such model", most=0)
    with serving(refusing) as server, pytest.raises(BadRequestError, match="no such model"):
        OpenAI(base_url=server.url).encode(["a", "b"])
    assert len(server.attempts) == 1
    with serving(limited("too many tokens", most=0)) as server, pytest.raises(ConfigError, match="every text too long"):
        OpenAI(base_url=server.url).encode(["abc"])


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    OpenAI().check()
    monkeypatch.delenv("OPENAI_API_KEY") if value is None else monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        OpenAI().check()
    assert "\n" not in str(caught.value)


def test_the_identity_holds_neither_key_nor_speed() -> None:
    embedder = OpenAI()
    before = digest(embedder)
    with serving(embeddings) as server:
        used = OpenAI(base_url=server.url)
        used.encode(["a"])
    assert KEY not in str(identity(used)) + repr(used)
    assert before == digest(OpenAI(batch_size=1, concurrency=1, max_retries=0))
    assert before != digest(OpenAI(dimensions=256))
