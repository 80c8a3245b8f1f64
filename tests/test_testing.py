"""The check for authors of selectors: passed by all of ours, and failed by whoever breaks a promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dsel.cache import Cache
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.config_groups import register
from dsel.evaluator.base import Metric
from dsel.pool import Pool
from dsel.scorer.base import Scorer
from dsel.selector.base import Choose, Selection, Selector, Static, Step, Train, Work
from dsel.study import Study
from dsel.testing import check_evaluator, check_selector, number
from dsel.trainer.base import Training
from tests.conftest import ROOT, make_pool

OURS = sorted(path.stem for path in (ROOT / "conf" / "selector").glob("[!_]*.yaml"))
PERMUTES = {"deita", "facility_location", "graphfilter", "ifd", "longest", "qdit", "quality"}  # no chance, no clusters
WITHOUT_A_MODEL = {name: ["selector/feedback=verifier"] for name in ("iterative", "iterative_code", "iterative_reward")}


def build(method: str, *overrides: str) -> Selector:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=[f"selector={method}", *overrides]).selector
    return instantiate(config, _convert_="all")


@pytest.mark.parametrize("method", OURS)
def test_ours_keep_what_selectors_promise(method: str) -> None:
    selector = build(method, *WITHOUT_A_MODEL.get(method, []))
    budgets = ((31,) if method == "iterit" else (3, 31, 90)) if "model" in selector.needs else None
    budgets = (90,) if method == "full" else budgets
    check_selector(selector, budgets=budgets, permutes=method in PERMUTES)


@pytest.mark.parametrize(
    "overrides",
    [
        ["iterative_perplexity", "selector.restart=continue", "selector.final=last", "selector.scope=round"],
        ["iterative_verifier", "selector.rounds=1", "selector.draw=uniform"],
        ["iterit", "selector.update=static", "selector.epochs=2"],
        ["semdedup", "selector@selector.then=iterit", "selector.then.epochs=2"],
        ["semdedup", "selector@selector.then=iterative_perplexity", "selector.threshold=0.3"],
        ["uniform", "selector.replace=true"],
    ],
    ids=" ".join,
)
def test_variants_of_ours(overrides: list[str]) -> None:
    check_selector(build(*overrides), budgets=(4, 45))


def test_who_may_stop_short_says_so() -> None:
    check_selector(build("ifd", "selector.fill=false"), scorer=Half(), fills=False)
    with pytest.raises(AssertionError, match="IFD with a budget of 89 of 90 examples: it chooses 45"):
        check_selector(build("ifd", "selector.fill=false"), scorer=Half())


def test_a_pool_of_ones_own() -> None:
    check_selector(build("kmq"), pool=make_pool(12), clusterer=FaissKMeans(k=2, niter=5, nredo=1), budgets=(5,))


@dataclass
class Half(Scorer):
    """Half of the examples have an IFD below 1."""

    def score(self, pool: Pool, scratch: Path, *more: Any) -> np.ndarray:
        return np.array([0.5 + number(text) / 4 + i % 2 for i, text in enumerate(pool.texts)], dtype=np.float32)


class First(Static):
    """The first of the pool: promises nothing more."""

    def select(self, study: Study) -> Selection:
        return Selection(np.arange(study.budget))


class TooMany(First):
    def select(self, study: Study) -> Selection:
        return Selection(np.arange(min(study.budget + 1, len(study.pool))))


class Beyond(First):
    def select(self, study: Study) -> Selection:
        return Selection(np.arange(study.budget) + 1)


class Twice(First):
    def select(self, study: Study) -> Selection:
        return Selection(np.arange(study.budget), scores=np.zeros(study.budget + 1, dtype=np.float32))


class Floats(First):
    def select(self, study: Study) -> Selection:
        return Selection(np.arange(study.budget) / 1)


class Columns(First):
    def select(self, study: Study) -> Selection:
        return Selection(np.arange(study.budget)[:, None])


class ColumnsTrained(Selector):
    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        chosen = np.arange(study.budget)
        yield Choose(Selection(chosen), on=chosen[:, None])


@dataclass
class Gives(Static):
    given: Any

    def select(self, study: Study) -> Selection:
        return self.given


class AsksUnsaid(First):
    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        learner.nll(study.pool.messages)
        yield from super().steps(study, learner)


class NeedsAList(First):
    needs: ClassVar[Any] = ["quality"]


class OwnChance(First):
    def select(self, study: Study) -> Selection:
        return Selection(np.random.default_rng().choice(len(study.pool), study.budget, replace=False))


@dataclass
class Remembers(First):
    used: int = 0

    def select(self, study: Study) -> Selection:
        self.used += 1
        return Selection((np.arange(study.budget) + self.used) % len(study.pool))


class ReadsMore(First):
    def select(self, study: Study) -> Selection:
        return Selection(np.argsort(study.quality_or_fail(), kind="stable")[: study.budget])


class LeavesThePart(First):
    """Counts on a pool of ninety."""

    def select(self, study: Study) -> Selection:
        return Selection(89 - np.arange(study.budget))


class Warms(Selector):
    """Warms up on ten examples, and says so."""

    needs: ClassVar[frozenset[str]] = frozenset({"model"})

    def plan(self, n: int, budget: int, epochs: float) -> Work:
        return Work([(10, 1), (budget, epochs)])

    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        yield Train(np.arange(10), Training(epochs=1))
        assert len(learner.trained) == 1
        yield Choose(Selection(np.arange(study.budget)))


class WarmsUnsaid(Warms):
    needs: ClassVar[frozenset[str]] = frozenset()

    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        yield Train(np.arange(10))
        yield Choose(Selection(np.arange(study.budget)))


class Unplanned(Warms):
    def plan(self, n: int, budget: int, epochs: float) -> Work:
        return Work([(budget, epochs)])


class Answers(Warms):
    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        yield from super().steps(study, learner)
        learner.generate(study.pool.prompts[:5])


class OnlyTrains(Warms):
    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        yield Train(np.arange(10))


class NoStep(First):
    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        yield self.select(study)  # type: ignore[misc]


def test_what_keeps_all_promises_passes() -> None:
    check_selector(First())
    check_selector(Warms())


@pytest.mark.parametrize(
    ("selector", "complaint"),
    [
        (TooMany(), r"TooMany with a budget of 1 of 90 examples: it chooses 2$"),
        (Beyond(), r"its choice has indices from 1 to 90, of 90 examples"),
        (Twice(), r"2 scores for 1 examples"),
        (Floats(), r"Floats: a selection's indices are whole numbers \[m\], not float64 \[1\]"),
        (Columns(), r"a selection's indices are whole numbers \[m\], not int64 \[1, 1\]"),
        (ColumnsTrained(), r"what the model is trained on has the shape \[1, 1\], and wants \[m\]"),
        (Gives(None), r"what a selector chooses is a Selection\(indices\), not NoneType"),
        (Gives(np.arange(3)), r"what a selector chooses is a Selection\(indices\), not ndarray"),
        (Gives(0), r"what a selector chooses is a Selection\(indices\), not int"),
        (
            AsksUnsaid(),
            r'AsksUnsaid asks the model for `nll`, and does not need it: needs: .* = frozenset\({"model"}\)',
        ),
        (NeedsAList(), r"NeedsAList\.needs=\[quality\]: wants a frozenset of embeddings"),
        (OwnChance(), r"used a second time with the same seed: step 1 trains on other examples"),
        (Remembers(), r"used a second time with the same seed: step 1 trains on other examples"),
        (ReadsMore(), r"it reads quality, which its `needs` lack"),
        (LeavesThePart(), r"on 45 of them: .* has indices from 89 to 89, of 45 examples"),
        (WarmsUnsaid(), r"it has the model trained, which its `needs` lack"),
        (
            Unplanned(),
            r"it plans trainings of \(examples, epochs\) \[\(1, 3.0\)\], and has \[\(10, 1.0\), \(1, 3.0\)\]",
        ),
        (Answers(), r"it plans 0 answers, and has 5 generated"),
        (OnlyTrains(), r"it chooses nothing"),
        (NoStep(), r"NoStep yields Selection\(.*no Choose and no Train"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Selector) else "",
)
def test_a_promise_that_is_broken_is_named(selector: Selector, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_selector(selector)


def test_an_order_that_matters_is_named() -> None:
    with pytest.raises(AssertionError, match="step 1 has other examples when the pool comes in another order"):
        check_selector(First(), permutes=True)


class Words:
    """Words of the answers to what is held out."""

    evaluates = True

    def check(self) -> None: ...

    def need_tasks(self, cache: Cache) -> None: ...

    def evaluate(self, learner: Any, pool: Pool, heldout: Pool, cache: Cache, folder: Path) -> dict[str, Metric]:
        words = [len(answer.split()) for answer in learner.generate(heldout.prompts)]
        return {"words": Metric(float(np.mean(words)), 0.1, "words", len(words))}


class Plain(Words):
    def evaluate(self, *given: Any):  # type: ignore[no-untyped-def,override]
        return {"words": 3.0}


class PlainByName(Words):
    def evaluate(self, *given: Any) -> dict[str, float]:  # type: ignore[override]
        return {"words": 3.0}


class NoMapping(Words):
    def evaluate(self, *given: Any):  # type: ignore[no-untyped-def,override]
        return [3.0]


class Unfinished(Words):
    def evaluate(self, *given: Any) -> dict[str, Metric]:
        return {"words": Metric(float("nan"), 0.1, "words")}


@dataclass
class Drifts(Words):
    asked: int = 0

    def evaluate(self, *given: Any) -> dict[str, Metric]:
        self.asked += 1
        return {"words": Metric(self.asked, 0.1, "words")}


@pytest.mark.parametrize(
    ("evaluator", "complaint"),
    [
        (Plain(), r"Plain\.evaluate returns dict\[str, Metric\] \(dsel\.evaluator\.base\); its words is 3\.0"),
        (PlainByName(), r"PlainByName\.evaluate returns dict\[str, Metric\] \(.*\), not dict\[str, float\]"),
        (NoMapping(), r"NoMapping\.evaluate returns dict\[str, Metric\] \(.*\), not \[3\.0\]"),
        (Unfinished(), "Unfinished: words is nan"),
        (Drifts(), r"Drifts: words is Metric\(value=1.*, and Metric\(value=2.* when asked again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Words) else "",
)
def test_what_an_evaluator_promises(evaluator: Any, complaint: str) -> None:
    check_evaluator(Words())
    with pytest.raises(AssertionError, match=complaint):
        check_evaluator(evaluator)
