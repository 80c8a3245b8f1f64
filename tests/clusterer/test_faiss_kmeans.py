"""k-means: the clustering is a partition, its distances are what they say, and it repeats."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dsel.cache import Cache
from dsel.clusterer import faiss_kmeans, kept, kmeans
from dsel.clusterer.base import Clustering
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.clusterer.points import Points
from dsel.component import identity
from dsel.embedder.tfidf_svd import TfidfSvd
from dsel.errors import ConfigError
from dsel.study import Study
from tests.conftest import checked, make_pool
from tests.selector.pools import pools, scattered

BACKENDS = ["exact", "faiss"]
both = pytest.mark.parametrize("backend", BACKENDS)


def points(n: int = 600, d: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@both
def test_labels_name_the_nearest_centroid_and_distances_are_squared_l2(backend: str) -> None:
    x = points()
    found = FaissKMeans(backend=backend, k=12, niter=20, nredo=2).cluster(x)
    squared = ((x[:, None] - found.centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.labels, squared.argmin(1))
    np.testing.assert_allclose(found.distances, squared.min(1), rtol=1e-3, atol=1e-4)
    assert found.sizes.sum() == len(x)
    assert found.inertia == pytest.approx(squared.min(1).sum(), rel=1e-4)


@both
def test_same_points_and_seed_give_the_same_clusters_bit_for_bit(backend: str) -> None:
    x = points()
    one, two = (FaissKMeans(backend=backend, k=12, niter=20, nredo=2).cluster(x) for _ in range(2))
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.centroids, two.centroids)


@both
def test_well_separated_groups_are_found(backend: str) -> None:
    centres = np.eye(6, dtype=np.float32) * 100
    x = np.repeat(centres, 50, axis=0) + points(300, 6)
    labels = FaissKMeans(backend=backend, k=6, niter=50, nredo=5).cluster(x).labels
    assert all(len(set(labels[i * 50 : (i + 1) * 50])) == 1 for i in range(6))
    assert len(set(labels)) == 6


@both
def test_spherical_centroids_have_length_one(backend: str) -> None:
    found = FaissKMeans(backend=backend, k=5, niter=20, nredo=1, spherical=True).cluster(points())
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, rtol=1e-5)
    x = points()
    np.testing.assert_allclose(found.distances, ((x - found.centroids[found.labels]) ** 2).sum(1), rtol=1e-4)


@both
def test_more_clusters_than_points_is_refused(backend: str) -> None:
    with pytest.raises(ConfigError, match=r"clusterer\.k=11 is larger than the pool"):
        FaissKMeans(backend=backend, k=11).cluster(points(10))


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "many"])
def test_impossible_k_is_refused(k: Any) -> None:
    with pytest.raises(ConfigError, match=r"clusterer\.k"):
        checked(FaissKMeans(k=k), "clusterer")


def test_a_clustering_survives_the_disk(tmp_path: Path) -> None:
    found = FaissKMeans(k=4, niter=5, nredo=1).cluster(points())
    found.save(tmp_path)
    again = Clustering.load(tmp_path)
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_array_equal(again.centroids, found.centroids)
    np.testing.assert_array_equal(again.distances, found.distances)


@pytest.mark.parametrize(
    "options",
    [
        {"niter": 0}, {"nredo": 0}, {"seed": -1}, {"tol": -1e-3}, {"backend": "gpu"},
        {"device": "gpu"}, {"sample_per_cluster": 0}, {"sample_per_cluster": "some"}, {"exact_up_to": -1},
        {"k_grid": []}, {"k_grid": [1, 2]}, {"k_grid": 16}, {"k_grid": "16"}, {"k_grid": [4.5]},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"clusterer\.{next(iter(options))}"):
        checked(FaissKMeans(**options), "clusterer")


def test_the_defaults_are_fine() -> None:
    checked(FaissKMeans(), "clusterer")
    checked(FaissKMeans(k="auto", k_grid=[2, 3]), "clusterer")


@pytest.mark.parametrize("spherical", [False, True])
def test_faiss_is_used_as_the_published_code_does(spherical: bool) -> None:
    """Iteration by iteration, with restarts, it comes to the centroids of one call of faiss.Kmeans."""
    import faiss

    x = points()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    options = {"niter": 80, "nredo": 3, "seed": 7, "spherical": spherical}
    library = faiss.Kmeans(8, 20, min_points_per_centroid=1, max_points_per_centroid=600, **options)
    library.train(x)
    ours = FaissKMeans(k=20, backend="faiss", tol=0, **options).cluster(x)  # type: ignore[arg-type]
    np.testing.assert_allclose(ours.centroids, library.centroids, atol=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(("n", "d", "k"), [(3000, 8, 30), (3000, 32, 100)])
def test_the_backends_agree_on_the_inertia(n: int, d: int, k: int, spherical: bool) -> None:
    exact, faiss = (FaissKMeans(k=k, backend=b, spherical=spherical).cluster(points(n, d)).inertia for b in BACKENDS)
    assert exact == pytest.approx(faiss, rel=0.01)
    grouped = scattered(n, d)  # k-means++ may see what random starts do not
    exact, faiss = (FaissKMeans(k=k, backend=b).cluster(grouped).inertia for b in BACKENDS)
    assert exact < 1.01 * faiss


def test_which_backend_auto_is_belongs_to_the_identity() -> None:
    assert identity(FaissKMeans())["backend"] in BACKENDS
    assert identity(FaissKMeans(backend="exact")) != identity(FaissKMeans(backend="faiss"))
    assert identity(FaissKMeans(low_quality=0.1)) == identity(FaissKMeans())


@both
def test_no_cluster_is_empty_while_points_differ(backend: str) -> None:
    """Many copies of few points: random starts meet the same point several times."""
    x = np.concatenate([np.repeat(points(4), 100, axis=0), points(40, seed=1)])
    found = FaissKMeans(k=40, nredo=1, niter=3, backend=backend).cluster(x)
    assert found.sizes.min() > 0


@both
def test_as_many_clusters_as_points(backend: str) -> None:
    found = FaissKMeans(k=50, nredo=2, niter=5, backend=backend).cluster(points(50))
    assert sorted(found.labels) == list(range(50))
    assert found.inertia == 0


@both
@pytest.mark.parametrize("spherical", [False, True])
def test_points_that_are_all_equal(backend: str, spherical: bool) -> None:
    x = np.repeat(points(1), 40, axis=0)
    found = FaissKMeans(k=5, nredo=2, niter=5, backend=backend, spherical=spherical).cluster(x)
    assert len(set(found.labels)) == 1
    assert np.isfinite(found.centroids).all()
    if not spherical:
        assert found.inertia == pytest.approx(0, abs=1e-9)


@both
@given(x=pools(), k=st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_copies_of_a_point_go_to_the_same_cluster(backend: str, x: np.ndarray, k: int) -> None:
    found = FaissKMeans(k=min(k, len(x)), nredo=2, niter=20, backend=backend).cluster(x)
    squared = np.square(x.astype(np.float64)[:, None] - found.centroids).sum(axis=2)
    scale = 1e-5 * (1 + np.square(x).sum(axis=1).max())
    np.testing.assert_allclose(found.distances, squared.min(axis=1), atol=scale)
    distinct, which = np.unique(x, axis=0, return_inverse=True)
    assert found.sizes.min() > 0 or found.inertia <= len(x) * scale
    gaps = np.sort(np.square(distinct.astype(np.float64)[:, None] - found.centroids).sum(axis=2), axis=1)
    clear = gaps[:, 1] - gaps[:, 0] > scale if gaps.shape[1] > 1 else np.ones(len(distinct), dtype=bool)
    for point in np.flatnonzero(clear):
        assert len(set(found.labels[which.ravel() == point])) == 1


@both
def test_the_order_of_the_points_does_not_matter_where_groups_are_clear(backend: str) -> None:
    centres = np.eye(6, dtype=np.float32) * 100
    x = np.repeat(centres, 50, axis=0) + points(300, 6)
    order = np.random.default_rng(3).permutation(300)
    here, there = (FaissKMeans(k=6, nredo=8, backend=backend).cluster(rows) for rows in (x, x[order]))
    assert len(set(zip(here.labels[order], there.labels, strict=True))) == 6
    assert here.inertia == pytest.approx(there.inertia, rel=1e-4)


@both
def test_rows_that_cannot_be_clustered_are_named(backend: str) -> None:
    x = points(20)
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match="rows 7"):
        FaissKMeans(k=2, backend=backend).cluster(x)
    x[7] = 0
    with pytest.raises(ValueError, match="rows 7"):
        FaissKMeans(k=2, backend=backend, spherical=True).cluster(x)


@both
@pytest.mark.parametrize(("niter", "tol"), [(4, 0.0), (200, 1e-2)])
def test_the_bar_comes_to_its_end(backend: str, niter: int, tol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    @contextmanager
    def progress(title: str, *, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        assert total == 3 * niter
        yield told.append

    monkeypatch.setattr(faiss_kmeans, "progress", progress)
    FaissKMeans(k=10, niter=niter, nredo=3, tol=tol, backend=backend).cluster(points())
    assert sum(told) == 3 * niter
    assert (len(told) < 3 * niter) == (tol > 0)


@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (2, 1), (3, 2), (60, 8), (6000, 77), (52_002, 228), (196_000, 443), (5_000_000, 2048)]
)
def test_k_follows_the_number_of_points(n: int, k: int) -> None:
    clusterer = FaissKMeans()
    clusterer.check_size(n)
    assert clusterer.sized(n).k == k <= n
    assert FaissKMeans(k=5).sized(n).k == 5 and FaissKMeans(k="auto").sized(n).k == "auto"


def test_a_k_that_follows_is_clustered_with() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found, given = FaissKMeans(nredo=1).cluster(x), FaissKMeans(k=7, nredo=1).cluster(x)
    np.testing.assert_array_equal(found.labels, given.labels)


@pytest.mark.parametrize(
    ("option", "n", "k", "size"),
    [
        ("auto", 250_000, 1024, None), ("auto", 250_001, 64, 250_000), ("auto", 10**6, 1024, 2**18),
        ("auto", 262_144, 1024, None), (None, 10**7, 1024, None), (256, 10**6, 1024, 2**18), (256, 52_002, 64, 16_384),
        (256, 52_002, 228, None), (1, 100, 99, 99), (1, 100, 100, None),
    ],
)  # fmt: skip
def test_how_many_points_are_trained_on(option: Any, n: int, k: int, size: int | None) -> None:
    assert FaissKMeans(k=k, sample_per_cluster=option)._sample(n, k) == size


def test_a_pool_that_is_trained_on_as_a_whole_is_known_by_that() -> None:
    assert identity(FaissKMeans().sized(1000)) == identity(FaissKMeans(sample_per_cluster=None).sized(1000))
    assert identity(FaissKMeans().sized(10**6)) != identity(FaissKMeans(sample_per_cluster=None).sized(10**6))


@both
@pytest.mark.parametrize("spherical", [False, True])
def test_a_sample_is_trained_on_and_all_points_join(
    backend: str, spherical: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    x = scattered(4000, 8)
    options: dict[str, Any] = {"k": 10, "nredo": 2, "backend": backend, "spherical": spherical}
    with caplog.at_level(logging.INFO, "dsel.clusterer.faiss_kmeans"):
        found = FaissKMeans(sample_per_cluster=80, **options).cluster(x)
    assert "k-means trains on 800 of 4000 points (clusterer.sample_per_cluster)" in caplog.messages
    rows = x / np.linalg.norm(x, axis=1, keepdims=True) if spherical else x
    squared = ((rows[:, None] - found.centroids[None]) ** 2).sum(-1)
    assert (found.labels == squared.argmin(1)).mean() > 0.999
    assert found.inertia == pytest.approx(FaissKMeans(**options).cluster(x).inertia, rel=0.05)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    half = FaissKMeans(sample_per_cluster=80, **options).cluster(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert half.inertia == pytest.approx(found.inertia, rel=0.02)


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clusterer\.device=cuda:63: torch finds \d+ CUDA devices"):
        FaissKMeans(device="cuda:63").check()


def test_where_it_computes_belongs_to_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = FaissKMeans(backend="exact")
    monkeypatch.setattr(faiss_kmeans, "torch_device", lambda name, option: None)
    assert "device" not in identity(exact) and identity(exact) == identity(replace(exact, device="cpu"))
    monkeypatch.setattr(faiss_kmeans, "torch_device", lambda name, option: torch.device("cuda:1"))
    assert identity(exact)["device"] == "cuda"
    assert "device" not in identity(FaissKMeans(backend="faiss"))


def test_the_kernel_on_a_device_finds_the_same_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    x = scattered(700, 9)
    ours = FaissKMeans(k=14, nredo=2, backend="exact", device="cpu").cluster(x)
    monkeypatch.setattr(faiss_kmeans, "torch_device", lambda name, option: torch.device("cpu"))
    theirs = FaissKMeans(k=14, nredo=2, backend="exact").cluster(x)
    np.testing.assert_array_equal(theirs.labels, ours.labels)


def test_a_study_goes_on_with_a_killed_clustering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of k=auto, in the second of three clusterings: the first is not computed again, and the rest ends the same."""

    def study(cache: str) -> Study:
        return Study(
            pool=make_pool(60), budget=5, rng=np.random.default_rng(0), embedder=TfidfSvd(), scorer=None,
            clusterer=FaissKMeans(k="auto", k_grid=[2, 3, 5], backend="exact"), cache=Cache(tmp_path / cache),
        )  # fmt: skip

    expected = study("whole").clustering
    monkeypatch.setattr(kept, "EVERY", 0)
    lloyd, begun = kmeans.lloyd, list[int]()

    def killed(points: Points, state: kmeans.State, *options: Any) -> Iterator[kmeans.State]:
        for now in lloyd(points, state, *options):
            yield now
            if len(state.centroids) == 3:
                raise KeyboardInterrupt

    def counted(points: Points, state: kmeans.State, *options: Any) -> Iterator[kmeans.State]:
        begun.append(len(state.centroids))
        return lloyd(points, state, *options)

    monkeypatch.setattr(kmeans, "lloyd", killed)
    with pytest.raises(KeyboardInterrupt):
        study("killed").resource("clustering")
    monkeypatch.setattr(kmeans, "lloyd", counted)
    found = study("killed").clustering
    assert set(begun) == {3, 5}
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.centroids, expected.centroids)
    assert found.choice == expected.choice
    assert not list(tmp_path.glob("killed/clusterings/*/shard*"))
