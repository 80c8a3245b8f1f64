"""Where targets come from, and that what is one is not chosen."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.data.procedural import heldout
from dsel.errors import ConfigError
from dsel.targets.base import Target
from dsel.targets.lm_eval import LmEvalTargets
from dsel.targets.local import LocalTargets
from dsel.targets.none import NoTargets
from dsel.targets.procedural import ProceduralTargets
from dsel.targets.split import SplitTargets
from dsel.testing import made_pool


@pytest.fixture
def cache(tmp_path: Any) -> Cache:
    return Cache(tmp_path / "cache")


def test_none_leaves_the_pool_alone(cache):
    pool = made_pool(9)
    assert NoTargets().take(pool, cache) == (pool, None)


def test_a_split_leaves_the_pool(cache):
    pool = made_pool(30)
    rest, target = SplitTargets(sources=["source 1", "source 0"], examples=4).take(pool, cache)
    assert target is not None and list(target.tasks) == ["source 1"] * 4 + ["source 0"] * 4
    assert sorted([*rest.ids, *target.pool.ids]) == sorted(pool.ids) and len(rest) == 22
    again = SplitTargets(sources=["source 1", "source 0"], examples=4).take(pool, cache)[1]
    other = SplitTargets(sources=["source 1", "source 0"], examples=4, seed=1).take(pool, cache)[1]
    assert again is not None and other is not None
    assert list(again.pool.ids) == list(target.pool.ids) != list(other.pool.ids)
    half = SplitTargets(sources=["source 2"], examples=0.5).take(pool, cache)[1]
    assert half is not None and len(half) == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sources": ["nowhere"]}, "the pool has no source nowhere; it has source 0, source 1, source 2"),
        ({"sources": ["source 0"], "examples": 10}, "source source 0 has 10 examples, and some must stay"),
    ],
)
def test_a_split_says_what_it_cannot_take(cache, options, says):
    with pytest.raises(ConfigError, match=says):
        SplitTargets(**options).take(made_pool(30), cache)


@pytest.mark.parametrize(
    "targets",
    [SplitTargets(sources=["a", "b", "a"]), ProceduralTargets(kinds=["a", "a"]), LmEvalTargets(tasks=["a", "a"])],
)
def test_nothing_is_a_target_twice(targets):
    with pytest.raises(ConfigError, match=r"targets\.(sources|kinds|tasks): named more than once: a"):
        targets.check()


def test_files_have_tasks_and_subtasks_in_columns(tmp_path, cache, caplog):
    path = tmp_path / "wanted.jsonl"
    rows = [{"instruction": f"Say {i}", "output": str(i), "kind": "ab"[i % 2], "part": "xyz"[i % 3]} for i in range(6)]
    path.write_text("\n".join(map(json.dumps, rows)))
    pool = made_pool(9)
    found = LocalTargets(path=str(path), task="kind", subtask="part").take(pool, cache)
    assert found[0] is pool and found[1] is not None
    assert [group.tolist() for group in found[1].by_task()] == [[0, 2, 4], [1, 3, 5]]
    assert [group.tolist() for group in found[1].by_subtask()] == [[0], [1], [2], [3], [4], [5]]
    plain = LocalTargets(path=str(path)).take(pool, cache)[1]
    assert plain is not None and [group.tolist() for group in plain.by_task()] == [[0, 1, 2, 3, 4, 5]]
    with pytest.raises(ConfigError, match=r"targets\.task=topic: 6 rows have no such column"):
        LocalTargets(path=str(path), task="topic").take(pool, cache)
    assert "targets.columns={input: kind} would read" in caplog.text and "data.columns" not in caplog.text
    with pytest.raises(ConfigError, match=r"targets\.path=.*: no such file"):
        LocalTargets(path=str(tmp_path / "none.jsonl")).check()


def test_groups_are_in_the_order_of_their_first_example():
    target = Target(made_pool(4), ["b", "a", "b", "a"], ["s", "s", "t", "s"])
    assert [group.tolist() for group in target.by_task()] == [[0, 2], [1, 3]]
    assert [group.tolist() for group in target.by_subtask()] == [[0], [1, 3], [2]]


class Config:
    task, process_docs, doc_to_choice = "sums", None, None
    training_split: str | None = "train"
    validation_split: str | None = "validation"
    fewshot_split: str | None = None
    test_split: str | None = "test"


class Task:
    """What the harness has of a task, as far as targets look at it."""

    def __init__(self, **splits: Any):
        self.fewshot_cfg = SimpleNamespace(samples=None)
        self.config = Config()
        for name, value in splits.items():
            setattr(self.config, name, value)
        self.dataset = {
            split: [{"a": i, "split": split} for i in range(30)] for split in ("train", "validation", "test")
        }

    def doc_to_text(self, document: Any) -> str:
        return f"{document['split']}: {document['a']} + 1 ="

    def doc_to_target(self, document: Any) -> str:
        return f" {document['a'] + 1}"


class Manager:
    def __init__(self, task: Task):
        self.all_tasks, self._task = ["sums"], task

    def load(self, names: list[str]) -> Any:
        return {"tasks": {"sums": self._task}}


def use(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    monkeypatch.setattr("dsel.targets.lm_eval.index_of_tasks", lambda folders, builtin: Manager(task))


@pytest.mark.parametrize(
    ("documents", "split"), [("fewshot", "train"), ("training", "train"), ("validation", "validation")]
)
def test_documents_of_a_task(monkeypatch, cache, documents, split):
    use(monkeypatch, Task())
    found = LmEvalTargets(tasks=["sums"], examples=5, documents=documents).take(made_pool(3), cache)[1]
    assert found is not None and list(found.tasks) == ["sums"] * 5 and len(set(found.pool.ids)) == 5
    for question, answer in found.pool.messages:
        assert question["content"].startswith(f"{split}: ") and answer["content"].isdigit()
    again = LmEvalTargets(tasks=["sums"], examples=5, documents=documents).take(made_pool(3), cache)[1]
    assert again is not None and list(again.pool.texts) == list(found.pool.texts)
    assert len(np.unique(list(found.pool.texts))) == 5


@pytest.mark.parametrize(
    ("splits", "documents", "says"),
    [
        ({"fewshot_split": "test"}, "fewshot", "sums is evaluated on that split, test"),
        ({"test_split": None}, "validation", "sums is evaluated on that split, validation"),
        ({"training_split": None}, "training", "sums has no such split"),
    ],
)
def test_what_a_task_asks_may_not_choose(monkeypatch, cache, splits, documents, says):
    use(monkeypatch, Task(**splits))
    with pytest.raises(ConfigError, match=says):
        LmEvalTargets(tasks=["sums"], documents=documents).take(made_pool(3), cache)


def test_few_shot_examples_of_the_task_file_are_targets(monkeypatch, cache):
    """As those of BBH, which has a test split and nothing else."""
    task = Task(fewshot_split=None, training_split=None, validation_split=None)
    written = [{"a": 1000 + i, "split": "file"} for i in range(3)]
    for samples in (written, lambda: written):
        task.fewshot_cfg = SimpleNamespace(samples=samples)
        use(monkeypatch, task)
        found = LmEvalTargets(tasks=["sums"]).take(made_pool(3), cache)[1]
        assert found is not None and sorted(answer["content"] for _, answer in found.pool.messages) == [
            "1001", "1002", "1003"
        ]  # fmt: skip
    with pytest.raises(ConfigError, match="sums has no such split"):
        LmEvalTargets(tasks=["sums"], documents="training").take(made_pool(3), cache)


def test_right_examples_of_some_kinds_and_none_that_is_tested(cache):
    pool = made_pool(3)
    same, found = ProceduralTargets(kinds=["capital", "past"], examples=5, seed=3).take(pool, cache)
    assert same is pool and found is not None
    assert list(found.tasks) == ["capital"] * 5 + ["past"] * 5
    again = ProceduralTargets(kinds=["capital", "past"], examples=5, seed=3).take(pool, cache)[1]
    other = ProceduralTargets(kinds=["capital", "past"], examples=5, seed=4).take(pool, cache)[1]
    assert again is not None and list(again.pool.texts) == list(found.pool.texts)
    assert other is not None and list(other.pool.texts) != list(found.pool.texts)
    tested = {row["prompt"] for row in heldout(28, 0, ["capital", "past"])}
    assert not tested & {question["content"] for question, _ in found.pool.messages}


@pytest.mark.parametrize("kinds", [[], ["capital", "nonsense"]])
def test_unknown_kinds_are_said(kinds):
    with pytest.raises(ConfigError, match=r"targets\.kinds"):
        ProceduralTargets(kinds=kinds).check()


def test_an_unknown_task_is_said(monkeypatch, cache):
    use(monkeypatch, Task())
    with pytest.raises(ConfigError, match="no task products"):
        LmEvalTargets(tasks=["products"]).take(made_pool(3), cache)
