"""What is read of a text that is too long, and what is said of the rest. Tokens are characters here, or words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.pool import Message
from dsel.reading import UNKNOWN, cuts, joined, note_cut, sentence, shorten, windows
from tests.embedder.chats import chat


def spans(text: str) -> list[tuple[int, int]]:
    return [m.span() for m in re.finditer(r"\S+", text)]


def size(messages: Sequence[Message]) -> int:
    return len(spans(joined(messages)))


def numbered(name: str, count: int) -> str:
    return " ".join(f"{name}{i}" for i in range(count))


CHAT = chat(numbered("a", 3), numbered("b", 3), numbered("c", 6), numbered("d", 8), system=numbered("s", 5))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (25, CHAT),
        (24, CHAT[1:]),
        (20, CHAT[1:]),
        (19, CHAT[3:]),
        (14, CHAT[3:]),
        (13, chat(numbered("c", 6), numbered("d", 7))),
        (10, chat("c0 c1 c2 c4 c5", numbered("d", 5))),
        (2, chat("c0", "d0")),
    ],
)
def test_the_last_exchange_is_kept_longest(limit: int, expected: list[Message]) -> None:
    """System prompts go first, whole; then earlier exchanges; the last instruction and response share what is left."""
    assert shorten(CHAT, limit, size, spans) == expected


def test_a_short_turn_leaves_its_room_to_the_other() -> None:
    kept = shorten(chat("why ?", numbered("d", 90)), 12, size, spans)
    assert kept == chat("why ?", numbered("d", 10))
    kept = shorten(chat(numbered("c", 90), "yes"), 12, size, spans)
    assert kept[1]["content"] == "yes" and kept[0]["content"].split() == ["c0", "c1", "c2", "c3", "c4", "c5"] + [
        f"c{i}" for i in range(85, 90)
    ]


def test_a_tools_answer_stays_with_its_question() -> None:
    asked = chat("early", "words", "question", "call") + [{"role": "tool", "content": "found"}]
    asked += [{"role": "assistant", "content": "so"}]
    assert shorten(asked, 5, size, spans) == asked[2:]


def test_a_conversation_of_nothing_but_a_system_prompt_keeps_it() -> None:
    alone = [{"role": "system", "content": numbered("s", 9)}]
    assert shorten(alone, 4, size, spans) == [{"role": "system", "content": "s0 s1 s7 s8"}]
    assert shorten([], 0, size, spans) == []


roles = st.sampled_from(["system", "user", "assistant", "tool"])
turns = st.lists(st.tuples(roles, st.integers(0, 9)), max_size=7)


@settings(deadline=None)
@given(turns, st.integers(0, 30))
def test_any_conversation_fits_and_says_nothing_new(turns: list[tuple[str, int]], limit: int) -> None:
    messages: list[Message] = [
        {"role": role, "content": numbered(f"{place}-", count)} for place, (role, count) in enumerate(turns)
    ]
    kept = shorten(messages, limit, size, spans)
    assert size(kept) <= limit
    assert set(joined(kept).split()) <= set(joined(messages).split())
    if size(messages) <= limit:
        assert kept == messages
    elif any(m["content"] for m in messages if m["role"] != "system"):
        assert not any(m["role"] == "system" for m in kept)


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(1, 20))
def test_windows_are_the_whole_text_in_equal_parts(count: int, limit: int) -> None:
    text = numbered("w", count)
    parts = windows(text, limit, lambda part: len(spans(part)), spans)
    assert " ".join(parts) == text
    sizes = [len(spans(part)) for part in parts]
    assert max(sizes) <= limit or count <= limit  # it is for texts that do not fit
    assert len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]


def test_windows_leave_room_for_what_is_added() -> None:
    parts = windows(numbered("w", 20), 6, lambda part: len(spans(part)) + 2, spans)
    assert [len(spans(part)) for part in parts] == [4] * 5
    assert windows(numbered("w", 3), 2, lambda part: len(spans(part)) + 2, spans) == ["w0", "w1", "w2"]


def test_what_is_cut_is_noted_and_said(tmp_path: Path) -> None:
    note_cut(tmp_path, "embedder", np.array([[9, 9, 10], [30, 10, 10], [0, 0, 0], [50, 10, 10]]), "more is better")
    (cut,) = cuts(tmp_path)
    assert cut == {
        "reader": "embedder", "limit": 10, "texts": 2, "of": 4, "tokens": 60, "of_tokens": 80,
        "advice": "more is better",
    }  # fmt: skip
    assert sentence(cut) == (
        "2 of 4 texts are longer than the 10 tokens that the embedder reads: 75.0 % of their tokens are not read; "
        "more is better"
    )


def test_each_reader_has_one_note_and_none_where_all_is_read(tmp_path: Path) -> None:
    note_cut(tmp_path, "one", np.array([[9, 9, 10], [10, 10, 10]]), "")
    assert cuts(tmp_path) == [] and not list(tmp_path.iterdir())
    for tokens in (11, 12):  # a killed run's is replaced
        for reader in ("one", "two"):
            note_cut(tmp_path, reader, np.array([[tokens, 10, 10]]), "")
    assert [(cut["reader"], cut["of_tokens"]) for cut in cuts(tmp_path)] == [("one", 12), ("two", 12)]


def test_what_nobody_knows_is_said_too(tmp_path: Path) -> None:
    note_cut(tmp_path, "embedder", np.array([[0, 0, UNKNOWN]] * 3), "")
    (cut,) = cuts(tmp_path)
    assert (cut["texts"], cut["of"]) == (None, 3)
    assert "how many of 3 texts are longer than the embedder reads is not known" in sentence(cut)
