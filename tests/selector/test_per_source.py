"""The budget shared over sources, in front of another selector, in one step or in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsel.errors import ConfigError
from dsel.selector.base import Choose, Train
from dsel.selector.per_source import PerSource
from dsel.selector.random import Random
from dsel.study import Study
from dsel.testing import made_pool
from tests.conftest import make_pool
from tests.selector.test_semdedup import Rounds
from tests.test_study import Bench


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Ten examples of each of three sources."""
    return Bench(tmp_path).study(pool=made_pool(30), budget=12)


def shares(selector: PerSource, study: Study) -> list[int]:
    """How many of each source are chosen."""
    selector.check()
    (step,) = selector.steps(study, None)  # type: ignore[arg-type]
    assert isinstance(step, Choose) and len(set(step.selection.indices.tolist())) == study.budget
    found = [study.pool.sources[i] for i in step.selection.indices.tolist()]
    return [found.count(f"source {i}") for i in range(3)]


def test_shares_are_exact(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    assert shares(PerSource(Random()), study) == [4, 4, 4]
    weighted = PerSource(Random(), shares="weights", weights={"source 1": 3, "source 2": 1})
    assert shares(weighted, study) == [0, 9, 3] and not caplog.text


def test_what_no_named_source_has_is_taken_of_others_and_said(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    assert sum(shares(PerSource(Random(), shares="weights", weights={"source 1": 1}), study)) == 12
    assert "these sources have too few: 2 examples come from the others" in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": {"source 0": 1}}, "goes with selector.shares=weights"),
        ({"shares": "weights"}, "goes with selector.shares=weights"),
        ({"shares": "weights", "weights": {"source 0": 0.0}}, "wants a source with a weight above 0"),
        ({"shares": "weights", "weights": {"nowhere": 1.0}}, "the pool has no source nowhere; it has source 0"),
    ],
)
def test_weights_that_cannot_be(study: Study, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        shares(PerSource(Random(), **options), study)


def test_rounds_of_all_sources_are_one(tmp_path: Path) -> None:
    """One model is warmed up and trained on what the selector asks for in each of them."""
    notes: list[Any] = []
    study = Bench(tmp_path).study(
        pool=make_pool(8), budget=6, note=lambda table, round, columns: notes.append(columns["index"].tolist())
    )
    selector = PerSource(Rounds())
    assert selector.needs == {"model"}
    warmup, *rounds = selector.steps(study, "learner")  # type: ignore[arg-type]
    assert isinstance(warmup, Train) and warmup.examples.tolist() == [6, 7] and warmup.training.epochs == 1
    assert [step.selection.indices.tolist() for step in rounds] == [[0, 1], [2, 3], [4, 5]]  # type: ignore[union-attr]
    assert [step.examples.tolist() for step in rounds] == [[0, 1], [0, 2, 1, 3], [4, 5]]
    assert (rounds[1].training.epochs, rounds[1].training.restart) == (2, False)
    assert notes == [[0], [1], [2], [3], [4], [5]] and selector.then.told == ["learner"] * 6  # type: ignore[attr-defined]
