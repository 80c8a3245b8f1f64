"""The recipes of docs/extending.md, as they stand there: each file it names does what it says, with no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate

from dsel.cache import Cache
from dsel.config_groups import GROUPS
from dsel.constraints import check_types
from dsel.experiment import Experiment
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.record.writer import Record
from dsel.stage import Stage
from dsel.study import Study
from dsel.testing import check_evaluator, check_selector, made_pool, made_study
from dsel.trainer.none import NoTrainer
from tests.conftest import ROOT, make_pool
from tests.pages import composed, overlaid, parts

PAGE = ROOT / "docs" / "extending.md"
FORMATS = "dsel/data/formats.py"


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with overlaid(tmp_path_factory.mktemp("overlay")) as folder:
        yield folder


@pytest.fixture
def study(overlay: Path, cache: Cache) -> Study:
    """With the recipes' own embedder, clusterer and scorer."""

    @contextmanager
    def stage(name: str) -> Iterator[Stage]:
        yield Stage(name)

    own = {"embedder": "hashed", "clusterer": "random_centres", "scorer": "distinct_words"}
    components = {group: build(overlay, group, name) for group, name in own.items()}
    components["clusterer"].k = 5
    pool = make_pool(40, prompt="Tell me about thing {i} please", answer="it is item {i} of many")
    return Study(pool, 10, np.random.default_rng(0), **components, cache=cache, stage=stage)


@pytest.fixture
def learner(spec: CausalLM, cache: Cache) -> Learner:
    return Learner(spec, NoTrainer(), cache, seed=0)


def build(overlay: Path, group: str, name: str, *overrides: str) -> Any:
    component = instantiate(composed(overlay, [f"{group}={name}", *overrides])[group], _convert_="all")
    check_types(component, group)
    component.check()
    return component


def test_every_file_of_a_recipe_is_tried_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for part in parts(PAGE):
        assert part.where or Path(part.file).stem in text, part.file


def test_a_selector(overlay: Path, study: Study) -> None:
    chosen = build(overlay, "selector", "shortest").select(study).indices
    lengths = [len(text) for text in study.pool.texts]
    assert sorted(lengths[i] for i in chosen) == sorted(lengths)[:10]


@pytest.mark.parametrize("name", ["shortest", "surprising"])
def test_selectors_keep_what_all_promise(overlay: Path, name: str) -> None:
    check_selector(build(overlay, "selector", name))


def test_a_selector_that_looks_at_the_model(overlay: Path, study: Study, learner: Learner) -> None:
    selector = build(overlay, "selector", "surprising")
    losses, seen = learner.nll(study.pool.messages), []
    for step in selector.steps(study, learner):
        seen.append((step.selection.indices.tolist(), len(step.examples)))
    assert sorted(sum((chosen for chosen, _ in seen), [])) == sorted(np.argsort(-losses, kind="stable")[:10].tolist())
    assert [n for _, n in seen] == [5, 10] == [n for n, _ in selector.plan(40, 10, 3).trainings]


def test_feedback(overlay: Path, study: Study, learner: Learner) -> None:
    feedback = build(overlay, "selector", "iterative", "selector/feedback=longer").feedback
    scores = feedback.score(study, learner, [np.array([3]), np.array([1])], ["one two", "one two three four five six"])
    assert scores.tolist() == [4, 0]


