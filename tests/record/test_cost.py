"""What a run has cost, of its stages: whoever computed it, each thing once, and what is not known is not nothing."""

from __future__ import annotations

import pytest

from dsel.record.cost import cost
from dsel.spent import Spent
from dsel.stage import Stage


def made(name: str, seconds: float, flops: float | None, *, cached: bool = False, artifact: str = "") -> Stage:
    return Stage(name, 0.1, cached=cached, artifact=artifact or name, spent=Spent(seconds, flops))


def test_parts_of_choosing_and_training() -> None:
    stages = [
        Stage("data", 5.0),
        Stage("model", 5.0),
        made("embed", 10.0, 1e6),
        Stage("select", 2.0, spent=Spent(12.0)),  # with all that was embedded meanwhile
        made("warm up", 3.0, 4e6),
        made("train", 7.0, 8e6, artifact="fits/b"),
        Stage("evaluate", 5.0),
    ]
    stages[4].discarded = True
    found = cost(stages)
    assert [(p.name, p.seconds, p.flops) for p in found.choosing] == [
        ("embed", 10.0, 1e6), ("select", 2.0, None), ("warm up", 3.0, 4e6),
    ]  # fmt: skip
    assert (found.seconds, found.flops, found.uncounted, found.unknown) == (15.0, 5e6, ["select"], 0)
    assert found.training is not None and (found.training.seconds, found.training.flops) == (7.0, 8e6)
    assert cost([]).to_dict()["training"] is None


def test_a_training_that_the_model_has_not_come_from_is_for_the_choice() -> None:
    stages = [made("train", 1.0, 1.0, artifact=f"fits/{i}") for i in range(3)]
    stages[0].discarded = stages[1].discarded = True
    found = cost(stages)
    assert [(p.name, p.flops) for p in found.choosing] == [("guides", 2.0)]
    assert found.training is not None and found.training.flops == 1.0


def test_what_is_found_counts_as_when_it_was_made_and_once() -> None:
    found = cost([made("embed", 10.0, 1e6, cached=True), made("embed", 10.0, 1e6, cached=True)])
    assert (found.seconds, found.flops, found.choosing[0].cached) == (10.0, 1e6, True)
    one = made("embed", 10.0, 1e6)  # made, and found again
    assert not cost([one, made("embed", 10.0, 1e6, cached=True)]).choosing[0].cached


@pytest.mark.parametrize("older", [Stage("embed", 0.1, cached=True), Stage("embed", 0.1, cached=True, artifact="a")])
def test_what_nobody_knows_the_cost_of_is_not_nothing(older: Stage) -> None:
    found = cost([older, made("score", 3.0, 5.0)])
    assert (found.seconds, found.flops, found.unknown, found.uncounted) == (None, None, 1, [])
    assert found.to_dict()["choosing"]["parts"]["score"]["seconds"] == 3.0


def test_an_older_record_knows_the_seconds_of_what_it_computed() -> None:
    found = cost([Stage("embed", 4.0), Stage("train", 6.0)])
    assert (found.seconds, found.flops) == (4.0, None)
    assert found.training is not None and (found.training.seconds, found.training.flops) == (6.0, None)
