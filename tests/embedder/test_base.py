"""What all embedders share: order, shards, and going on after a kill."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.embedder import base
from dsel.embedder.base import Embedder, Vectors, means
from dsel.errors import ConfigError
from tests.conftest import checked
from tests.embedder.chats import chat, chats


class Killed(BaseException):
    """Stands for a process that ends here."""


@dataclass
class Counting(Embedder):
    """Maps a text to (length, sum of its code points), remembers what it was given, and may die on the way."""

    dies_at: int | None = None
    calls: list[list[str]] = field(default_factory=list)

    def encode(self, texts: list[str]) -> Vectors:
        if len(self.calls) == self.dies_at:
            raise Killed
        self.calls.append(texts)
        return expected(texts)


def expected(texts: list[str]) -> Vectors:
    return np.array([[len(t), sum(map(ord, t)) % 997] for t in texts], dtype=np.float32)


TEXTS = [("ab" * (i * 37 % 11)) + str(i) for i in range(23)]


@pytest.mark.parametrize("shard", [1, 2, 7, 23, 100])
def test_vectors_are_in_the_order_of_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int) -> None:
    monkeypatch.setattr(base, "SHARD", shard)
    embedder = Counting()
    vectors = embedder.embed(chats(TEXTS), tmp_path)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    assert [len(c) for c in embedder.calls] == [shard] * (23 // shard) + ([23 % shard] if 23 % shard else [])


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=20), st.integers(1, 20))
def test_shards_do_not_change_the_result(texts: list[str], shard: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "SHARD", shard)
        np.testing.assert_array_equal(Counting().embed(chats(texts), Path(folder)), expected(texts))


def test_the_longest_texts_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SHARD", 5)
    embedder = Counting()
    embedder.embed(chats(TEXTS), tmp_path)
    lengths = [len(text) for call in embedder.calls for text in call]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("dies_at", [0, 1, 4])
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int) -> None:
    monkeypatch.setattr(base, "SHARD", 5)
    first, second = Counting(dies_at=dies_at), Counting()
    with pytest.raises(Killed):
        first.embed(chats(TEXTS), tmp_path)
    np.testing.assert_array_equal(second.embed(chats(TEXTS), tmp_path), expected(TEXTS))
    assert len(second.calls) == 5 - dies_at
    done = [text for call in [*first.calls, *second.calls] for text in call]
    assert sorted(done) == sorted(TEXTS)  # no text twice


def test_a_kill_while_a_shard_is_written_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SHARD", 5)
    save = np.save

    def half(path: Path, *arguments: Any, **options: Any) -> None:
        save(path, *arguments, **options)
        path.write_bytes(path.read_bytes()[:-7])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", half)
        with pytest.raises(Killed):
            Counting().embed(chats(TEXTS), tmp_path)
    np.testing.assert_array_equal(Counting().embed(chats(TEXTS), tmp_path), expected(TEXTS))


def test_nothing_to_embed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no texts"):
        Counting().embed([], tmp_path)


def test_all_turns_are_read_or_the_users_alone(tmp_path: Path) -> None:
    conversation = chat("one", "two", "three", "four", system="be brief")
    conversation[4]["reasoning_content"] = "hm"
    for text, read in (("both", "be brief\none\ntwo\nthree\nhm\nfour"), ("prompt", "one\nthree")):
        (tmp_path / text).mkdir()
        embedder = Counting(text=text)
        embedder.check()
        embedder.embed([conversation], tmp_path / text)
        assert embedder.calls == [[read]]
    with pytest.raises(ConfigError, match=r"embedder\.text=all: wants one of both, prompt"):
        checked(Counting(text="all"), "embedder")  # type: ignore[arg-type]


def test_the_mean_of_unit_vectors_is_a_unit_vector() -> None:
    unit = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    np.testing.assert_allclose(means(unit, [2, 1]), [[0.5**0.5, 0.5**0.5], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(means(2 * unit, [2, 1]), [[1, 1], [1.2, 1.6]], atol=1e-6)