def test_a_scorer_an_embedder_and_a_clusterer(study: Study) -> None:
    assert study.quality is not None and set(study.quality.tolist()) == {5.0, 6.0}  # a word has two letters
    assert study.embeddings.shape == (40, 256)
    found = study.clustering
    assert found.k == 5 and len(found.labels) == 40
    x = np.asarray(study.embeddings)
    np.testing.assert_allclose(found.distances, ((x - found.centroids[found.labels]) ** 2).sum(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("group", "name", "option", "value"),
    [
        ("data", "slim_orca", "hub", "Open-Orca/SlimOrca"),
        ("model", "smollm3_3b", "hub", "HuggingFaceTB/SmolLM3-3B-Base"),
        ("trainer", "long", "max_length", 8192),
    ],
)
def test_presets(overlay: Path, group: str, name: str, option: str, value: Any) -> None:
    component = instantiate(composed(overlay, [f"{group}={name}"])[group], _convert_="all")
    check_types(component, group)
    assert getattr(component, option) == value


def test_tasks_of_the_harness(overlay: Path) -> None:
    assert set(build(overlay, "evaluator", "commonsense").tasks) == {"piqa", "winogrande"}


def test_an_evaluator(overlay: Path, study: Study, learner: Learner, cache: Cache, tmp_path: Path) -> None:
    evaluator = build(overlay, "evaluator", "answer_length", "evaluator.max_new_tokens=4")
    heldout = study.pool.take([0, 1, 2])
    metric = evaluator.evaluate(learner, study.pool, heldout, cache, tmp_path)["answer_length"]
    assert metric.n == 3 and 0 <= metric.value <= 4


def test_the_short_tests_of_a_component(overlay: Path, tmp_path: Path) -> None:
    check_evaluator(build(overlay, "evaluator", "answer_length"))
    named = {"scorer": "distinct_words", "embedder": "hashed", "clusterer": "random_centres"}
    own = {group: build(overlay, group, name) for group, name in named.items()}
    own["clusterer"].k = 5
    study = made_study(tmp_path, made_pool(30), budget=10, **own)
    assert study.quality is not None and study.quality.shape == (30,)
    assert study.embeddings.shape == (30, 256) and study.clustering.k == 5


def test_a_tracker(overlay: Path, tmp_path: Path) -> None:
    tracker = build(overlay, "tracker", "curve")
    tracker.start(tmp_path, {})
    tracker.log({"loss": 2.5}, 10)
    assert tracker.finish(tmp_path, {}) == {"file": "curve.tsv"}
    assert (tmp_path / "curve.tsv").read_text() == "10\tloss\t2.5\n"


def test_a_run_of_them_all(overlay: Path, spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    overrides = [
        "data=procedural", "data.size=60", "data.holdout=4", "embedder=hashed", "clusterer=random_centres",
        "clusterer.k=4", "scorer=distinct_words", "selector=iterative", "selector/feedback=longer",
        "selector.max_new_tokens=4", "trainer=full", "trainer.epochs=1", "trainer.max_length=64",
        "evaluator=answer_length", "evaluator.max_new_tokens=4", "tracker=curve", "engine=shuffled",
    ]  # fmt: skip
    config = composed(overlay, overrides)
    components = {group: instantiate(config[group], _convert_="all") for group in GROUPS}
    made = Experiment(**components | {"model": spec}, budget=12, seed=0, cache=cache)
    made.check()
    record = Record(tmp_path, {}, {})
    made.run(record)
    assert [r["examples"] for r in record.facts["rounds"]] == [4, 4, 4]
    assert "answer_length" in record.facts["metrics"] and record.facts["tracker"] == {"file": "curve.tsv"}


def test_a_data_format() -> None:
    """Its lines, put where the recipe says, in a copy of the module."""
    source = (ROOT / FORMATS).read_text(encoding="utf-8")
    for part in (part for part in parts(PAGE) if part.file == FORMATS):
        head = "FORMATS = (\n"
        assert head in source
        source = source.replace(head, f"{head}{part.text}" if part.where == "in FORMATS" else f"{part.text}\n\n{head}")
    module: dict[str, Any] = {"__name__": "dsel.data.formats"}
    exec(compile(source, FORMATS, "exec"), module)
    for row in ({"puzzle": "Two and two?", "walkthrough": "Four."}, {"front": ["Two and", "two?"], "back": ["Four."]}):
        messages = module["to_messages"](row, module["recognise"](row, "here"))
        assert [m["role"] for m in messages] == ["user", "assistant"]
        assert messages[1]["content"] == "Four."
    assert set(module["NAMES"]) > {"puzzle", "walkthrough", "front", "back"}
