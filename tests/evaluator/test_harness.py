"""The harness on a live model: real tasks, real metrics, consent before generated code runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dsel.cache import Cache
from dsel.component import digest
from dsel.errors import ConfigError
from dsel.evaluator.gsm8k_local import Gsm8kLocal
from dsel.evaluator.harness import TASKS, Harness, Task, metric_of, write_task
from dsel.evaluator.heldout_loss import HeldoutLoss
from dsel.evaluator.tasks.code import complete_programs
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from tests.conftest import ROOT, checked, make_pool

SPEC: Task = {"shots": 2, "metric": "exact_match,flexible"}


def evaluator_of(name: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=[f"evaluator={name}"]).evaluator


@pytest.fixture(scope="module")
def manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(TASKS)])


@pytest.mark.parametrize("name", ["paper", "iterit_paper"])
def test_the_papers_tasks_and_metrics_exist_in_the_harness(name: str, manager: Any) -> None:
    """Against the harness's own task files; nothing is downloaded."""
    from lm_eval.tasks._yaml_loader import load_yaml

    evaluator = instantiate(evaluator_of(name), _convert_="all")
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
    tasks = evaluator_of("paper").tasks
    shots = {name: spec.shots for name, spec in tasks.items()}
    assert shots == {
        "mmlu_chat": 5, "gsm8k_cot": 8, "hellaswag": 10, "arc_challenge": 25, "truthfulqa_mc2": 0,
        "humaneval_pass10": 0,
    }  # fmt: skip


def test_code_is_run_only_with_consent() -> None:
    tasks = {"a": {"shots": 0, "metric": "m"}, "b": {"shots": 0, "metric": "m", "unsafe": True}}
    assert list(Harness(tasks=tasks).asked) == ["a"]
    assert list(Harness(tasks=tasks, allow_code_execution=True).asked) == ["a", "b"]
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_programs_are_prompt_and_completion() -> None:
    assert complete_programs([["1", "2"], ["3"]], [{"prompt": "a"}, {"prompt": "b"}]) == [["a1", "a2"], ["b3"]]


def asked(
    evaluator: Harness, manager: Any, spec: CausalLM, cache: Cache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, ...]]:
    """The arguments of all that the harness asks the model; every answer is no answer."""
    import lm_eval.models.huggingface as hf
    import lm_eval.tasks

    found: list[tuple[str, ...]] = []

    def answer(value: Any) -> Any:
        def method(self: Any, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
            found.extend(request.args for request in requests)
            return [value] * len(requests)

        return method

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda **_: manager)
    monkeypatch.setattr(hf.HFLM, "loglikelihood", answer((0.0, False)))
    monkeypatch.setattr(hf.HFLM, "generate_until", answer(""))
    evaluator.check()
    evaluator.evaluate(Learner(spec, None, cache, seed=0), make_pool(4), make_pool(4).take([]), cache, folder)
    return found


def test_mmlu_is_asked_as_in_the_paper(
    manager: Any, spec: CausalLM, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shots in one message, answered by letters; the model's turn begins "The answer is:"."""
    import datasets

    rows = [{"question": f"Q{i}?", "choices": ["w", "x", "y", "z"], "answer": i % 4} for i in range(5)]
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda **_: datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s in ("dev", "test")}),
    )
    tasks: Any = OmegaConf.to_container(evaluator_of("paper").tasks)
    options: Any = {**tasks["mmlu_chat"], "shots": 2, "limit": 1}
    found = asked(Harness(tasks={"mmlu_chat": options}), manager, spec, cache, tmp_path, monkeypatch)
    assert len(found) == 57 * 4  # one question of each subject, with four answers
    context, answers = next(args[0] for args in found if "anatomy" in args[0]), {args[1] for args in found}
    assert answers == {" A", " B", " C", " D"}
    question = "{}?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    shots = [f"{question.format('Q0')} A\n\n", f"{question.format('Q1')} B\n\n", question.format("Q0")]
    chat = [
        {"role": "system", "content": "The following are multiple choice questions (with answers) about anatomy.\n\n"},
        {"role": "user", "content": "".join(shots)},
        {"role": "assistant", "content": "The answer is:"},
    ]
    rendered = spec.load_tokenizer().apply_chat_template(chat, tokenize=False, continue_final_message=True)
    assert context == rendered


