"""No secret of the environment is ever written down."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.secrets import HIDDEN, RedactingFormatter, redact

SECRET = "sk-live-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)


def wrapped(text: Any) -> st.SearchStrategy[Any]:
    def container(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.text(), inner, min_size=1, max_size=3)

    return st.recursive(st.just(text), container)


@given(st.text().flatmap(lambda before: st.text().map(lambda after: before + SECRET + after)).flatmap(wrapped))
def test_a_secret_is_hidden_however_deep_it_lies(value: Any) -> None:
    found = json.dumps(redact(value), ensure_ascii=False)
    assert SECRET not in found
    assert HIDDEN in found


plain_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10)


@given(st.dictionaries(st.text(max_size=5), plain_values | st.lists(plain_values)))
def test_all_else_stays_as_it_is(value: dict[str, Any]) -> None:
    assert redact(value) == value


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "HF_TOKEN", "MY_SECRET", "DB_PASSWORD", "AWS_CREDENTIALS", "wandb_api_key", "TOKEN"]
)
def test_names_that_tell_a_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "open sesame")
    assert redact("say open sesame!") == f"say {HIDDEN}!"


@pytest.mark.parametrize("name", ["KEYBOARD", "TOKENIZERS_PARALLELISM", "SECRETARY"])
def test_other_names_do_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "open sesame")
    assert redact("say open sesame!") == "say open sesame!"


@pytest.mark.parametrize("value", ["", "1", "true", "default"])
def test_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SHORT_KEY", value)
    text = "model: default, 1 device, true"
    assert redact(text) == text


def test_of_secrets_that_overlap_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG_TOKEN", SECRET + "-and-more")
    monkeypatch.setenv("LATE_TOKEN", SECRET[8:])
    assert redact(f"{SECRET}-and-more, {SECRET}, {SECRET[8:]}") == f"{HIDDEN}, {HIDDEN}, {HIDDEN}"


def test_white_space_around_a_secret_does_not_save_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILE_API_KEY", "sk-from-a-file-77\n")
    header = b"Bearer sk-from-a-file-77\n"
    assert "sk-from-a-file-77" not in redact(f"Illegal header value {header!r}")  # as HTTP libraries complain


def test_log_lines_and_tracebacks_are_clean() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.info("the key is %s and %s", SECRET, {"nested": [SECRET]})
    try:
        try:
            raise ValueError(f"refused: {SECRET}")
        except ValueError as error:
            raise RuntimeError(f"no embeddings with {SECRET}") from error
    except RuntimeError:
        log.exception("failed")
    written = stream.getvalue()
    assert SECRET not in written
    assert written.count(HIDDEN) >= 4
    assert "Traceback" in written and "RuntimeError: no embeddings with" in written
