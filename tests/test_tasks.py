"""What tasks of lm-evaluation-harness ask, for whoever looks for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec

from dsel.cache import Cache
from dsel.remote import Remote
from dsel.tasks import texts_of_task


class Task:
    """What is looked at of a task: one that names its question, or leaves it in the prompt."""

    eval_docs = ({"q": "How many?"}, {"q": "How far?"})

    def __init__(self, names_it: bool):
        self.should_decontaminate = lambda: names_it

    def doc_to_decontamination_query(self, document: dict[str, str]) -> str:
        return document["q"]

    def doc_to_text(self, document: dict[str, str]) -> str:
        return f"Question: {document['q']} Answer:"


def manager(**tasks: Any) -> Any:
    return SimpleNamespace(load=lambda names: {"tasks": tasks})


def never() -> Any:
    raise AssertionError("read again")


def test_questions_are_read_once_by_task_and_number(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    found = texts_of_task("some", lambda: manager(b=Task(False), a=Task(True)), cache)
    assert found == {
        "a/0": "How many?", "a/1": "How far?",
        "b/0": "Question: How many? Answer:", "b/1": "Question: How far? Answer:",
    }  # fmt: skip
    assert texts_of_task("some", never, cache) == found


def test_a_task_whose_data_are_not_here_has_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def missing(names: list[str]) -> Any:
        raise ConnectionError("offline")

    assert texts_of_task("some", lambda: SimpleNamespace(load=missing), cache) is None
    assert texts_of_task("some", lambda: manager(a=Task(True)), cache) == {"a/0": "How many?", "a/1": "How far?"}


def test_what_another_machine_has_read_is_downloaded(tmp_path: Path) -> None:
    url = "memory://bucket/asked"
    try:
        first = Cache(tmp_path / "first", Remote(url, "cache"))
        found = texts_of_task("some", lambda: manager(a=Task(True)), first)
        assert texts_of_task("some", never, Cache(tmp_path / "second", Remote(url, "cache"))) == found
    finally:
        fsspec.filesystem("memory").store.clear()
