"""k-means: the clustering is a partition, its distances are what they say, and it repeats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsel.clusterer.base import Clustering
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.errors import ConfigError


def points(n: int = 600, d: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_labels_name_the_nearest_centroid_and_distances_are_squared_l2() -> None:
    x = points()
    found = FaissKMeans(k=12, niter=20, nredo=2).cluster(x)
    squared = ((x[:, None] - found.centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.labels, squared.argmin(1))
    np.testing.assert_allclose(found.distances, squared.min(1), rtol=1e-3, atol=1e-4)
    assert found.sizes.sum() == len(x)
    assert found.inertia == pytest.approx(squared.min(1).sum(), rel=1e-4)


def test_same_points_and_seed_give_the_same_clusters_bit_for_bit() -> None:
    x = points()
    one, two = (FaissKMeans(k=12, niter=20, nredo=2).cluster(x) for _ in range(2))
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.centroids, two.centroids)


def test_well_separated_groups_are_found() -> None:
    centres = np.eye(6, dtype=np.float32) * 100
    x = np.repeat(centres, 50, axis=0) + points(300, 6)
    labels = FaissKMeans(k=6, niter=50, nredo=5).cluster(x).labels
    assert all(len(set(labels[i * 50 : (i + 1) * 50])) == 1 for i in range(6))
    assert len(set(labels)) == 6


def test_spherical_centroids_have_length_one() -> None:
    found = FaissKMeans(k=5, niter=20, nredo=1, spherical=True).cluster(points())
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, rtol=1e-5)
    x = points()
    np.testing.assert_allclose(found.distances, ((x - found.centroids[found.labels]) ** 2).sum(1), rtol=1e-4)


def test_more_clusters_than_points_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clusterer\.k=11 is larger than the pool"):
        FaissKMeans(k=11).cluster(points(10))


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(ConfigError, match=r"clusterer\.k"):
        FaissKMeans(k=k).check()


def test_a_clustering_survives_the_disk(tmp_path: Path) -> None:
    found = FaissKMeans(k=4, niter=5, nredo=1).cluster(points())
    found.save(tmp_path)
    again = Clustering.load(tmp_path)
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_array_equal(again.centroids, found.centroids)
    np.testing.assert_array_equal(again.distances, found.distances)
