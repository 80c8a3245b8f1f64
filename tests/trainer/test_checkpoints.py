"""A training that was killed, or cut in parts, ends as one that was not: bit for bit, on one process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.files import seal, write_json
from dsel.interrupt import SIGNALS, Ended, ending
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.pool import Pool
from dsel.spent import Spent, keep
from dsel.trainer.base import Training
from dsel.trainer.checkpoints import (
    BY_NUMBER,
    DIGESTS,
    MOMENTS,
    last_checkpoint,
    load_state,
    save_state,
    seconds_before,
)
from dsel.trainer.sft import SFT
from tests.conftest import make_pool

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "learning_rate": 5e-3,
    "batch_size": 8,
    "micro_batch_size": 4,
    "schedule": "cosine",
    "warmup": 0.2,
    "max_length": 128,
    "gradient_checkpointing": False,
    "log_every": 1,
    "checkpoint_minutes": 1e-9,  # at every step
}
FULL: dict[str, Any] = {}
LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}
DROPOUT: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.3}}
PACKED: dict[str, Any] = {"packing": True, "max_length": 40}  # three or four rows a step
pytestmark = pytest.mark.usefixtures("quick_collections")


class Killed(Exception):
    """In place of a signal."""


@dataclass
class Curve:
    """Keeps what a learner reports, and kills the training at the report of a step."""

    dies_at: int | None = None
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def __call__(self, metrics: dict[str, float], step: int) -> None:
        if "loss" not in metrics:
            return
        if step == self.dies_at:
            raise Killed
        self.steps.append(step)
        self.losses.append(metrics["loss"])
        self.rates.append(metrics["learning_rate"])


def new_learner(
    spec: CausalLM, cache: Cache, curve: Callable[[dict[str, float], int], None] | None = None, **options: Any
) -> Learner:
    return Learner(spec, SFT(**{**SETTINGS, **options}), cache, seed=3, report=curve or Curve())


def equal(one: Learner, two: Learner) -> bool:
    import torch

    left, right = one.model.state_dict(), two.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def part(number: int, parts: int, epochs: float = 1) -> Training:
    return Training(epochs=epochs, restart=number == 1, part=(number, parts))


# One training in parts


@pytest.mark.parametrize("options", [FULL, LORA, PACKED], ids=["full", "lora", "packed"])
def test_a_training_in_parts_is_one_training(spec: CausalLM, tmp_path: Path, options: dict[str, Any]) -> None:
    """Three parts of an epoch over the same examples, and one training of three epochs."""
    whole, cut, pool = Curve(), Curve(), make_pool(30)
    one = new_learner(spec, Cache(tmp_path / "one"), whole, **options, epochs=3)
    outcome = one.fit(pool)
    three = new_learner(spec, Cache(tmp_path / "three"), cut, **options)
    outcomes = [three.fit(pool, part(i, 3)) for i in (1, 2, 3)]
    assert [o["steps"] for o in outcomes] == [4, 4, 4]
    assert cut.steps == whole.steps == list(range(1, 13))
    assert cut.rates == whole.rates
    assert max(whole.rates) == SETTINGS["learning_rate"] > whole.rates[-1] > 0
    assert cut.losses == whole.losses
    assert np.mean([o["loss"] for o in outcomes]) == pytest.approx(outcome["loss"], rel=1e-6)
    assert equal(one, three)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_that_is_told_to_end_saves_its_next_step(spec: CausalLM, tmp_path: Path, number: int) -> None:
    calm, cut, pool = Curve(), Curve(), make_pool(30)
    seldom = {"checkpoint_minutes": 60}
    one = new_learner(spec, Cache(tmp_path / "one"), calm, **seldom)
    one.fit(pool)

    def tells(metrics: dict[str, float], step: int) -> None:
        cut(metrics, step)
        if step == 3:
            signal.raise_signal(number)

    with pytest.raises(Ended), ending():
        new_learner(spec, Cache(tmp_path / "cut"), tells, **seldom).fit(pool)
    assert cut.steps == [1, 2, 3, 4]
    again = new_learner(spec, Cache(tmp_path / "cut"), cut, **seldom)
    again.fit(pool)
    assert (cut.steps, cut.losses) == (calm.steps, calm.losses)
    assert equal(one, again)


def test_parts_of_other_lengths_share_a_schedule_that_ends_with_the_last(spec: CausalLM, cache: Cache) -> None:
    """Examples beyond `max_length` are left out, so that parts can differ: each expects the rest to be like itself."""
    curve = Curve()
    learner = new_learner(spec, cache, curve, schedule="linear", warmup=0)
    for i, examples in enumerate((32, 16, 16)):
        learner.fit(make_pool(examples), part(i + 1, 3))
    expected = [*(1 - np.arange(4) / 12), *(1 - np.arange(4, 6) / 8), *(1 - np.arange(6, 8) / 8)]
    np.testing.assert_allclose(curve.rates, SETTINGS["learning_rate"] * np.array(expected))


@pytest.mark.parametrize("options", [FULL, DROPOUT], ids=["full", "lora"])
def test_parts_after_a_kill_are_as_without(spec: CausalLM, tmp_path: Path, options: dict[str, Any]) -> None:
    """Killed between the first two parts and inside the third, each time gone on by a learner that knows nothing."""
    pools = [make_pool(24, prompt=f"Round {i}: {{i}}") for i in range(3)]

    def fit_all(learner: Learner) -> list[dict[str, float]]:
        return [learner.fit(pool, part(i + 1, 3)) for i, pool in enumerate(pools)]

    calm = new_learner(spec, Cache(tmp_path / "calm"), **options)
    expected = fit_all(calm)
    cache = Cache(tmp_path / "cache")
    new_learner(spec, cache, **options).fit(pools[0], part(1, 3))
    curve = Curve(dies_at=8)
    with pytest.raises(Killed):
        fit_all(new_learner(spec, cache, curve, **options))
    assert curve.steps == [4, 5, 6, 7]
    curve = Curve()
    last = new_learner(spec, cache, curve, **options)
    found = fit_all(last)
    assert curve.steps == [8, 9]
    assert [o.pop("cached", 0) for o in found] == [1, 1, 0]
    assert [{**o, "loss": pytest.approx(o["loss"], rel=1e-6)} for o in expected] == found
    assert equal(last, calm)


def test_the_optimizer_of_a_part_goes_when_the_next_is_done(spec: CausalLM, cache: Cache) -> None:
    pool = make_pool(16)
    learner = new_learner(spec, cache)
    for i in (1, 2, 3):
        learner.fit(pool, part(i, 3))
        kept = list(cache.folder.rglob(MOMENTS))
        assert [file.parent for file in kept] == ([] if i == 3 else [learner.trainings.folder(learner.trainings.last)])


def test_another_run_with_the_same_beginning_can_go_on(spec: CausalLM, tmp_path: Path) -> None:
    first, mine, others = (make_pool(16, prompt=f"{name} {{i}}") for name in ("Both", "Mine", "Theirs"))
    alone = new_learner(spec, Cache(tmp_path / "alone"))
    alone.fit(first, part(1, 2))
    alone.fit(mine, part(2, 2))
    cache = Cache(tmp_path / "shared")
    one, two = new_learner(spec, cache), new_learner(spec, cache)
    one.fit(first, part(1, 2))
    two.fit(first, part(1, 2))
    two.fit(others, part(2, 2))  # this used the first part's optimizer up
    one.fit(mine, part(2, 2))
    assert equal(one, alone)
    two.forget()
    assert equal(one, alone)


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adafactor", "Adagrad"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_state_of_an_optimizer_survives_its_file(name: str, dtype: str, tmp_path: Path) -> None:
    """Two groups, a frozen parameter, a scalar one: saved, loaded into a new optimizer, and led on from there."""
    import torch

    def made() -> tuple[list[Any], Any, Any]:
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape).to(getattr(torch, dtype))) for shape in ((4, 3), (3,), ())]
        groups = [{"params": parameters[:1], "weight_decay": 0.1}, {"params": parameters[1:], "weight_decay": 0.0}]
        more = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(torch.optim, name)(groups, lr=0.1, **more)
        return parameters, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def named(parameters: list[Any]) -> list[tuple[str, Any]]:
        return list(zip(["layer.weight", "layer.bias", "scale"], parameters, strict=True))

    def steps(parameters: list[Any], optimizer: Any, scheduler: Any, numbers: range) -> None:
        for number in numbers:
            for i, parameter in enumerate(parameters):
                parameter.grad = None if i == 1 else torch.full_like(parameter, 0.1 * (number + i))
            optimizer.step()
            scheduler.step()

    parameters, optimizer, scheduler = made()
    steps(parameters, optimizer, scheduler, range(5))
    save_state(optimizer, scheduler, named(parameters), tmp_path)
    fresh, again, schedule = made()
    with torch.no_grad():
        for mine, theirs in zip(fresh, parameters, strict=True):
            mine.copy_(theirs)
    load_state(again, schedule, named(fresh)[::-1], tmp_path)  # whatever the order
    saved, loaded = optimizer.state_dict(), again.state_dict()
    assert saved["param_groups"] == loaded["param_groups"]
    assert saved["state"].keys() == loaded["state"].keys()
    for index, values in saved["state"].items():
        for key, value in values.items():
            other = loaded["state"][index][key]
            same = torch.equal(other, value) if torch.is_tensor(value) else other == value
            assert getattr(other, "dtype", None) == getattr(value, "dtype", None)
            assert same, (index, key)
    assert schedule.get_last_lr() == scheduler.get_last_lr()
    steps(parameters, optimizer, scheduler, range(5, 9))
    steps(fresh, again, schedule, range(5, 9))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(fresh, parameters, strict=True))


# Checkpoints


@pytest.mark.parametrize("options", [FULL, DROPOUT, PACKED], ids=["full", "lora", "packed"])
@pytest.mark.parametrize("step", [5, 7], ids=["between-epochs", "inside-an-epoch"])
def test_a_killed_training_goes_on_and_ends_as_if_it_had_not(
    spec: CausalLM, tmp_path: Path, options: dict[str, Any], step: int
) -> None:
    pool, calm = make_pool(32), Curve()
    whole = new_learner(spec, Cache(tmp_path / "whole"), calm, **options)
    expected = whole.fit(pool)
    cache = Cache(tmp_path / "cache")
    before = Curve(dies_at=step)
    with pytest.raises(Killed):
        new_learner(spec, cache, before, **options).fit(pool)
    after = Curve()
    learner = new_learner(spec, cache, after, **options)
    outcome = learner.fit(pool)
    assert before.steps + after.steps == calm.steps
    assert before.steps == list(range(1, step))  # its last checkpoint is that of the step before
    assert before.rates + after.rates == calm.rates
    assert before.losses + after.losses == calm.losses
    assert outcome == {**expected, "loss": pytest.approx(expected["loss"], rel=1e-6)}
    assert equal(learner, whole)


def test_the_loss_is_that_of_all_steps_however_often_it_is_logged(spec: CausalLM, tmp_path: Path) -> None:
    pool = make_pool(32)
    calm = new_learner(spec, Cache(tmp_path / "calm"), log_every=100, checkpoint_minutes=60)
    cache = Cache(tmp_path / "cache")
    killed(new_learner(spec, cache, Curve(dies_at=6), log_every=100), pool)
    again = new_learner(spec, cache, log_every=100, checkpoint_minutes=60)
    assert again.fit(pool)["loss"] == pytest.approx(calm.fit(pool)["loss"], rel=1e-6)


def killed(learner: Learner, pool: Pool) -> Path:
    """The unfinished folder of a training that `learner` reports no end of."""
    with pytest.raises(Killed):
        learner.fit(pool)
    (folder,) = learner.cache.folder.glob("fits/*.partial")
    return folder


def test_a_checkpoint_cut_short_is_ignored(spec: CausalLM, tmp_path: Path) -> None:
    """Later ones without their last file or with half of it, and one that lost it: from the step before, or anew."""
    pool = make_pool(32)
    whole = new_learner(spec, Cache(tmp_path / "whole"))
    whole.fit(pool)
    cache = Cache(tmp_path / "cache")
    folder = killed(new_learner(spec, cache, Curve(dies_at=6)), pool)
    (good,) = (folder / "checkpoints").glob("checkpoint-*")
    assert good.name == "checkpoint-5"
    for name, text in (("checkpoint-6", None), ("checkpoint-99", '{"epoch": 1.2')):
        (good.parent / name).mkdir()
        (good.parent / name / "model.safetensors").write_bytes(b"half")
        if text is not None:
            (good.parent / name / "trainer_state.json").write_text(text)
    assert last_checkpoint(good.parent) == str(good)
    curve = Curve(dies_at=8)
    killed(new_learner(spec, cache, curve), pool)
    assert curve.steps == [6, 7]
    assert [p.name for p in good.parent.iterdir()] == ["checkpoint-7"]
    for file in folder.glob("checkpoints/*/trainer_state.json"):
        file.unlink()
    curve = Curve()
    learner = new_learner(spec, cache, curve)
    learner.fit(pool)
    assert curve.steps == list(range(1, 9))
    assert equal(learner, whole)


def test_a_checkpoint_of_an_earlier_version_is_not_used(
    spec: CausalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its moments are numbered: one line, and the training begins anew."""
    pool, cache = make_pool(32), Cache(tmp_path / "cache")
    whole = new_learner(spec, Cache(tmp_path / "whole"))
    whole.fit(pool)
    (checkpoint,) = (killed(new_learner(spec, cache, Curve(dies_at=6)), pool) / "checkpoints").iterdir()
    (checkpoint / MOMENTS).rename(checkpoint / BY_NUMBER)
    (checkpoint / DIGESTS).unlink()
    write_json(checkpoint / DIGESTS, seal(checkpoint))
    curve = Curve()
    learner = new_learner(spec, cache, curve)
    learner.fit(pool)
    assert curve.steps == list(range(1, 9))
    assert equal(learner, whole)
    (line,) = [record.message for record in caplog.records if "is not used" in record.message]
    assert checkpoint.name in line and "by number and not by name" in line


