"""What would run, before it does: counts, tokens, memory and time against hand-computed cases and a real run."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dsel import forecast
from dsel import plan as planning
from dsel.cache import Cache
from dsel.forecast import Pace, files
from dsel.memory import NF4, Shape, memory, shape, training
from dsel.model.causal_lm import CausalLM
from dsel.peaks import SHARE, Peak
from dsel.plan import Plan, Task, Tokens, observed, pace, sample, show
from dsel.selector.base import Selector, Work
from dsel.selector.feedback.perplexity import Perplexity
from dsel.selector.feedback.verifier import Verifier
from dsel.selector.iterative import Iterative
from dsel.selector.random import Random
from dsel.trainer.examples import tokenized
from dsel.trainer.sft import SFT
from tests.conftest import QUICK, ROOT, make_pool, offline
from tests.selector.test_iterative import experiment

LORA = {"rank": 4, "alpha": 4, "dropout": 0.1}

# --- counts ---


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (Random(), Work([(10, 3)])),
        (Iterative(Perplexity(), rounds=3), Work([(3, 1), (6, 1), (10, 3)], answers=9, scored=18)),
        (Iterative(Verifier(), rounds=3), Work([(3, 1), (6, 1), (10, 3)], answers=9)),
        (Iterative(Verifier(), rounds=1), Work([(10, 3)])),
        (
            Iterative(Verifier(), rounds=3, restart="continue", final="last", scope="round", guide_epochs=2),
            Work([(3, 2), (3, 2), (4, 2)], answers=6),
        ),
    ],
)
def test_what_a_selector_asks_for(selector: Selector, expected: Work) -> None:
    assert selector.plan(100, 10, 3) == expected


def test_tokens_are_the_tokenizers_where_there_is_one(spec: CausalLM) -> None:
    pool = make_pool(20)
    found = sample(pool, spec, 256, "")
    assert found.mean == tokenized(pool, spec.load_tokenizer(), 256)[1]["tokens"] / 20
    assert "20 read, the model's tokenizer" in found.how
    assert sample(pool, spec, 5, "") == Tokens(5, 0, 5, found.how)


def test_tokens_are_guessed_from_characters_where_there_is_none() -> None:
    pool = make_pool(4, prompt="12345", answer="67")  # and the line break between them: 8 characters
    assert sample(pool, None, 256, "why") == Tokens(2, 0, 2, "4 read, 4 characters a token: why")


def test_the_longest_example_counts_even_when_it_is_not_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SAMPLE", 2)
    found = sample(make_pool(10, prompt="x" * 30), None, 256, "")
    longer = make_pool(1001, prompt="{i}", answer="{i}")
    assert (found.mean, found.most) == (10, 10)
    assert sample(longer, None, 256, "").most == 3


def test_only_the_small_files_of_a_model_are_fetched(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "snapshot"
    asked: list[Any] = []

    def fetch(hub: str, **options: Any) -> str:
        asked.append((hub, options["allow_patterns"]))
        return str(shutil.copytree(small_model, folder, ignore=shutil.ignore_patterns("*.safetensors")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert files(CausalLM(hub="some/model")) == (folder, "")
    assert asked == [("some/model", forecast.SMALL_FILES)]
    assert shape(CausalLM(hub="", path=str(folder)), SFT()).parameters > 0
    (folder / "config.json").unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **options: str(folder))
    assert files(CausalLM(hub="some/model"))[0] is None


def test_a_model_that_cannot_be_looked_up_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*args: Any, **options: Any) -> str:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert files(CausalLM(hub="some/model")) == (None, "some/model cannot be looked up here (OSError)")


# --- memory ---

HAND = Shape(
    parameters=1100, trained=1100, frozen_matrices=0, layers=2, hidden=10, inner=20, queries=10, keys=5, vocabulary=50
)
ADAPTED = replace(HAND, parameters=1300, trained=200, frozen_matrices=800, read=60)


@pytest.mark.parametrize(
    ("shape", "trainer", "widths", "expected"),
    [
        # weights 4, gradients 4, moments 8; a layer keeps 2·(4+4)·10 + 2·4·10 + 2·4·15 + 4·4·20 = 680 a token
        (
            HAND, SFT(gradient_checkpointing=False), (4, 4),
            {"weights": 4400, "gradients": 4400, "optimizer": 8800, "activations": 3 * 1360,
             "logits": 3 * 32768 * 4 + 4 * 500},
        ),
        # a bfloat16 copy of all weights; a layer keeps 160 + 5·2·10 + 2·2·15 + 4·2·20 = 480, and its input 40
        (
            HAND, SFT(), (4, 2),
            {"weights": 6600, "gradients": 4400, "optimizer": 8800, "activations": 3 * (2 * 40 + 480),
             "logits": 3 * 32768 * 2 + 2000},
        ),
        (
            HAND, SFT(optimizer="sgd", gradient_checkpointing=False), (2, 2),
            {"weights": 2200, "gradients": 2200, "optimizer": 0, "activations": 3 * 2 * (120 + 40 + 60 + 160),
             "logits": 3 * 32768 * 2 + 2000},
        ),
        # 1100 frozen weights of 2 bytes, 200 of adapters of 4; their dropout keeps 5·60 in both layers together
        (
            ADAPTED, SFT(lora=LORA), (2, 2),
            {"weights": 3000, "gradients": 800, "optimizer": 1600, "activations": 3 * (2 * 20 + 380 + 150),
             "logits": 3 * 32768 * 2},
        ),
        # 800 of the frozen in 4 bits, the other 300 in float32
        (
            ADAPTED, SFT(lora=LORA, quantization="nf4", optimizer="paged_adamw_8bit"), (2, 2),
            {"weights": 800 * NF4 + 1200 + 800, "gradients": 800, "optimizer": 400,
             "activations": 3 * (2 * 40 + 480 + 150), "logits": 3 * 32768 * 2},
        ),
    ],
    ids=["float32", "mixed", "bfloat16", "lora", "qlora"],
)  # fmt: skip
def test_memory_by_hand(shape: Shape, trainer: SFT, widths: tuple[int, int], expected: dict[str, float]) -> None:
    assert memory(shape, trainer, 3, *widths, fused=True) == pytest.approx(expected)
    unfused = memory(shape, trainer, 3, *widths, fused=False)
    assert unfused["logits"] - expected["logits"] == 7 * 4 * 3 * 50


@pytest.mark.parametrize(
    ("options", "attention", "tokens"),
    [
        ({}, "sdpa", 4 * 30),
        ({"batch_size": 3}, "sdpa", 3 * 30),
        ({"packing": True}, "sdpa", 100),
        ({"packing": True}, "flash_attention_2", 4 * 100),
        ({"packing": True, "batch_size": 3}, "sdpa", 3 * 30),
        ({"batch_size": None, "batch_tokens": 1000}, "sdpa", 4 * 30),
    ],
)
def test_tokens_at_once(
    options: dict[str, Any], attention: str, tokens: int, spec: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr("dsel.memory.memory", lambda shape, trainer, tokens, *more, **rest: found.append(tokens))
    training(replace(spec, attention=attention), SFT(max_length=100, **options), 30)
    assert found == [tokens]


@pytest.mark.parametrize(
    ("dtype", "mixed", "lora"),
    [("float32", False, None), ("float32", True, None), ("bfloat16", True, None), ("bfloat16", True, LORA)],
    ids=["float32", "mixed", "bfloat16", "lora"],
)
def test_activations_are_about_what_autograd_keeps(
    dtype: str, mixed: bool, lora: dict[str, Any] | None, tmp_path: Path
) -> None:
    """Weights' copies for lower precision are kept as well: they are counted with the weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2,
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    spec = CausalLM(hub="", path=str(tmp_path), dtype=dtype)
    trainer = SFT(lora=lora, gradient_checkpointing=False)
    model = trainer.load(spec, SimpleTokenizer(), seed=0)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros((4, 64), dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        model.train().get_base_model().model(ids) if lora else model.train().model(ids)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    counts, weight = shape(spec, trainer), 4 if dtype == "float32" else 2
    found = memory(counts, trainer, 4 * 64, weight, 2 if mixed else weight, fused=True)
    copies = 2 * counts.parameters if mixed and weight == 4 else 0
    assert found["activations"] + copies == pytest.approx(size, rel=0.15)


class SimpleTokenizer:
    pad_token_id = 0


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_parameters_are_those_of_the_loaded_model(spec: CausalLM, lora: dict[str, Any] | None) -> None:
    trainer = SFT(lora=lora)
    loaded = trainer.load(spec, spec.load_tokenizer(), seed=0)
    found = shape(spec, trainer)
    assert found.parameters == sum(p.numel() for p in loaded.parameters())
    assert found.trained == sum(p.numel() for p in loaded.parameters() if p.requires_grad)
    assert (found.layers, found.hidden) == (1, 64)
    assert sum(found.passed) == found.parameters  # the table is the head as well
    assert found.read == (0 if lora is None else 6 * 64 + 128)


# --- time ---


def record(seconds: float, **changes: Any) -> dict[str, Any]:
    """A finished run of 2 trainings: 10 and 20 examples of 5 tokens each, for 1 and 3 epochs."""
    trainer = {"batch_size": 4, "packing": False, "max_length": 64, "epochs": 3}
    config = {g: {"name": g} for g in ("model", "selector", "embedder", "clusterer", "scorer", "evaluator")}
    return {
        "pool": {"examples": 100},
        "environment": {"gpus": []},
        "config": {**config, "trainer": trainer, **changes},
        "rounds": [
            {"training": {"examples": 10, "tokens": 50, "steps": 3}},
            {"training": {"examples": 20, "tokens": 100, "steps": 15}},
        ],
        "stages": [
            {"name": "embed", "seconds": 0.0, "cached": True, "items": 100},
            {"name": "score", "seconds": 2.0, "cached": False, "items": 100},
            {"name": "score", "seconds": 7.0, "cached": False, "items": 10},
            {"name": "train", "seconds": seconds, "cached": False, "items": 10},
            {"name": "ifd", "seconds": 3.0, "cached": False, "items": 30},
            {"name": "train", "seconds": 60.0, "cached": False, "items": 20},
            {"name": "evaluate", "seconds": 9.0, "cached": False},
        ],
    }


def test_what_a_run_measured() -> None:
    assert list(observed(record(10))) == [
        ("score", 100, 2), ("train", 50, 10), ("scoring", 30, 3), ("train", 300, 60), ("evaluate", 1, 9),
    ]  # fmt: skip


def test_steps_of_tokens() -> None:
    trainer = {"batch_size": None, "batch_tokens": 25}  # 2 and 4 steps an epoch
    assert [units for name, units, _ in observed(record(10, trainer=trainer)) if name == "train"] == [75, 375]


def test_pace_is_the_median_over_runs_with_the_same_parts() -> None:
    runs = [record(10), record(20), record(1, model={"name": "other"})]
    config = record(0, trainer={**record(0)["config"]["trainer"], "epochs": 99}, selector={"name": "another"})["config"]
    assert pace(runs, config, "train") == Pace(0.2, "4 measured")  # of 10/50, 60/300, 20/50, 60/300
    assert pace(runs, config, "evaluate") == Pace(9, "2 measured")
    assert pace(runs, config, "score") == Pace(0.02, "3 measured")
    assert pace(runs, config, "embed") is None
    assert pace(runs, {**config, "trainer": {"batch_size": 8}}, "train") is None


def test_a_plan_as_it_is_shown() -> None:
    tasks = [
        Task("embeddings", "40 examples", 40, Pace(0.5, "1 measured"), cached=True),
        Task("training 1", "20 examples", 7200, Pace(1.0, "3 measured")),
        Task("evaluation", "all", 1, None),
    ]
    whole = Plan(make_pool(40), 10, Tokens(5, 0.1, 9, "by hand"), tasks, {"weights": 2e9, "logits": 1e9}, ("H", 8e9), 2)
    text = shown(whole)
    assert re.search(r"embeddings.*cached", text)
    assert re.search(r"training 1.*2\.0 h \(1 a second, 3 measured\)", text)
    assert re.search(r"evaluation.*not measured", text)
    assert re.search(r"time.*at least 2\.0 h, 4 GPU hours", text)
    assert re.search(r"memory.*3 GB in training: weights 2, logits 1.*8 GB are there \(H\)", text)
    nothing = shown(replace(whole, tasks=tasks[2:], memory="no reason"))
    assert re.search(r"time.*not known", nothing)
    assert re.search(r"memory.*not known: no reason", nothing)


def test_what_a_map_measured_is_a_workers_and_workers_share_it() -> None:
    one, eight = record(10), record(10, engine={"workers": 8})
    assert pace([one], one["config"], "score") == Pace(0.02, "1 measured")
    assert pace([eight], one["config"], "score") == Pace(0.16, "1 measured")
    assert pace([eight], one["config"], "evaluate") == Pace(72, "1 measured")
    gpus = {"gpus": ["H, 80 MiB, 1", "H, 80 MiB, 1"]}
    configs: list[dict[str, Any]] = [{}, {"engine": {"workers": "auto"}}, {"engine": {"workers": 3}}]
    configs.append({"engine": {"_target_": "dsel.engine.ray.Ray", "workers": "auto"}})
    assert [planning.workers_of(config, gpus) for config in configs] == [2, 2, 3, None]
    assert pace([record(10, engine=configs[-1]["engine"])], one["config"], "score") is None
    task = Task("embeddings", "all", 100, Pace(8, "1 measured"), workers=8)
    assert task.seconds == 100
    assert planning.timing(task) == "100.0 s on 8 workers (1 a second, 1 measured)"


def test_a_training_that_nobody_measured_goes_by_its_operations() -> None:
    peak = Peak(1e6, 1e5)
    full = planning.computed(replace(HAND, passed=(0, 1100)), SFT(gradient_checkpointing=False), peak)
    assert full.seconds == pytest.approx(6 * 1100 / (SHARE * 1e6))
    adapters = planning.computed(replace(ADAPTED, passed=(1000, 200)), SFT(lora=LORA), peak)
    assert adapters.seconds == pytest.approx((6 * 1200 + 2 * 200) / (SHARE * 1e6))
    (one,) = planning.trainings(Work([(10, 3)]), SFT(), 5, full, 8)
    assert one.seconds == pytest.approx(150 * full.seconds / 8)


def test_other_strategies_are_shown_beside_the_chosen_one() -> None:
    whole = Plan(make_pool(4), 1, None, [], {"weights": 2e9}, ("H", 8e9), 2, (2, "fsdp2"), {"single": 4e9, "ddp": 5e9})
    text = shown(whole)
    assert re.search(r"2 GB in training on each of 2 devices \(fsdp2\)", text)
    assert re.search(r"other strategies: single 4 GB, ddp 5 GB", text)


def shown(plan: Plan) -> str:
    out = io.StringIO()
    show(plan, Console(file=out, width=200))
    return out.getvalue()


def test_a_plan_on_eight_gpus(spec: CausalLM, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = ["NVIDIA H100 80GB HBM3, 81559 MiB, 570.1"] * 8
    monkeypatch.setattr(planning, "environment", lambda: {"gpus": gpus, "processors": 64})
    whole = experiment(spec, cache, "selector=kmq", "engine.workers=8", "trainer.epochs=2")
    config = {"runs": str(tmp_path), "engine": {"workers": 8}, "plan_for": [1e7]}
    found = planning.plan(whole, config)
    assert found.shared == (8, "ddp") and list(found.others) == ["single", "fsdp2", "zero3"]
    tasks = {task.name: task for task in found.tasks}
    assert (tasks["embeddings"].workers, tasks["embeddings"].seconds) == (1, None)  # TF-IDF is one process's
    training = tasks["training 1"]
    by = r" on 8 workers \(.* a second, .* operations a token, 30% of the peak of 9.89e\+14 a second\)"
    assert re.search(by, planning.timing(training))
    text = shown(found)
    assert re.search(r"GB in training on each of 8 devices \(ddp\)", text)
    assert "pools of other sizes, on so many × NVIDIA H100 80GB HBM3;" in text


# --- a real run ---

REAL = [*QUICK, "selector=iterative", "selector/feedback=verifier", "scorer=length", "data.size=200", "evaluator=none"]
REAL += ["tracker=none", "selector.max_new_tokens=4", "trainer.packing=true"]


@dataclass
class Loop:
    """What was printed before and after a run, the modules that the first plan imported, and the run's record."""

    before: str
    after: str
    modules: set[str]
    record: dict[str, Any]
    folders: list[Path]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A plan, the run, and a plan again after its model's weights are gone."""
    folder = tmp_path_factory.mktemp("planned")
    runs = folder / "runs"

    def start(*more: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *python, "-m", "dsel.run", *REAL, f"runs={runs}", *more]
        environment = offline(folder, COLUMNS="200")
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done

    before = start("plan=true", python=("-X", "importtime"))
    assert not (folder / "cache").exists()
    assert not list(runs.glob("*"))
    start()
    (path,) = runs.glob("*/record.json")
    (weights,) = (folder / "cache" / "models").rglob("*.safetensors")
    weights.unlink()
    after = start("plan=true")
    modules = set(re.findall(r"\| +(\w+)$", before.stderr, re.MULTILINE))
    yield Loop(before.stdout, after.stdout, modules, json.loads(path.read_text()), list(runs.glob("[!.]*")))


def test_a_plan_leaves_nothing_behind(loop: Loop) -> None:
    assert len(loop.folders) == 1


def test_a_plan_counts_what_then_runs(loop: Loop) -> None:
    trained = [r["training"] for r in loop.record["rounds"]]
    assert len(trained) == 3
    for text in (loop.before, loop.after):
        found = re.findall(r"training \d.* (\d+) examples .* ([\d,]+) tokens, (\d+) steps", text)
        assert [(int(e), int(s)) for e, _, s in found] == [(t["examples"], t["steps"]) for t in trained]
    read = [s["items"] for s in loop.record["stages"] if s["name"] == "generate"]
    assert f"{sum(read)} to generate" in loop.after
    for (_, tokens, _), outcome in zip(found, trained, strict=True):
        passes = outcome["steps"] / math.ceil(outcome["examples"] / 16)
        assert int(tokens.replace(",", "")) == pytest.approx(outcome["tokens"] * passes, rel=0.15)


def test_a_plan_knows_what_is_in_the_cache(loop: Loop) -> None:
    for name in ("embeddings", "clustering", "quality"):
        assert re.search(rf"{name}.*to do", loop.before)
        assert re.search(rf"{name}.*cached", loop.after)
    assert re.search(r"model.*to be made", loop.before)
    assert "to be made" not in loop.after


def test_a_plan_says_what_its_estimates_are_from(loop: Loop) -> None:
    assert "4 characters a token: the model is yet to be made" in loop.before
    assert "time │ not known" in re.sub(" +", " ", loop.before)
    assert "the model's tokenizer" in loop.after
    assert re.search(r"training 1.* s \(.* a second, 3 measured\)", loop.after)
    assert re.search(r"memory.*GB in training: weights", loop.after)


def test_planning_does_not_even_import_torch_for_a_model_that_is_not_there(loop: Loop) -> None:
    assert "hydra" in loop.modules
    assert "torch" not in loop.modules


def test_each_job_of_a_multirun_is_planned(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dsel.run", "-m", *REAL, "plan=true", "seed=0,1", f"runs={tmp_path / 'runs'}"]
    done = subprocess.run(command, cwd=ROOT, env=offline(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("what would run") == 2
    assert not list((tmp_path / "runs").glob("*/record.json"))
