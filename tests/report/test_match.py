"""Which runs a cell holds: those of its configuration, whatever they were called or asked for with."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

import pytest

from dsel.record.reader import RunFolder
from dsel.report.match import Composer, shared, without_knobs
from tests.report.made import made_run


@cache
def composer(*base: str) -> Composer:
    return Composer(base or ("experiments=laptop",))


def run(tmp_path: Path, *overrides: str, seed: int = 0) -> RunFolder:
    return made_run(tmp_path / "run", "experiments=laptop", *overrides, seed=seed, values={"procedural": 0.5})


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("selector=kmq",),
        ("selector=iterative", "selector/feedback=verifier"),
        ("selector=semdedup", "selector@selector.then=longest"),
        ("selector=random", "budget=0.2", "trainer.epochs=1"),
        ("trainer.lora={rank:8,alpha:16,dropout:0.0}",),
        ("clusterer.k_grid=[8,16]",),
        ("clusterer.k=auto", "data.size=400", "evaluator.per_kind=4"),
    ],
)
def test_the_overrides_of_a_run_are_found_in_its_record(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    found = composer().coordinates(run(tmp_path, *overrides, seed=3))
    assert found is not None
    assert set(found) == set(overrides)


def test_a_cell_holds_runs_of_its_configuration_with_any_seed(tmp_path: Path) -> None:
    own = run(tmp_path, "selector=kmq", seed=7)
    assert own.facts["config"]["data"]["seed"] == 7  # the laptop's pool follows the seed
    assert composer().matches(own, ("selector=kmq",))
    assert not composer().matches(own, ("selector=kmq", "clusterer.k=8"))
    assert not composer().matches(own, ())


@pytest.mark.parametrize(
    "of_no_account",
    ["tracker=none", "trainer.micro_batch_size=2", "trainer.save=true", "evaluator.batch_size=1", "runs=elsewhere"],
)
def test_what_changes_no_result_does_not_tell_runs_apart(tmp_path: Path, of_no_account: str) -> None:
    own = run(tmp_path, of_no_account)
    assert composer().coordinates(own) == ()
    assert composer().matches(own, ())


def test_what_the_selector_never_reads_does_not_tell_runs_apart(tmp_path: Path) -> None:
    own = run(tmp_path, "selector=random", "embedder=minilm", "clusterer.k=9", "scorer=length")
    assert composer().matches(own, ("selector=random",))
    assert composer().coordinates(own) == ("selector=random",)
    whole = composer().coordinates(own, unread=True)
    assert whole is not None
    assert {"embedder=minilm", "clusterer.k=9", "scorer=length"} <= set(whole)
    read = made_run(tmp_path / "other", "experiments=laptop", "selector=kmq", "scorer=length", values={})
    assert composer().coordinates(read) == ("scorer=length", "selector=kmq")


def test_options_that_came_or_went_do_not_tell_runs_apart(tmp_path: Path) -> None:
    own = run(tmp_path)
    own.facts["config"]["trainer"]["of_old"] = 1
    del own.facts["config"]["trainer"]["epochs"]
    assert composer().matches(own, ())


def test_a_run_with_a_choice_that_is_gone_has_no_place(tmp_path: Path) -> None:
    own = run(tmp_path)
    own.facts["choices"]["selector"] = "forgotten"
    assert composer().coordinates(own) is None


def test_knobs_go_wherever_a_component_is() -> None:
    scorer = {"_target_": "dsel.scorer.reward.Reward", "hub": "x", "device": "cpu", "tokens_a_batch": 1}
    nested = {"_target_": "dsel.selector.feedback.scored.Scored", "scorer": scorer}
    assert without_knobs(nested)["scorer"] == {"_target_": "dsel.scorer.reward.Reward", "hub": "x"}


def test_a_command_gives_back_its_overrides() -> None:
    own = composer("experiments=laptop", "data.path='a b'")
    command = own.command(("selector=kmq", "clusterer.k_grid=[8,16]"), (1, 2))
    assert shlex.split(command) == [
        "python", "-m", "dsel.run", "-m", "experiments=laptop", "data.path='a b'", "selector=kmq",
        "clusterer.k_grid=[8,16]", "seed=1,2",
    ]  # fmt: skip
    assert shlex.split(composer().command((), (4,))) == ["python", "-m", "dsel.run", "experiments=laptop", "seed=4"]


def test_what_all_runs_share_is_shared_but_for_what_tables_vary() -> None:
    runs = [
        ("selector=kmq", "model=tiny", "selector.alpha=1", "data.size=400"),
        ("selector=kmq", "model=tiny", "selector.alpha=1", "data.size=400", "budget=0.2"),
    ]
    assert shared(runs, ["selector", "budget"]) == ("data.size=400", "model=tiny")
    assert shared([*runs, ("model=tiny",)], ["selector"]) == ("model=tiny",)
    assert shared([], []) == ()