def test_a_task_has_a_format_and_a_limit_of_its_own(
    spec: CausalLM, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    write_problems(tmp_path / "test.jsonl")
    prompts = {}
    differing: dict[str, Any] = {
        "chat": {"chat_template": True},
        "plain": {},
        "one": {"chat_template": True, "multiturn": False},
    }
    for name, own in differing.items():
        evaluator = Gsm8kLocal(
            tasks={"gsm8k_local": {**SPEC, **own, "limit": 2}}, path=str(tmp_path / "test.jsonl"), limit=5
        )  # fmt: skip
        manager = TaskManager(include_path=list(map(str, evaluator.task_folders(cache))), include_defaults=False)
        found = asked(evaluator, manager, spec, cache, tmp_path, monkeypatch)
        assert len(found) == 2
        prompts[name] = found[0][0]
    assert [prompts[name].count("<|user|>") for name in ("chat", "plain", "one")] == [3, 0, 1]


def sampling(task: dict[str, Any]) -> dict[str, Any]:
    return {**task, "generation_kwargs": {**task["generation_kwargs"], "do_sample": True, "temperature": 0.5}}


@pytest.mark.parametrize("sample", [False, True])
def test_generation_settings_of_a_model_do_not_leak_into_a_task(
    spec: CausalLM, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: bool
) -> None:
    """What a checkpoint's generation config says (Qwen's top_k 20, a penalty) and what the library would fill in."""
    from transformers import GenerationMixin

    write_problems(tmp_path / "test.jsonl")
    learner = Learner(spec, None, cache, seed=0)
    own = learner.model.generation_config
    own.update(top_k=20, top_p=0.8, repetition_penalty=1.05, do_sample=True, temperature=0.7)
    before, used = own.to_dict(), []
    real = GenerationMixin._prepare_generation_config

    def prepare(self: Any, *args: Any, **options: Any) -> Any:
        found = real(self, *args, **options)
        used.append(found[0])
        return found

    monkeypatch.setattr(GenerationMixin, "_prepare_generation_config", prepare)
    task = write_task if not sample else lambda path, task: write_task(path, sampling(task))
    monkeypatch.setattr("dsel.evaluator.gsm8k_local.write_task", task)
    evaluator = Gsm8kLocal(tasks={"gsm8k_local": SPEC}, path=str(tmp_path / "test.jsonl"), limit=1, max_new_tokens=2)
    evaluator.evaluate(learner, make_pool(4), make_pool(4).take([]), cache, tmp_path)
    (config,) = used
    assert (config.do_sample, config.repetition_penalty, config.num_beams) == (sample, 1.0, 1)
    assert not sample or (config.temperature, config.top_k, config.top_p) == (0.5, 0, 1.0)
    assert config.eos_token_id is not None
    assert learner.model.generation_config.to_dict() == before


def test_humaneval_samples_from_the_nucleus_alone() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    ten, one = (load_yaml(TASKS / f"humaneval_pass{k}.yaml")["generation_kwargs"] for k in (10, 1))
    assert (ten["temperature"], ten["top_p"], ten["top_k"], ten["do_sample"]) == (0.8, 0.95, 0, True)
    assert (one["temperature"], one["top_k"], one["do_sample"]) == (0.1, 0, True)


def test_a_metric_the_task_does_not_report_names_those_it_does() -> None:
    with pytest.raises(ConfigError, match="the task reports acc,none"):
        metric_of("t", {"shots": 0, "metric": "f1,none"}, {"results": {"t": {"acc,none": 1.0, "acc_stderr,none": 0.1}}})


@pytest.mark.parametrize(
    "options",
    [
        {"tasks": {}},
        {"tasks": {"a": {"shots": 1}}},
        {"tasks": {"a": SPEC}, "limit": 0},
        {"tasks": {"a": {**SPEC, "limit": 0}}},
        {"tasks": {"a": {**SPEC, "chat": True}}},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="evaluator"):
        checked(Harness(**options), "evaluator")


def write_problems(path: Path) -> None:
    rows = [
        {"question": f"What is {i} plus {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i:,}"}
        for i in range(500, 512)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_gsm8k_reads_a_local_file_and_reports_a_standard_error(
    spec: CausalLM, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_problems(tmp_path / "test.jsonl")
    evaluator = Gsm8kLocal(
        tasks={"gsm8k_local": SPEC}, path=str(tmp_path / "test.jsonl"), limit=6, max_new_tokens=4, chat_template=True
    )
    evaluator.check()
    metrics = evaluator.evaluate(
        Learner(spec, None, cache, seed=0), make_pool(4), make_pool(4).take([]), cache, tmp_path
    )
    assert "git" not in capfd.readouterr().err  # that this folder is none of its repositories
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
        ("**$1,000.00**", True),
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


def judged(response: str, reference: str = "so\n#### 29") -> tuple[float, float]:
    """The task file's own verdict on a response: (strict, flexible)."""
    from lm_eval.filters import build_filter_ensemble
    from lm_eval.tasks._yaml_loader import load_yaml

    task = load_yaml(TASKS / "_gsm8k_local.yaml")
    (metric,) = task["metric_list"]
    found = []
    for spec in task["filter_list"]:
        steps = [[f["function"], {k: v for k, v in f.items() if k != "function"}] for f in spec["filter"]]
        resps: Any = [[response]]
        for step in build_filter_ensemble(spec["name"], steps).filters:
            resps = step().apply(resps, [{}])
        found.append(metric["metric"](references=[reference], predictions=[next(iter(resps))]))
    return found[0], found[1]


@pytest.mark.parametrize(
    "answer",
    [
        "The total is $29.", "The total is $29.00.", "29.0", "29", "29.", "29 dollars", "**29**", "**$29.00**",
        "$29...", r"\boxed{29}", r"\(\$29.00\)", "29%", "from 10-29", "58-29", "(5)-29", "costs $10-$29", "x = 29",
        "It's 29!", "No.29", "$29,", "029", "2 and then 29\n",
    ],
)  # fmt: skip
def test_a_right_number_is_right_however_it_is_written(answer: str) -> None:
    assert judged(answer) == (0, 1)
    assert judged(f"15+14=29\n#### {answer}")[1] == 1


@pytest.mark.parametrize(
    "answer",
    [
        "2,9", "2.9", "290", "$290.0", "29.01", "29.50", "-29", "$-29", "-$29", "= -29", "−29", "(-29)", "29, or 30",
        "1,29", "9", "0.29", ".29", "2 9", "29.0.1", "29,00", "129", "29,000", "none",
    ],
)  # fmt: skip
def test_a_wrong_number_is_wrong(answer: str) -> None:
    assert judged(answer) == (0, 0)
    assert judged(f"#### {answer}") in [(0, 0), (1, 0)]  # strict takes the first number: that of "29, or 30"


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        ("#### 1,234", ["1,234.00", "1234", "$1,234."], ["1.234", "234", "12,34", "1,2,3,4", "1,234.5"]),
        ("a #### b\n#### 70000", ["70,000", "$70,000.00"], ["70", "70.000", "7,0000"]),
        ("#### -5", ["-5", "−5.0", "-$5", "$-5.00", "is -5."], ["5", "10-5", "$5"]),
        ("#### 2.5", ["2.50", "$2.5", "2.5."], ["25", "2,5", "2"]),
        ("#### 0", ["0", "$0.00", "-0"], ["10", "none", "."]),
        ("#### $18", ["18", "$18.00"], ["81"]),
        ("18", ["18.0"], ["81"]),
    ],
)
def test_references_are_numbers_too(reference: str, right: list[str], wrong: list[str]) -> None:
    assert [judged(answer, reference)[1] for answer in right] == [1] * len(right)
    assert [judged(answer, reference)[1] for answer in wrong] == [0] * len(wrong)


def test_what_is_written_as_the_references_are_is_strict() -> None:
    assert judged("#### 29") == judged("#### 29.0") == (1, 1)
    assert judged("#### 2,9") == (0, 0)
    assert judged("#### 28\nor 29") == (0, 1)


class Manager:
    """The harness's index, of which one task's data is out of reach."""

    all_tasks = ("mmlu", "mmlu_pro", "gsm8k")

    def load(self, names: list[str]) -> None:
        if names != ["gsm8k"]:
            raise ConnectionError(f"Couldn't reach {names[0]!r} on the Hub (OfflineModeIsEnabled)")


def test_tasks_are_asked_for_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dsel.evaluator.harness.index_of_tasks", lambda folders, builtin: Manager())

    def asked(**tasks: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            Harness(tasks=tasks).need_tasks(cache)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    Harness(tasks={"gsm8k": SPEC, "humaneval": {**SPEC, "unsafe": True}}).need_tasks(cache)
    assert "left out humaneval: it runs code written by the model" in caplog.text
    assert "has no such task (there are mmlu, mmlu_pro)" in asked(mmluu=SPEC)
    found = asked(gsm8k=SPEC, mmlu=SPEC)
    assert found.startswith("evaluator.tasks.mmlu: what it needs cannot be had (Couldn't reach 'mmlu'")
    assert "HF_HOME=" in found


@pytest.mark.parametrize("shots", ["many", -1, 1.5, True])
def test_shots_are_a_count(shots: Any) -> None:
    with pytest.raises(ConfigError, match=r"evaluator\.tasks\.a\.shots="):
        checked(Harness(tasks={"a": {"shots": shots, "metric": "m"}}), "evaluator")


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for path in (one, two):
        path.write_text("{}")
    made = (
        lambda path: Gsm8kLocal(path=str(path), fewshot_path=str(one)),
        lambda path: Gsm8kLocal(path=str(one), fewshot_path=str(path)),
        lambda path: HeldoutLoss(path=str(path)),
    )
    for make in made:
        two.write_text("{}")
        assert digest(make(one)) == digest(make(two))
        two.write_text("{} ")
        assert digest(make(one)) != digest(make(two))


def test_a_missing_package_of_a_task_is_named(cache: Cache) -> None:
    """IFEval and MATH want some that are an extra."""
    for task in ("ifeval", "leaderboard_math_hard"):
        try:
            Harness(tasks={task: SPEC}).need_tasks(cache)
        except ConfigError as error:
            assert str(error).startswith(f"evaluator.tasks.{task}: ")
            assert "pip install 'dsel[eval]'" in str(error) or "cannot be had" in str(error)  # with the extra: its data
        else:
            pytest.fail("there is no network here")
