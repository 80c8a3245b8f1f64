"""A training as plain data, that any process can be given, and what it leaves by name."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import dsel.learner
from dsel.cache import Cache
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import IGNORED, encode
from dsel.pool import Pool
from dsel.trainer.base import Training
from dsel.trainer.checkpoints import MOMENTS, moments
from dsel.trainer.job import Job, outcome_of, run
from dsel.trainer.sft import SFT
from tests.conftest import make_pool
from tests.trainer.small import SETTINGS

LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}

both = pytest.mark.parametrize("options", [{}, LORA], ids=["full", "lora"])
pytestmark = pytest.mark.usefixtures("quick_collections")


def told(text: str) -> Job:
    """The job that another process makes of what it reads."""
    plain = json.loads(text)
    model, trainer = CausalLM(**plain.pop("model")), SFT(**plain.pop("trainer"))
    return Job(**plain | {"model": model, "trainer": trainer, "part": tuple(plain["part"])})


def done(job: Job, pool: Pool, folder: Path) -> list[int]:
    """The steps that were reported of a job done in `folder`, from nothing but itself and its examples."""
    steps: list[int] = []
    folder.mkdir()
    run(job, pool, job.model.load_tokenizer(), folder, lambda metrics, step: steps.append(step))
    return steps


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}


@both
def test_a_job_that_went_through_json_is_the_learners_training(
    spec: CausalLM, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Two parts of one training: the second starts from the folder of the first, with its optimizer."""
    pools = [make_pool(16), make_pool(16, prompt="More: {i}")]
    learner = Learner(spec, SFT(**{**SETTINGS, **options}), Cache(tmp_path / "cache"), seed=3)
    parts = [Training(restart=i == 0, part=(i + 1, 2)) for i in range(2)]
    start, offset = None, 0
    for i, (pool, part) in enumerate(zip(pools, parts, strict=True)):
        outcome = learner.fit(pool, part)
        fit = learner.trainings.last
        assert fit is not None
        job = learner.trainings.job(fit)
        text = json.dumps(asdict(job) | {"start": start})
        assert job.examples == pool.fingerprint
        again = told(text)
        assert (again.part, again.start, again.steps) == (part.part, start, offset)
        folder = tmp_path / f"elsewhere-{i}"
        assert set(done(again, pool, folder)) == {offset + 2}
        assert outcome_of(folder) == outcome
        assert weights(folder) == weights(learner.trainings.folder(fit))
        start, offset = str(folder), offset + 2
    assert len({*weights(tmp_path / "elsewhere-0")} - {*weights(tmp_path / "elsewhere-1")}) == 1  # the moments


@both
def test_moments_are_known_by_the_names_of_what_is_trained(
    spec: CausalLM, tmp_path: Path, options: dict[str, Any]
) -> None:
    """After one step of Adam, `exp_avg` is a tenth of the gradient, here of one text after the other."""
    import torch

    pool, trainer = make_pool(8), SFT(**{**SETTINGS, **options, "max_grad_norm": 0.0})
    job = Job(spec, trainer, pool.fingerprint, seed=3, part=(1, 2))
    done(job, pool, tmp_path / "job")
    tokenizer = spec.load_tokenizer()
    model = trainer.load(spec, tokenizer, seed=3).train()
    texts = [encode(tokenizer, messages, trainer.max_length) for messages in pool.messages]
    count = sum(label != IGNORED for _, labels in texts for label in labels[1:])
    for text in texts:
        ids, labels = (torch.tensor(side) for side in text)
        logits = model(ids[None]).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=IGNORED, reduction="sum") / count
        loss.backward()
    found = moments(tmp_path / "job")
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert found.keys() == trained.keys()
    for name, parameter in trained.items():
        assert found[name].keys() == {"step", "exp_avg", "exp_avg_sq"} and found[name]["step"] == 1
        torch.testing.assert_close(found[name]["exp_avg"], 0.1 * parameter.grad, rtol=1e-3, atol=1e-6)


def test_a_last_part_leaves_no_moments(spec: CausalLM, tmp_path: Path) -> None:
    pool = make_pool(8)
    done(Job(spec, SFT(**SETTINGS), pool.fingerprint, seed=0), pool, tmp_path / "job")
    names = {p.name for p in (tmp_path / "job").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "outcome.json"} <= names
    assert not {MOMENTS, "checkpoints"} & names


def test_a_learner_knows_no_processes() -> None:
    tree = ast.parse(Path(dsel.learner.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "dsel.distributed" not in imported