def test_moments_of_a_stranger_are_refused(tmp_path: Path) -> None:
    import torch

    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    optimizer = torch.optim.AdamW([parameter])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    optimizer.step()
    save_state(optimizer, scheduler, [("mine", parameter)], tmp_path)
    with pytest.raises(ValueError, match="nothing that is trained is called mine"):
        load_state(optimizer, scheduler, [("yours", parameter)], tmp_path)


@pytest.mark.parametrize("options", [FULL, DROPOUT], ids=["full", "lora"])
def test_nothing_that_training_leaves_is_a_pickle(
    spec: CausalLM, cache: Cache, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickle")

    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    learner = new_learner(spec, cache, Curve(dies_at=5), **options)
    folder = killed(learner, make_pool(32))
    learner = new_learner(spec, cache, **options)
    learner.fit(make_pool(32))  # from the checkpoint
    learner.fit(make_pool(32), part(1, 2))  # and one that leaves its optimizer
    assert not folder.exists()
    files = {p.name for p in cache.folder.rglob("*") if p.is_file()}
    assert {MOMENTS, "outcome.json"} <= files
    assert {Path(name).suffix for name in files} <= {".safetensors", ".json", ".jinja", ".md", ".lock", ".use"}
    assert not list(cache.folder.rglob("checkpoint*"))


def test_the_files_of_a_checkpoint(spec: CausalLM, cache: Cache) -> None:
    folder = killed(new_learner(spec, cache, Curve(dies_at=5)), make_pool(32)) / "checkpoints"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        f"checkpoint-4/{name}"
        for name in (
            "config.json",
            "digests.json",
            "generation_config.json",
            "generators_0.safetensors",
            "model.safetensors",
            "moments.json",
            "moments.safetensors",
            "spent.json",
            "trainer_state.json",
        )
    ]


