"""A configuration refers to secrets and holds none; and of a run that uses some, nothing that is written has them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dsel.component import digest
from dsel.errors import ConfigError
from dsel.references import refuse_overrides
from dsel.secrets import HIDDEN, anonymous, is_secret, redact, variables
from tests.conftest import ROOT, offline

CANARY = "canary0123456789canary"


@pytest.mark.parametrize(
    "name", ["api_key", "API-KEY", "apiKey", "key", "hf_token", "X-Auth-Token", "Authorization", "password", "Cookie"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_new_tokens", "tokens", "pad_token", "keyboard", "needs_keys", "secretary", ""])
def test_names_of_none(name: str) -> None:
    assert not is_secret(name)


REFUSED = [
    f"+scorer.api_key={CANARY}",
    f"+scorer.options.api_key='{CANARY}'",
    "+embedder.password=12345678",
    f"+scorer.options={{extra_headers:{{Authorization:'Bearer {CANARY}'}}}}",
    f"+scorer.options.extra_headers.X-Api-Key={CANARY}",
    f"+scorer.options.extra_headers.X-Anything={CANARY}",
    f"+scorer.options.default_headers={{X-Anything:{CANARY}}}",
    f"scorer.base_url=http://user:{CANARY}@localhost/v1",
    f"scorer.base_url='https://{CANARY}@localhost/v1'",
    f"scorer.base_url='https://localhost/v1?api_key={CANARY}'",
    f"tracker.tags=['https://user:{CANARY}@localhost']",
    f"+scorer.api_key='${{oc.env:NOT_SET,{CANARY}}}'",
    f"+scorer.api_key=a,{CANARY}",
    f"+hydra.job.env_set.OPENAI_API_KEY={CANARY}",
    f"scorer.model='Bearer {CANARY}'",
    f"+scorer.api_key={CANARY}'",
]


@pytest.mark.parametrize("override", REFUSED)
def test_a_secret_itself_is_refused_and_not_repeated(override: str) -> None:
    with pytest.raises(ConfigError, match=r"no key or password here.*\$\{oc.env:NAME\}") as error:
        refuse_overrides(["data=local", override])
    assert CANARY not in str(error.value) and "12345678" not in str(error.value)
    assert str(error.value).startswith(override.lstrip("+").partition("=")[0].split(".")[0])


@pytest.mark.parametrize(
    "override",
    [
        "+scorer.api_key='${oc.env:MY_PAT}'",
        "+scorer.api_key='${oc.env:MY_PAT,null}'",
        "+scorer.api_key=null",
        "scorer.needs_key=false",
        "+scorer.options.extra_headers.Authorization='Bearer ${oc.env:MY_PAT}'",
        "+scorer.options.extra_headers.X-Title=dsel",
        "scorer.base_url='http://user:${oc.env:MY_PAT}@localhost/v1'",
        "scorer.base_url='http://${oc.env:MY_USER}:${oc.env:MY_PAT}@localhost/v1'",
        "scorer.base_url=http://localhost:8000/v1",
        "data.path={token: a.jsonl, key: b.jsonl}",
        "data.columns={prompt: key}",
        "model.pad_token='<|endoftext|>'",
        "trainer.max_length=512",
        "--config-dir=elsewhere",
        "selector=random,kmq",
        "data.path=[",
    ],
)
def test_references_and_all_else_are_taken(override: str) -> None:
    refuse_overrides([override])


def test_a_variable_of_any_name_is_secret_where_a_secret_refers_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PAT", CANARY)
    monkeypatch.setattr("dsel.references.variables", variables)
    variables.discard("MY_PAT")
    assert redact(CANARY) == CANARY
    refuse_overrides(["scorer.base_url='http://user:${oc.env:MY_PAT}@localhost/v1'"])
    assert redact(f"it is {CANARY}") == f"it is {HIDDEN}"
    variables.discard("MY_PAT")


def test_what_is_secret_by_its_place_is_hidden() -> None:
    headers = {"X": "abc", "Accept": "text"}
    found = anonymous({"api_key": "abc", "options": {"extra_headers": headers}, "key": "digest"})
    assert found == {"api_key": HIDDEN, "options": {"extra_headers": {"X": HIDDEN, "Accept": "text"}}, "key": "digest"}
    assert anonymous("GET https://me:pass@host/v1?token=abc&n=3") == f"GET https://{HIDDEN}@host/v1?token={HIDDEN}&n=3"
    assert anonymous("Authorization: Bearer abcdefgh1") == f"Authorization: Bearer {HIDDEN}"
    for plain in (
        "Basic knowledge of physics",
        "a@b.org",
        "https://host/a@b",
        {"pad_token": "<pad>"},
        {"max_tokens": 9},
    ):
        assert anonymous(plain) == plain


def test_a_new_password_finds_what_the_old_one_made() -> None:
    urls = [{"base_url": f"http://user:{word}@host/v1"} for word in ("old", "new")]
    assert digest(urls[0]) == digest(urls[1]) != digest({"base_url": "http://user:new@other/v1"})


# --- canaries: whole runs, and every file they leave ----------------------------------------------------------


class Echo(BaseHTTPRequestHandler):
    """A server that refuses, and says in full what it was sent."""

    def do_POST(self) -> None:
        text = json.dumps({"error": {"message": f"refused: {dict(self.headers)}"}}).encode()
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def leaks(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]


def run(folder: Path, *overrides: str, module: str = "dsel.run") -> subprocess.CompletedProcess[str]:
    (folder / "pool.jsonl").write_text("".join(f'{{"prompt": "say {i}", "completion": "{i}"}}\n' for i in range(20)))
    common = ["data=local", f"data.path={folder / 'pool.jsonl'}", "budget=5", "trainer=none", "evaluator=none",
              f"runs={folder / 'runs'}"]  # fmt: skip
    environment = offline(
        folder, HOME=str(folder), TMPDIR=str(folder), SOME_KEY=CANARY, MY_PAT=CANARY, WANDB_MODE="offline",
        OPENAI_API_KEY=f"sk-{CANARY}", WANDB_API_KEY=CANARY[:8] + "0" * 32,
    )  # fmt: skip
    command = [sys.executable, "-m", module, *(common if module == "dsel.run" else []), *overrides]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("many", [[], ["seed=0,1", "-m"]])
def test_a_tag_of_a_key(tmp_path: Path, many: list[str]) -> None:
    done = run(tmp_path, "selector=random", 'tracker.tags=["${oc.env:SOME_KEY}"]', *many)
    assert done.returncode == 0, done.stderr
    assert leaks(tmp_path) == [] and CANARY not in done.stdout + done.stderr
    (record, *_) = (tmp_path / "runs").glob("*/record.json")
    facts = json.loads(record.read_text())
    assert 'tracker.tags=["${oc.env:SOME_KEY}"]' in facts["overrides"]  # as it was typed: it can be run again
    assert facts["config"]["tracker"]["tags"] == [HIDDEN]
    assert list(record.parent.rglob("run-*.wandb"))


@pytest.mark.parametrize("many", [[], ["seed=0,1", "-m"]])
@pytest.mark.parametrize("where", ["header", "url"])
def test_a_key_that_a_server_repeats(tmp_path: Path, echo: int, many: list[str], where: str) -> None:
    judge = ["selector=quality", "scorer=judge", "scorer.model=m", "scorer.max_retries=0", "scorer.concurrency=1"]
    secret = {
        "header": [
            "+scorer.options.extra_headers={Authorization: 'Bearer ${oc.env:MY_PAT}', X-More: '${oc.env:MY_PAT}'}",
            f"scorer.base_url=http://127.0.0.1:{echo}/v1",
        ],
        "url": [f"scorer.base_url='http://user:${{oc.env:MY_PAT}}@127.0.0.1:{echo}/v1?api_key=${{oc.env:MY_PAT}}'"],
    }[where]
    done = run(tmp_path, *judge, *secret, *many)
    assert done.returncode != 0
    assert "refuse" in done.stderr
    assert leaks(tmp_path) == [] and CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("many", [[], ["seed=0,1", "-m"]])
def test_nothing_is_written_of_what_is_refused(tmp_path: Path, many: list[str]) -> None:
    done = run(tmp_path, "selector=random", f"+scorer.options.api_key={CANARY}", *many)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text(f"# @package _global_\nscorer:\n  api_key: {CANARY}\n")
    done = run(tmp_path, "selector=random", "+conf=mine", *many, f"--config-dir={tmp_path}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("dsel: scorer.api_key: no key or password here")
    (tmp_path / "conf" / "mine.yaml").unlink()
    assert leaks(tmp_path) == [] and CANARY not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_configuration_is_shown_without_its_keys(tmp_path: Path) -> None:
    done = run(tmp_path, 'tracker.tags=["${oc.env:SOME_KEY}"]', "--cfg", "job", "--resolve")
    assert done.returncode == 0
    assert CANARY not in done.stdout and HIDDEN in done.stdout


def test_a_report_repeats_no_key(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    done = run(tmp_path, "experiments=quickstart", f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}",
               f"data.name={CANARY}", module="dsel.report")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert leaks(tmp_path) == [] and CANARY not in done.stdout + done.stderr
