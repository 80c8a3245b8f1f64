"""What choosing takes is known before, and said where it is long or does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsel import cost
from dsel.clusterer import kmeans
from dsel.clusterer.base import cost as clustering
from dsel.clusterer.faiss_kmeans import ALL_UP_TO, PASSES, FaissKMeans
from dsel.clusterer.points import Points
from dsel.cost import Cost, free, speed, warnings
from dsel.selector.deita import Deita
from dsel.selector.kcenter import KCenter
from dsel.selector.quality import Quality
from dsel.selector.semdedup import SemDedup


def test_a_word_for_what_is_long_and_for_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "speed", lambda device: 1e11)
    monkeypatch.setattr(cost, "free", lambda: 8e9)
    assert list(warnings("it", Cost(operations=3.5e14, memory=7e9))) == []
    assert list(warnings("it", Cost(operations=7.2e14, memory=9e9))) == [
        "it may take 2.0 h: up to 7.2e+14 operations, of which this machine does 1.0e+11 a second",
        "it may not fit: it takes about 9 GB, and 8 GB are free",
    ]


def test_a_machine_is_measured_for_what_is_large_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "speed", lambda device: pytest.fail("measured"))
    assert Cost(operations=1e9).seconds == 0
    assert speed() > 1e8 and free() > 1e6


@pytest.mark.parametrize("selector", [KCenter(), Deita(), SemDedup(then=Quality()), Quality()])
def test_ten_times_the_pool_is_at_least_ten_times_the_memory_of_an_example(selector: KCenter) -> None:
    small, large = (selector.cost(n, 384, 1000, 100) for n in (10**6, 10**7))
    assert 5 * small.memory < large.memory < 20 * small.memory
    assert small.operations <= large.operations


def test_what_is_chosen_with_counts_too() -> None:
    n, d, budget, k = 10**6, 384, 10_000, 1000
    alone = SemDedup(then=Quality()).cost(n, d, budget, k).operations
    assert alone == n * n * d / k
    assert SemDedup(then=KCenter()).cost(n, d, budget, k).operations > alone


def test_clustering_by_hand() -> None:
    one = FaissKMeans(k=10, nredo=2, backend="exact")
    assert one.cost(1000, 8).operations == 2 * 1000 * 10 * 8 * PASSES * 2
    assert FaissKMeans(k=10, nredo=2, niter=5, backend="exact").cost(1000, 8).operations == 2 * 1000 * 10 * 8 * 6 * 2
    assert FaissKMeans(k=10, nredo=2, niter=99, backend="faiss").cost(1000, 8).operations == 2 * 1000 * 10 * 8 * 99 * 2
    assert one.cost(10**6, 8).operations == 2 * ALL_UP_TO * 10 * 8 * PASSES * 2 + 4 * 10**6 * 10 * 8
    grid = FaissKMeans(k="auto", k_grid=[10, 20], backend="exact", nredo=2)
    assert grid.cost(1000, 8).operations == 3 * one.cost(1000, 8).operations + 2 * 2 * 1000**2 * 8
    assert clustering(object(), 10, 10).operations == 0  # one that does not say


@pytest.mark.parametrize("k", [8, 64])
def test_clustering_takes_no_more_than_is_said(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    real = Points.two_nearest

    def counted(self: Points, centroids: Any, rows: Any = None, **more: Any) -> Any:
        computed.append((len(self) if rows is None else len(rows)) * len(centroids))
        return real(self, centroids, rows, **more)

    monkeypatch.setattr(Points, "two_nearest", counted)
    x = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)
    kmeans.fit(x, k, nredo=2)
    said = FaissKMeans(k=k, nredo=2, backend="exact").cost(*x.shape).operations / 2 / x.shape[1]
    assert said / 40 < sum(computed) <= said
