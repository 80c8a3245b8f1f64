"""Trees of messages as conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsel.data.oasst1 import Oasst1


def message(name: str, parent: str | None, rank: int | None = None, lang: str = "en") -> dict[str, Any]:
    """A row as it is on the hub, whose text is its name; those of the prompter begin with q."""
    role = "prompter" if name.startswith("q") else "assistant"
    ids = {"message_id": name, "parent_id": parent, "message_tree_id": "t"}
    return {**ids, "text": name, "role": role, "lang": lang, "rank": rank, "deleted": False, "tree_state": "ready"}


ROWS = [  # answers may come before what they answer
    message("a2", "q1", rank=1),
    message("q1", None),
    message("a1", "q1", rank=0),
    message("q2", "a1"),
    message("a4", "q2", rank=1), message("a3", "q2", rank=0),
    message("q3", "a3"), message("q4", "a3"),  # nobody answered
    message("q5", "a2"),
    message("q6", None, lang="de"), message("a6", "q6", lang="de"),
    message("q7", None), message("q8", None, lang="fr"),
]  # fmt: skip


def data(folder: Path, *rows: dict[str, Any], **options: Any) -> Oasst1:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS))
    return Oasst1(hub="OpenAssistant/oasst1", path=str(folder), name="oasst1", **options)


def conversations(made: Oasst1) -> list[str]:
    return [" ".join(m["content"] for m in messages) for messages in made.load().messages]


def test_the_best_replies_make_one_conversation_of_a_tree(tmp_path: Path) -> None:
    pool = data(tmp_path).load()
    assert [[m["content"] for m in messages] for messages in pool.messages] == [["q1", "a1", "q2", "a3"], ["q6", "a6"]]
    assert [m["role"] for m in pool.messages[0]] == ["user", "assistant"] * 2
    assert pool.sources == ["en", "de"] and pool.ids == ["a3", "a6"]
    assert not pool.skipped


def test_each_path_can_be_one(tmp_path: Path) -> None:
    assert conversations(data(tmp_path, replies="all")) == ["q1 a1 q2 a3", "q1 a1 q2 a4", "q1 a2", "q6 a6"]


@pytest.mark.parametrize(("languages", "found"), [(["de"], ["q6 a6"]), (["en", "de"], ["q1 a1 q2 a3", "q6 a6"])])
def test_languages(languages: list[str], found: list[str], tmp_path: Path) -> None:
    assert conversations(data(tmp_path, languages=languages)) == found


def test_a_deep_tree_takes_no_stack(tmp_path: Path) -> None:
    names = [f"{'qa'[i % 2]}{i}" for i in range(2000)]
    rows = [message(name, above) for name, above in zip(names, [None, *names])]
    pool = data(tmp_path, *rows).load()
    assert [len(messages) for messages in pool.messages] == [2000]
