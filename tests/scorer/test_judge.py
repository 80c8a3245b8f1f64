"""The judge against a local server that refuses, fails, talks nonsense or says nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
import pytest

from dsel.component import digest, identity
from dsel.errors import ConfigError
from dsel.pool import Pool
from dsel.reading import cuts, sentence
from dsel.scorer import endpoint
from dsel.scorer.endpoint import EndpointError, _Gate, _retry_after
from dsel.scorer.judge import Judge
from dsel.scorer.rating import parse_rating, prompt_text, question, sides
from tests.conftest import ROOT, checked
from tests.scorer.pools import pool_of

KEY = "sk-a-key-for-this-test-only"
N = 24

Reply = str | int | None  # an answer, a status, or nothing
Plan = Callable[[int, int], Reply]


def made(n: int = N) -> Pool:
    return pool_of(*([(f"What is number {i} ?", f"It is example-{i}.")] for i in range(n)))


def grade(i: int) -> float:
    return 1 + i % 10


def good(i: int, attempt: int) -> Reply:
    return f"Fine, 3 reasons.\nRating: [[{grade(i):.0f}]]"


@dataclass
class Server:
    """What each example was asked for and got: counts by example, and when requests came."""

    url: str = ""
    asked: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    released: Event = field(default_factory=Event)


@contextmanager
def serving(plan: Plan, *, retry_after: str = "0") -> Iterator[Server]:
    """A chat endpoint that replies to the attempt-th question about example i with `plan(i, attempt)`.

    A string is an answer, an int a status; None is no reply until the test is over, -1 a closed connection, and -2 a
    body that is no JSON.
    """
    server, lock = Server(), Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = re.search(r"example-(\d+)", body["messages"][-1]["content"])
            assert found is not None
            number = int(found[1])
            with lock:
                server.times.append(time.monotonic())
                server.asked[number] += 1
                server.bodies.append(body)
                server.keys.add(self.headers["Authorization"])
                attempt = server.asked[number]
            reply = plan(number, attempt)
            if reply is None:
                server.released.wait(30)
            elif reply == -1:
                self.close_connection = True
            elif reply == -2:
                self.send(200, b"<html>busy")
            elif isinstance(reply, int):
                self.send(reply, json.dumps({"error": {"message": f"not now, {KEY}"}}).encode())
            else:
                with lock:
                    server.answered[number] += 1
                message = {"role": "assistant", "content": reply}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                self.send(200, json.dumps(whole).encode())

        def send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if data[:1] == b"{" else "text/html")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:  # clients that give up or are killed
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


def judge(server: Server, **options: Any) -> Judge:
    return Judge(**{"model": "m", "base_url": server.url, "timeout": 5.0, **options})


def expected(n: int = N) -> list[float]:
    return [grade(i) for i in range(n)]


def test_every_example_is_asked_once_and_keeps_its_place(tmp_path: Path) -> None:
    with serving(good) as server:
        scorer = judge(server, options={"temperature": 0.5})
        scorer.check()
        scores = scorer.score(made(), tmp_path)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, expected())
    assert server.asked == dict.fromkeys(range(N), 1)
    assert server.keys == {f"Bearer {KEY}"}
    assert all(body["model"] == "m" and body["temperature"] == 0.5 for body in server.bodies)


def unreliable(i: int, attempt: int) -> Reply:
    """Each kind of trouble for some examples, once or twice, before a good answer."""
    troubles: list[list[Reply]] = [
        [], [429], [500, 503], ["I would rather not say."], [None], [-1], [429, "Rating: [[99]]"], ["", 502], [-2],
    ]  # fmt: skip
    trouble = troubles[i % len(troubles)]
    return trouble[attempt - 1] if attempt <= len(trouble) else good(i, attempt)


def test_all_scores_arrive_whatever_the_server_does(tmp_path: Path) -> None:
    with serving(unreliable) as server:
        np.testing.assert_array_equal(judge(server, timeout=0.5).score(made(), tmp_path), expected())
        troubles = [0, 1, 2, 1, 1, 1, 2, 2, 1]
        assert server.asked == {i: 1 + troubles[i % 9] for i in range(N)}


def test_what_the_judge_is_not_shown_is_counted(tmp_path: Path) -> None:
    pool = made()
    longest = max(100, *(sum(map(len, sides(m))) for m in pool.messages))
    with serving(good) as server:
        judge(server, max_characters=longest).score(pool, tmp_path)
        assert cuts(tmp_path) == []
        more = pool.answered([pool.responses[0] + "!" * 900, *pool.responses[1:]])
        judge(server, max_characters=longest).score(more, tmp_path)
    (cut,) = cuts(tmp_path)
    assert (cut["reader"], cut["texts"], cut["of"]) == ("judge", 1, N) and 0 < cut["characters"] <= 900
    assert "characters that the judge reads" in sentence(cut)


def test_a_second_scoring_asks_nothing(tmp_path: Path) -> None:
    with serving(good) as server:
        first = judge(server).score(made(), tmp_path)
        np.testing.assert_array_equal(judge(server).score(made(), tmp_path), first)
        assert server.asked.total() == N


SCRIPT = """
import sys
from pathlib import Path
from dsel.scorer.judge import Judge
from tests.scorer.test_judge import made
Judge(model="m", base_url=sys.argv[1], concurrency=4, timeout=60).score(made(), Path(sys.argv[2]))
"""


def test_a_killed_process_never_pays_twice(tmp_path: Path) -> None:
    before = Event()

    def stops_halfway(i: int, attempt: int) -> Reply:
        return good(i, attempt) if i < N // 2 or before.is_set() else None

    path = tmp_path / "answers.jsonl"
    with serving(stops_halfway) as server:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, server.url, str(tmp_path)], cwd=ROOT)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (path.exists() and path.read_bytes().count(b"\n") == N // 2):
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert server.answered == dict.fromkeys(range(N // 2), 1)
        with path.open("ab") as file:
            file.write(b'{"id": "e20", "answer": "Rating: [[')  # what a kill in the middle of a write leaves
        server.asked.clear()
        before.set()
        np.testing.assert_array_equal(judge(server).score(made(), tmp_path), expected())
        assert server.asked == dict.fromkeys(range(N // 2, N), 1)
        assert server.answered == dict.fromkeys(range(N), 1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(made().ids)


def test_nonsense_is_asked_again_a_few_times_and_then_named(tmp_path: Path) -> None:
    def stubborn(i: int, attempt: int) -> Reply:
        return "No idea." if i in (3, 5) else good(i, attempt)

    with serving(stubborn) as server:
        with pytest.raises(ConfigError, match=r"no rating for 2 of 24 examples \(ids e3, e5\)"):
            judge(server, attempts=3).score(made(), tmp_path)
        assert server.asked == {i: 3 if i in (3, 5) else 1 for i in range(N)}
        server.asked.clear()
        scores = judge(server, attempts=3, on_failure="mean").score(made(), tmp_path)
        assert not server.asked
        mean = np.mean([grade(i) for i in range(N) if i not in (3, 5)])
        np.testing.assert_allclose(scores, [mean if i in (3, 5) else grade(i) for i in range(N)], rtol=1e-6)
        with pytest.raises(ConfigError, match="no rating"):
            judge(server, attempts=4).score(made(), tmp_path)
        assert server.asked == {3: 1, 5: 1}


def test_a_request_that_is_refused_concerns_its_example_alone(tmp_path: Path) -> None:
    def filtered(i: int, attempt: int) -> Reply:
        return 400 if i == 7 else good(i, attempt)

    with serving(filtered) as server:
        with pytest.raises(ConfigError, match=r"no rating for 1 of 24 examples \(ids e7\)"):
            judge(server, concurrency=1).score(made(), tmp_path)
        assert server.asked == dict.fromkeys(range(N), 1)


def test_an_option_the_endpoint_refuses_stops_at_once(tmp_path: Path) -> None:
    with serving(lambda i, attempt: 400) as server:
        with pytest.raises(EndpointError, match="refuses a request"):
            judge(server, concurrency=1).score(made(), tmp_path)
        assert server.asked.total() <= 2


def test_an_endpoint_that_stays_down_stops_the_scoring_and_keeps_the_answers(tmp_path: Path) -> None:
    down = Event()

    def fails(i: int, attempt: int) -> Reply:
        return 503 if i == N - 1 and not down.is_set() else good(i, attempt)

    with serving(fails) as server:
        with pytest.raises(EndpointError, match=r"still fails after 2 retries \(status 503\)"):
            judge(server, max_retries=2, concurrency=1).score(made(), tmp_path)
        down.set()
        np.testing.assert_array_equal(judge(server).score(made(), tmp_path), expected())
        assert server.answered == dict.fromkeys(range(N), 1)


@pytest.mark.parametrize(("status", "hint"), [(401, "OPENAI_API_KEY"), (404, "base_url and model")])
def test_a_wrong_key_or_model_stops_at_once(tmp_path: Path, status: int, hint: str) -> None:
    with serving(lambda i, attempt: status) as server:
        with pytest.raises(ConfigError, match=hint) as caught:
            judge(server, concurrency=2).score(made(), tmp_path)
        assert server.asked.total() < N
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_the_rate_limit_is_kept(tmp_path: Path) -> None:
    start = time.monotonic()
    with serving(good) as server:
        judge(server, requests_per_minute=1200, concurrency=8).score(made(12), tmp_path)
    assert time.monotonic() - start >= 11 * 0.05  # without a limit a tenth of that


def test_a_429_holds_everyone_back_as_long_as_it_says(tmp_path: Path) -> None:
    def limited(i: int, attempt: int) -> Reply:
        return 429 if i == 0 and attempt == 1 else good(i, attempt)

    with serving(limited, retry_after="1") as server:
        judge(server, concurrency=2).score(made(2), tmp_path)
    assert server.asked == {0: 2, 1: 1}
    assert max(server.times) - min(server.times) >= 0.95


def test_an_interrupted_scoring_does_not_wait_for_long_pauses(tmp_path: Path) -> None:
    with serving(lambda i, attempt: 401 if i == 3 else 429, retry_after="30") as server:
        start = time.monotonic()
        with pytest.raises(ConfigError):
            judge(server, concurrency=4).score(made(4), tmp_path)
    assert time.monotonic() - start < 10


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    from email.utils import formatdate

    assert _retry_after({"retry-after": "1.5"}) == 1.5
    assert 25 < _retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
    assert _retry_after({"retry-after": "soon"}) == _retry_after({"retry-after": "-3"}) == _retry_after({}) == 0


def test_the_gate_spaces_its_slots() -> None:
    gate, start = _Gate(0.05), time.monotonic()
    for _ in range(4):
        time.sleep(gate.delay())
    assert 0.15 <= time.monotonic() - start < 10


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    Judge().check()
    monkeypatch.delenv("OPENAI_API_KEY") if value is None else monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Judge().check()
    Judge(needs_key=False).check()


def test_a_local_server_needs_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(good) as server:
        np.testing.assert_array_equal(judge(server, needs_key=False).score(made(3), tmp_path), expected(3))


def test_the_key_goes_nowhere_but_to_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dsel"), serving(unreliable) as server:
        scorer = judge(server, timeout=0.5)
        scorer.score(made(), tmp_path)
    assert KEY not in str(identity(scorer)) + repr(scorer) + repr(scorer.endpoint) + caplog.text
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_speed_is_no_part_of_the_identity() -> None:
    assert digest(Judge()) == digest(Judge(concurrency=1, requests_per_minute=5, timeout=1, max_retries=0))
    assert digest(Judge()) == digest(Judge(attempts=9, on_failure="mean", needs_key=False))
    changed = [Judge(model="other"), Judge(base_url="http://x"), Judge(options={"seed": 1}), Judge(max_characters=500)]
    assert len({digest(j) for j in [Judge(), *changed]}) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"attempts": 0}, {"on_failure": "zero"}, {"concurrency": 0}, {"requests_per_minute": 0}, {"timeout": 0},
        {"max_retries": -1}, {"max_characters": 1},
    ],
)  # fmt: skip
def test_options_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        checked(Judge(**change), "scorer")


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("Rating: [[7]]", 7), ("Because of 3 flaws.\nRating: [[ 8.5 ]]", 8.5), ("[[2]] at first, but [[9]]", 9),
        ("**Rating:** 6", 6), ("Rating: 7/10", 7), ("rating = **4**", 4), ("8", 8), (" 10. ", 10), ("**9/10**", 9),
        ("[[7/10]]", 7), ("Rating: [[0]]", None), ("Rating: [[11]]", None), ("42", None), ("", None),
        ("It names 5 colours.", None), ("Rating: [[n]]", None), ("I rate it highly", None), ("-5", None),
        ("On a scale with rating 1-10 I cannot say", None),
    ],
)  # fmt: skip
def test_ratings_are_found_or_not(answer: str, rating: float | None) -> None:
    assert parse_rating(answer) == rating


@pytest.mark.parametrize(
    ("answer", "rating"),
    [("[[5]]", 5), ("[[5/5]]", 5), ("[[6]]", None), ("4 / 5", 4), ("Rating: 7", None), ("4/10", None)],
)
def test_ratings_of_a_shorter_scale(answer: str, rating: float | None) -> None:
    assert parse_rating(answer, 5) == rating


def test_the_papers_prompt_is_figure_6() -> None:
    """To the letter: a digest, so that nobody mends it."""
    text = prompt_text("paper", 10)
    assert text.startswith(
        "Please act as an impartial judge and evaluate the quality of the response provided by an AI "
    )
    assert 'strictly following this format: "[[rating]]", for example: "Rating: [[5]]".\n\n[[Instruction]] $' in text
    assert text.endswith("[[Instruction]] ${instruction}\n\n[[Response]] ${response}")
    assert hashlib.sha256(text.encode()).hexdigest().startswith("e1b22c043d7c47a6c39b64fa")
    assert prompt_text("paper", 5) == text.replace("1 to 10", "1 to 5")


def test_the_question_shows_an_example_and_cuts_its_middle() -> None:
    prompt = prompt_text("paper", 10)
    messages = [{"role": "user", "content": "Why ${response}?"}, {"role": "assistant", "content": "a" * 300 + "end"}]
    whole = question(prompt, messages, 1000)
    assert whole.endswith("\n\n[[Instruction]] Why ${response}?\n\n[[Response]] " + "a" * 300 + "end")
    cut = question(prompt, messages, 100)
    assert "Instruction]] Why ${response}?\n" in cut and "aend" in cut and "[…]" in cut and "a" * 100 not in cut
    several = [
        {"role": "system", "content": "Be brief."},
        *messages,
        {"role": "user", "content": "x" * 500},
        messages[1],
    ]
    assert "Instruction]] [system]\nBe brief.\n\n[user]\nWhy ${response}?\n\n[assistant]\na" in question(
        prompt, several, 4000
    )
    cut = question(prompt, several, 1000)
    assert cut.endswith("a" * 300 + "end") and "[…]" in cut and len(cut) < len(prompt) + 1010


def test_a_prompt_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Costs $5? ${response} to $instruction: give [[n]]", encoding="utf-8")
    scorer = Judge(prompt=str(path), scale=5)
    scorer.check()
    assert question(prompt_text(scorer.prompt, 5), made(1).messages[0], 500) == (
        "Costs $5? It is example-0. to What is number 0 ?: give [[n]]"
    )
    assert len({digest(j) for j in (scorer, Judge(), Judge(prompt="own"), Judge(scale=5))}) == 4
    same = tmp_path / "moved.txt"
    same.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    assert digest(replace(scorer, prompt=str(same))) == digest(scorer)
    path.write_text("Grade $response", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"put \$\{instruction\} where that of an example shall stand"):
        scorer.check()
    with pytest.raises(ConfigError, match=r"scorer\.prompt=nowhere: neither one of paper, own nor a file"):
        Judge(prompt="nowhere").check()
    with pytest.raises(ConfigError, match=r"scorer\.scale=7: wants one of 5, 10"):
        checked(Judge(scale=7), "scorer")  # type: ignore[arg-type]


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(good) as server:
        first = judge(server).score(made(), tmp_path)
        asked = sum(server.asked.values())
        path = tmp_path / "answers.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        lines[3] = lines[3].replace(b"[[", b"[[1", 1)  # still JSON, another grade
        lines[5] = b"\xff" + lines[5]
        path.write_bytes(b"".join(lines))
        np.testing.assert_array_equal(judge(server).score(made(), tmp_path), first)
        assert sum(server.asked.values()) == asked + 2
    assert "2 damaged lines are left out" in caplog.text
