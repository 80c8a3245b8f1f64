"""The harness on a live model: real tasks, real metrics, consent before generated code runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dsel.cache import Cache
from dsel.errors import ConfigError
from dsel.evaluator.gsm8k_local import Gsm8kLocal
from dsel.evaluator.harness import TASKS, Harness, metric_of
from dsel.evaluator.tasks.code import complete_programs
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from tests.conftest import ROOT, make_pool

SPEC = {"shots": 2, "metric": "exact_match,flexible"}


@pytest.fixture(scope="module")
def manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(TASKS)])


@pytest.mark.parametrize("name", ["paper", "iterit_paper"])
def test_the_papers_tasks_and_metrics_exist_in_the_harness(name: str, manager: Any) -> None:
    """Against the harness's own task files; nothing is downloaded."""
    from lm_eval.tasks._yaml_loader import load_yaml

    evaluator = instantiate(OmegaConf.load(ROOT / "conf" / "evaluator" / f"{name}.yaml"), _convert_="all")
    evaluator.check()
    for task, spec in evaluator.tasks.items():
        assert task in manager.all_tasks, task
        config = load_yaml(manager.task_index[task].yaml_path, resolve_func=False)
        wanted, _, filtered = spec["metric"].partition(",")
        if "group" in config:
            listed = [m["metric"] for m in config["aggregate_metric_list"]]
        else:
            listed = [str(m["metric"]).rsplit("/", 1)[-1].rsplit(".", 1)[-1] for m in config["metric_list"]]
            filters = [f["name"] for f in config.get("filter_list", [{"name": "none"}])]
            assert filtered in filters, task
            assert bool(config.get("unsafe_code")) == bool(spec.get("unsafe")), task
        assert wanted.split("@")[0] in [m.split("@")[0].removesuffix("_at_k") for m in listed] + listed, task


def test_paper_has_the_published_shots() -> None:
    tasks = OmegaConf.load(ROOT / "conf" / "evaluator" / "paper.yaml").tasks
    shots = {name: spec.shots for name, spec in tasks.items()}
    assert shots == {
        "mmlu": 5, "gsm8k": 8, "hellaswag": 10, "arc_challenge": 25, "truthfulqa_mc2": 0, "humaneval_pass10": 0,
    }  # fmt: skip


def test_code_is_run_only_with_consent(caplog: pytest.LogCaptureFixture) -> None:
    tasks = {"a": {"shots": 0, "metric": "m"}, "b": {"shots": 0, "metric": "m", "unsafe": True}}
    assert list(Harness(tasks=tasks)._allowed()) == ["a"]
    assert "left out b: it runs code written by the model" in caplog.text
    assert list(Harness(tasks=tasks, allow_code_execution=True)._allowed()) == ["a", "b"]
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_programs_are_prompt_and_completion() -> None:
    assert complete_programs([["1", "2"], ["3"]], [{"prompt": "a"}, {"prompt": "b"}]) == [["a1", "a2"], ["b3"]]


def test_a_metric_the_task_does_not_report_names_those_it_does() -> None:
    with pytest.raises(ValueError, match="the task reports acc,none"):
        metric_of("t", {"shots": 0, "metric": "f1,none"}, {"results": {"t": {"acc,none": 1.0, "acc_stderr,none": 0.1}}})


@pytest.mark.parametrize("options", [{"tasks": {}}, {"tasks": {"a": {"shots": 1}}}, {"tasks": {"a": SPEC}, "limit": 0}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="evaluator"):
        Harness(**options).check()


def write_problems(path: Path) -> None:
    rows = [
        {"question": f"What is {i} plus {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i:,}"}
        for i in range(500, 512)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_gsm8k_reads_a_local_file_and_reports_a_standard_error(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    write_problems(tmp_path / "test.jsonl")
    evaluator = Gsm8kLocal(
        tasks={"gsm8k_local": SPEC}, path=str(tmp_path / "test.jsonl"), limit=6, max_new_tokens=4, chat_template=True
    )
    evaluator.check()
    metrics = evaluator.evaluate(
        Learner(spec, None, cache, seed=0), make_pool(4), make_pool(4).take([]), cache, tmp_path
    )
    found = metrics["gsm8k_local"]
    assert (found.n, found.shots, found.metric) == (6, 2, "exact_match,flexible")
    assert 0 <= found.value <= 1
    assert found.stderr >= 0
    assert "results" in json.loads((tmp_path / "evaluation.json").read_text())["gsm8k_local"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("500 and 500 make 1,000.\n#### 1,000", True),
        ("The answer is $1000", True),
        ("It is 1000.", True),
        ("I think 999", False),
        ("no idea", False),
    ],
)
def test_gsm8k_answers_are_judged_by_their_last_number(
    answer: str, right: bool, cache: Cache, tmp_path: Path, spec: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the harness's own filters and metric, with the model's text replaced."""
    import lm_eval.models.huggingface as hf

    monkeypatch.setattr(hf.HFLM, "generate_until", lambda self, requests, disable_tqdm=False: [answer] * len(requests))
    write_problems(tmp_path / "test.jsonl")
    evaluator = Gsm8kLocal(tasks={"gsm8k_local": SPEC}, path=str(tmp_path / "test.jsonl"), limit=1)
    metrics = evaluator.evaluate(
        Learner(spec, None, cache, seed=0), make_pool(4), make_pool(4).take([]), cache, tmp_path
    )
    assert metrics["gsm8k_local"].value == float(right)
