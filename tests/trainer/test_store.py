"""Trainings that an earlier version left: one line, and done again. What is kept, and when: tests/test_learner.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsel.cache import KEY, Cache
from dsel.files import read_json, unsealed, write_sealed
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.trainer.base import Training
from dsel.trainer.checkpoints import BY_NUMBER, MOMENTS, SCALARS
from dsel.trainer.sft import SFT
from tests.conftest import make_pool

SETTINGS: dict[str, Any] = {"epochs": 1, "learning_rate": 5e-3, "batch_size": 8, "max_length": 128, "warmup": 0}
pytestmark = pytest.mark.usefixtures("quick_collections")


def as_before(folder: Path) -> None:
    """Make of a finished part what an earlier version left: its optimizer's state under other names."""
    content = unsealed(read_json(folder / KEY))
    for name, earlier in ((MOMENTS, BY_NUMBER), (SCALARS, "optimizer.json")):
        (folder / name).rename(folder / earlier)
        content["files"][earlier] = content["files"].pop(name)
    write_sealed(folder / KEY, content)


def test_a_part_of_an_earlier_version_is_done_again_before_the_next(
    spec: CausalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(16)

    def part(cache: str, number: int) -> tuple[Learner, dict[str, float]]:
        learner = Learner(spec, SFT(**SETTINGS), Cache(tmp_path / cache), seed=0)
        for i in range(1, number + 1):
            outcome = learner.fit(pool, Training(restart=i == 1, part=(i, 2)))
        return learner, outcome

    _, expected = part("calm", 2)
    first, _ = part("cache", 1)
    assert first.trainings.last is not None
    folder = first.trainings.folder(first.trainings.last)
    as_before(folder)
    learner, outcome = part("cache", 2)
    assert outcome == expected
    (line,) = [record.message for record in caplog.records if "is done again" in record.message]
    assert folder.name in line and "by number and not by name" in line
    learner.forget()
    first.forget()
    assert not folder.exists()
