"""A trained model stops where a turn ends, whatever `tokenizer.eos_token` is and whoever generates with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsel.cache import Cache
from dsel.evaluator.procedural import Procedural
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.trainer.sft import SFT
from tests.conftest import make_pool, offline

ASKED = [{"role": "user", "content": "Say the number 3."}]
SETTINGS: dict[str, Any] = {
    "epochs": 12, "learning_rate": 1e-2, "batch_size": 8, "micro_batch_size": 8, "warmup": 0, "max_length": 128,
    "gradient_checkpointing": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def as_base(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, set up as base models with a chat template are: the end of text ends no turn."""
    folder = tmp_path_factory.mktemp("models") / "base"
    shutil.copytree(small_model, folder)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "eos_token": "<|unk|>"}))
    for name in ("config.json", "generation_config.json"):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | {"eos_token_id": 6}))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("eos_token", "'<|end|>'"))
    return folder


@pytest.fixture(scope="module")
def trained(small_model: Path, as_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Learner, Path]]:
    """Both models after the same training, with the folder each is saved in."""
    folder, out = tmp_path_factory.mktemp("trained"), []
    for name, place in (("chat", small_model), ("base", as_base)):
        spec = CausalLM(hub="", path=str(place), dtype="float32")
        learner = Learner(spec, SFT(**SETTINGS), Cache(folder / "cache"), seed=0)
        learner.fit(make_pool(32, answer="yes"))
        learner.write(folder / name)
        out.append((learner, folder / name))
    return out


def test_the_saved_model_stops_under_plain_generate(trained: list[tuple[Learner, Path]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answers = []
    for learner, folder in trained:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        asked = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        new = model.generate(**asked, max_new_tokens=20, do_sample=False)[0, asked["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(new))
        assert learner.generate([ASKED], max_new_tokens=20) == [answers[-1].removesuffix("<|end|>").strip()]
    assert answers[0] == answers[1] and answers[0].split() == ["yes<|end|>"]


def test_accuracy_does_not_depend_on_the_eos_token(trained: list[tuple[Learner, Path]], tmp_path: Path) -> None:
    """What the harness is given to judge, letter by letter."""
    import lm_eval.models.huggingface as hf

    given: list[list[str]] = []
    real = hf.HFLM.generate_until

    def kept(self: Any, requests: Any, disable_tqdm: bool = False) -> list[str]:
        given.append(real(self, requests, disable_tqdm=disable_tqdm))
        return given[-1]

    tasks = {"procedural": {"shots": 0, "metric": "exact_match,answer"}}
    evaluator = Procedural(tasks=tasks, per_kind=1, chat_template=True, max_new_tokens=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf.HFLM, "generate_until", kept)
        found = [
            evaluator.evaluate(learner, make_pool(4), make_pool(4).take([]), Cache(tmp_path), tmp_path)
            for learner, _ in trained
        ]
    assert found[0]["procedural"].value == found[1]["procedural"].value
    assert given[0] == given[1]
    assert {answer.strip() for answer in given[0]} <= {"yes", ""}  # and nothing after it


def test_an_end_token_that_is_not_special_leaves_no_text(as_base: Path, cache: Cache, tmp_path: Path) -> None:
    """The harness leaves special tokens out of an answer; others have to be cut."""
    import torch

    from dsel.evaluator.requests import live_model

    learner = Learner(CausalLM(hub="", path=str(as_base), dtype="float32"), None, cache, seed=0)
    word = learner.tokenizer("▁town", add_special_tokens=False)["input_ids"][-1]
    learner.model.generation_config.eos_token_id = [word]
    live = live_model(learner.snapshot(), 2)
    prompt = torch.tensor([[1, 3, 4]])
    answer = [9, word, 9, 0]

    def generate(**inputs: Any) -> torch.Tensor:
        return torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live.model, "generate", generate)
        out = live._model_generate(context=prompt, max_length=7, stop=[])
    assert live.tok_decode(out[0, 3:].tolist()) == live.tok_decode([9])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_saved_model_stops_under_lm_eval(trained: list[tuple[Learner, Path]], tmp_path: Path) -> None:
    """The harness's own command line, on the folder alone."""
    rows = [{"q": f"Say the number {i}.", "a": "yes"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "says_yes",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": [], "max_gen_toks": 20, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [{"name": "answer", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    }
    (tmp_path / "says_yes.yaml").write_text(json.dumps(task))
    for _, folder in trained:
        command = (
            f"-m lm_eval run --model hf --model_args pretrained={folder},dtype=float32 --tasks says_yes --device cpu "
            f"--include_path {tmp_path} --apply_chat_template --output_path {tmp_path / folder.name} --log_samples"
        )
        done = subprocess.run(
            [sys.executable, *command.split()], capture_output=True, text=True, env=offline(tmp_path), timeout=800
        )
        assert done.returncode == 0, done.stderr[-2000:]
        (samples,) = (tmp_path / folder.name).rglob("samples_*.jsonl")
        answers = [json.loads(line)["resps"][0][0] for line in samples.read_text().splitlines()]
        assert [answer.strip() for answer in answers] == ["yes"] * 4
