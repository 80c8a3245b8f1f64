"""The embedded model: built once, found again, made anew when what made it changes."""

from __future__ import annotations

import pytest

from dsel.cache import Cache
from dsel.component import identity
from dsel.model import tiny
from dsel.model.tiny import Tiny


def test_it_is_built_once_and_then_found(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        model = Tiny(steps=2, hidden=32, layers=1, dtype="float32")
        model.prepare(cache)
        tokenizer = model.load_tokenizer()
        assert model.load(tokenizer).config.num_hidden_layers == 1
    assert caplog.text.count("pretraining the tiny model: once") == 1


def test_it_is_known_by_its_size_seed_and_source(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    plain = identity(Tiny())
    assert plain != identity(Tiny(seed=1))
    assert plain != identity(Tiny(hidden=64))
    built = Tiny(steps=2, hidden=32, layers=1)
    before = identity(built)
    built.prepare(cache)
    assert identity(built) == before
    monkeypatch.setattr(tiny, "_source", lambda: "another generator")
    assert plain != identity(Tiny())