def test_a_training_has_cost_what_it_took_before_it_was_killed_too(spec: CausalLM, cache: Cache) -> None:
    folder = killed(new_learner(spec, cache, Curve(dies_at=5)), make_pool(32)) / "checkpoints"
    first = seconds_before(folder)
    assert first > 0
    (checkpoint,) = folder.iterdir()
    keep(Spent(first + 1000), checkpoint)
    (checkpoint / DIGESTS).unlink()
    write_json(checkpoint / DIGESTS, seal(checkpoint))
    killed(new_learner(spec, cache, Curve(dies_at=7)), make_pool(32))
    assert seconds_before(folder) > first + 1000
    learner = new_learner(spec, cache)
    learner.fit(make_pool(32))
    spent = learner.account[1]
    assert spent is not None and first + 1000 < spent.seconds < first + 1900


def test_checkpoints_come_by_the_clock(spec: CausalLM, cache: Cache) -> None:
    folder = killed(new_learner(spec, cache, Curve(dies_at=5), checkpoint_minutes=60), make_pool(32))
    assert not list(folder.rglob("checkpoint-*"))


def test_a_kill_while_the_weights_are_written_costs_what_came_after_the_checkpoint(
    spec: CausalLM, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("dsel.trainer.job.save", die)
        killed(new_learner(spec, cache), make_pool(32))
    curve = Curve()
    new_learner(spec, cache, curve).fit(make_pool(32))
    assert curve.steps == [8]
