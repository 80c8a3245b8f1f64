"""What all embedders share: order, shards, and going on after a kill."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.component import identity
from dsel.embedder import base
from dsel.embedder.base import Embedder, Vectors, means
from dsel.errors import ConfigError
from dsel.npy import is_file
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
    pwrite = os.pwrite
    count = 0

    def half(handle: int, data: memoryview, at: int) -> int:
        nonlocal count
        count += 1
        pwrite(handle, data[: len(data) // 2], at)
        if count == 8:  # in the second shard
            raise Killed
        return len(data) // 2

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(Killed):
            Counting().embed(chats(TEXTS), tmp_path)
    np.testing.assert_array_equal(Counting().embed(chats(TEXTS), tmp_path), expected(TEXTS))


def test_vectors_are_one_file_and_a_journal_until_all_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SHARD", 5)
    vectors = Counting().embed(chats(TEXTS), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embeddings.npy", "shard-embedding.jsonl"]
    assert is_file(vectors, tmp_path / "embeddings.npy") and not vectors.flags.writeable


@pytest.mark.parametrize("harm", ["a row", "a count", "the end", "the header", "half a line", "the file"])
def test_what_was_harmed_since_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    """And no more than that, where it is known."""
    monkeypatch.setattr(base, "SHARD", 5)
    Counting().embed(chats(TEXTS), tmp_path)
    vectors, journal = tmp_path / "embeddings.npy", tmp_path / "shard-embedding.jsonl"
    data = bytearray(vectors.read_bytes())
    if harm == "a row":
        data[-3] ^= 1
    elif harm == "the end":
        del data[-5:]
    elif harm == "the header":
        data[:20] = b"\0" * 20
    vectors.write_bytes(data)
    if harm == "a count":
        journal.write_text(journal.read_text().replace('"of": 3', '"of": 4'))
    elif harm == "half a line":
        journal.write_bytes(journal.read_bytes()[:-9])
    elif harm == "the file":
        vectors.unlink()
    again = Counting()
    np.testing.assert_array_equal(again.embed(chats(TEXTS), tmp_path), expected(TEXTS))
    assert len(again.calls) == {"a row": 1, "a count": 1, "half a line": 1}.get(harm, 5)
    last = Counting()
    np.testing.assert_array_equal(last.embed(chats(TEXTS), tmp_path), expected(TEXTS))
    assert not last.calls


def test_vectors_are_kept_as_store_says(tmp_path: Path) -> None:
    vectors = Counting(store="float16").embed(chats(TEXTS), tmp_path)
    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    assert identity(Counting(store="float16")) != identity(Counting())

    class Large(Counting):
        def encode(self, texts: list[str]) -> Vectors:
            return super().encode(texts) * 1e5

    with pytest.raises(ConfigError, match="embedder.store=float16 holds no number above 65,504"):
        Large(store="float16").embed(chats(TEXTS), tmp_path / "large")
    Large().embed(chats(TEXTS), tmp_path)


def test_examples_are_read_a_shard_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is made before its shard, or kept after it: any sequence will do."""
    monkeypatch.setattr(base, "SHARD", 5)
    known = {}

    class Made(Sequence):
        def __len__(self) -> int:
            return len(TEXTS)

        def __getitem__(self, i: Any) -> Any:
            if not 0 <= i < len(TEXTS):
                raise IndexError(i)
            known[i] = chats([TEXTS[i]])[0]
            return known.pop(i)

    np.testing.assert_array_equal(Counting().embed(Made(), tmp_path), expected(TEXTS))


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
