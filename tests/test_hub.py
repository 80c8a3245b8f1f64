"""What cannot be had from the hub: one line each, before anything is paid for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dsel import hub
from dsel.embedder.sentence_transformer import SentenceTransformer
from dsel.errors import ConfigError
from dsel.hub import fetching, loads, need_models, reason
from dsel.model.causal_lm import CausalLM


@dataclass
class Inner:
    hub: str = "nobody/nothing"
    path: str | None = None
    revision: str | None = None


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    number: int = 3


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.answers.cache_clear()


def message(component: Any, option: str) -> str:
    with pytest.raises(ConfigError) as caught:
        need_models(component, option)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_is_not_here_is_named_with_where_a_copy_goes() -> None:
    found = message(CausalLM(hub="meta-llama/Meta-Llama-3-8B"), "model")
    assert found.startswith("model.hub=meta-llama/Meta-Llama-3-8B cannot be had (")
    assert "HF_HUB_OFFLINE is set" in found and "model.path" in found and "hf auth login" in found
    assert "selector.inner.hub=nobody/nothing" in message(Outer(), "selector")
    assert "selector.inner.path" in message(Outer(), "selector")
    assert "no repository's name" in message(Inner(hub="a/b/c d"), "model")


def test_local_models_and_other_components_need_no_hub(tmp_path: Path) -> None:
    need_models(Inner(path="anywhere"), "model")
    need_models(Inner(hub=str(tmp_path)), "model")
    need_models(Inner(hub=""), "model")
    need_models(object(), "model")


def test_a_model_in_the_cache_is_had_once_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(repo: str, name: str, revision: str | None, local_files_only: bool) -> str:
        return "config"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    assert "the weights are not in the hub's cache" in message(Inner(), "model")
    (tmp_path / "weights").touch()
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: str(tmp_path / "weights"))
    need_models(Inner(), "model")


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again and again for half a minute, as its library does."""
    import huggingface_hub
    from huggingface_hub import constants

    asked = []

    class Session:
        def head(self, *given: Any, **options: Any) -> None:
            asked.append(given)
            raise ConnectionError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    for _ in range(2):
        assert "it is not in the hub's cache, and no network" in message(Inner(), "model")
    assert len(asked) == 1
    hub.answers.cache_clear()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GatedRepoError", "access to it has to be asked for"),
        ("RepositoryNotFoundError", "no such repository"),
        ("RevisionNotFoundError", "no such revision"),
        ("LocalEntryNotFoundError", "not in the hub's cache"),
    ],
)
def test_the_reason_is_found_below_the_librarys_own(name: str, words: str) -> None:
    try:
        try:
            raise type(name, (OSError,), {})("ten\nlines")
        except OSError as inner:
            raise OSError("We couldn't connect") from inner
    except OSError as error:
        assert words in reason(error)


def test_a_reason_is_one_short_line() -> None:
    assert reason(OSError("\n first \n second")) == "first"
    assert len(reason(OSError("x" * 1000))) <= 200
    assert reason(OSError()) == "OSError"


def test_faults_of_another_kind_pass_through() -> None:
    for error in (ValueError("a bug"), ConfigError("said already"), MemoryError()):
        with pytest.raises(type(error), match=str(error)), fetching("it", "do something"):
            raise error
    with pytest.raises(ConfigError, match=r"it cannot be had \(down\); do something"), fetching("it", "do something"):
        raise ConnectionError("down")


def test_a_folder_that_is_not_whole_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    @dataclass
    class Reader(Inner):
        @loads("embedder")
        def load(self) -> None:
            raise OSError("no file named model.safetensors")

    with pytest.raises(ConfigError, match=r"embedder\.path=.*no file named model\.safetensors.*folder is whole"):
        Reader(path=str(tmp_path)).load()
    with pytest.raises(ConfigError, match=r"embedder\.path="):
        SentenceTransformer(hub="", path=str(tmp_path)).encode(["a"])


def test_being_offline_is_read_from_the_library() -> None:
    assert hub.offline()
