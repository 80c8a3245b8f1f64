"""What holds for every method: the budget is met exactly, without duplicates, and the same seed repeats it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dsel.cache import Cache
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.embedder.tfidf_svd import TfidfSvd
from dsel.pool import Pool
from dsel.record import Stage
from dsel.selector.base import Selection, Selector
from dsel.study import Study
from tests.conftest import ROOT, make_pool


class ByLength:
    """Quality for the test: no two alike."""

    def score(self, pool: Pool) -> np.ndarray:
        return np.array([len(r) + i / 100 for i, r in enumerate(pool.responses)], dtype=np.float32)


METHODS = sorted(p.stem for p in (ROOT / "conf" / "selector").glob("*.yaml"))


@pytest.fixture
def study(tmp_path: Path) -> Callable[[int, int], Study]:
    from contextlib import contextmanager

    @contextmanager
    def stage(name: str):  # type: ignore[no-untyped-def]
        yield Stage(name)

    def make(budget: int, seed: int) -> Study:
        return Study(
            pool=make_pool(90, prompt="Tell me about thing {i} please", answer="it is item {i} of many"),
            budget=budget,
            rng=np.random.default_rng(seed),
            embedder=TfidfSvd(dimensions=16, min_df=1),
            clusterer=FaissKMeans(k=7, niter=10, nredo=1),
            scorer=ByLength(),
            cache=Cache(tmp_path),
            stage=stage,
        )

    return make


def build(method: str) -> Selector:
    return instantiate(OmegaConf.load(ROOT / "conf" / "selector" / f"{method}.yaml"), _convert_="all")


def chosen(method: str, study: Study) -> Selection:
    selector = build(method)
    selector.check()
    selector.begin(study)
    selection = selector.ask()
    assert selection is not None
    assert selector.ask() is None  # static methods choose once
    return selection


@pytest.mark.parametrize("budget", [1, 2, 31, 89, 90])
@pytest.mark.parametrize("method", METHODS)
def test_budget_is_met_exactly_with_distinct_indices(method: str, budget: int, study: Callable) -> None:
    indices = chosen(method, study(budget, 0)).indices
    assert len(indices) == len(set(indices.tolist())) == budget
    assert indices.min() >= 0
    assert indices.max() < 90


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_selection(method: str, study: Callable) -> None:
    one, two = (chosen(method, study(20, 5)) for _ in range(2))
    np.testing.assert_array_equal(one.indices, two.indices)


@pytest.mark.parametrize("method", ["random", "uniform", "kmeans_uniform", "kmq", "kcenter"])
def test_another_seed_draws_another_selection(method: str, study: Callable) -> None:
    assert set(chosen(method, study(20, 1)).indices.tolist()) != set(chosen(method, study(20, 2)).indices.tolist())


def test_random_is_uniform(study: Callable) -> None:
    counts = np.zeros(90)
    for seed in range(200):
        counts[chosen("random", study(30, seed)).indices] += 1
    expected = 200 * 30 / 90
    assert abs(counts - expected).max() < 5 * np.sqrt(expected * (1 - 1 / 3))  # five standard deviations


def test_kmeans_uniform_gives_each_cluster_its_share(study: Callable) -> None:
    problem = study(45, 0)
    selection = chosen("kmeans_uniform", problem)
    assert selection.clusters is not None
    np.testing.assert_array_equal(selection.clusters, problem.clustering.labels[selection.indices])
    drawn = np.bincount(selection.clusters, minlength=7)
    assert np.abs(drawn - problem.clustering.sizes * 45 / 90).max() < 1


def test_a_selection_with_a_duplicate_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        Selection(np.array([3, 1, 3]))
