import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dsel.clusterer import kmeans
from tests.selector.pools import pools, scattered


def squared(x, centroids):
    return np.square(x.astype(np.float64)[:, None] - centroids.astype(np.float64)).sum(axis=2)


def plain_lloyd(x, centroids, niter):
    centroids = centroids.astype(np.float64)
    for _ in range(niter):
        labels = squared(x, centroids).argmin(axis=1)
        centroids = np.array([x[labels == j].mean(axis=0, dtype=np.float64) for j in range(len(centroids))])
    return squared(x, centroids).argmin(axis=1), centroids


def lloyd(x, centroids, niter):
    return kmeans._lloyd(x, centroids, kmeans._two_nearest(x, centroids), niter, 0.0, False)


@pytest.mark.parametrize("niter", [1, 2, 5, 40])
@pytest.mark.parametrize("d", [2, 30])
def test_iterations_equal_the_plain_ones(niter, d):
    """Skipping what cannot have changed skips nothing else: same labels and centroids after any iteration."""
    x = scattered(1500, d)
    start = x[:25]
    labels, centroids, distances = lloyd(x, start.copy(), niter)
    plain_labels, plain_centroids = plain_lloyd(x, start, niter)
    np.testing.assert_array_equal(labels, plain_labels)
    np.testing.assert_allclose(centroids, plain_centroids, atol=1e-5)
    np.testing.assert_allclose(distances, squared(x, plain_centroids)[np.arange(1500), labels], rtol=1e-4)


@given(x=pools(), k=st.integers(1, 60), spherical=st.booleans())
@settings(deadline=None, max_examples=80)
def test_result_is_consistent(x, k, spherical):
    k = min(k, len(x))
    labels, centroids, distances = kmeans.fit(x, k, nredo=2, spherical=spherical)
    assert labels.dtype == np.int64 and centroids.dtype == distances.dtype == np.float32
    assert centroids.shape == (k, x.shape[1]) and np.isfinite(centroids).all()
    if spherical:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    every = squared(x, centroids)
    scale = 1e-5 * (1 + np.square(x).sum(axis=1).max())
    np.testing.assert_allclose(distances, every[np.arange(len(x)), labels], atol=scale)
    assert (distances <= every.min(axis=1) + scale).all()


def test_no_cluster_is_empty_while_points_differ():
    x = scattered(200, 3)
    for k in (5, 50, 150, 200):
        assert len(np.unique(kmeans.fit(x, k, nredo=1)[0])) == k


def test_an_empty_cluster_restarts_at_the_farthest_point():
    x = np.array([[0.0], [1.0], [2.0], [30.0], [31.0], [77.0]], dtype=np.float32)
    labels, centroids, _ = lloyd(x, np.array([[1], [40], [1000]], dtype=np.float32), 10)
    assert sorted(centroids.ravel().tolist()) == [1.0, 30.5, 77.0] and np.bincount(labels).min() == 1


def test_fewer_distinct_points_than_clusters():
    labels, _, distances = kmeans.fit(np.repeat(np.eye(3), 5, axis=0), 9)
    assert len(np.unique(labels)) == 3 and distances.max() == 0


def test_the_seed_settles_everything():
    x = scattered(500, 6)
    for one, two in zip(kmeans.fit(x, 12, seed=3), kmeans.fit(x, 12, seed=3), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (kmeans.fit(x, 12, seed=3, nredo=1)[0] != kmeans.fit(x, 12, seed=4, nredo=1)[0]).any()


def test_more_runs_are_never_worse():
    x = scattered(600, 5)
    inertias = [kmeans.fit(x, 20, nredo=redo)[2].sum() for redo in (1, 3, 6)]
    assert inertias == sorted(inertias, reverse=True)


def test_seeds_follow_the_kmeans_plus_plus_law():
    """Three points, two seeds: the second given the first, in proportion to squared distances."""
    x = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    gap = np.square(x - x.T)
    expected = gap / gap.sum(axis=1, keepdims=True) / 3
    times, seen = 3000, np.zeros((3, 3))
    for seed in range(times):
        seen[tuple(kmeans._seeds(x, 2, np.random.default_rng(seed))[0])] += 1
    assert np.abs(seen / times - expected).max() < 0.03


def test_third_seed_sees_the_second():
    """Four points, three seeds drawn between two looks: the law of the whole triple."""
    x = np.array([[0.0], [1.0], [3.0], [7.0]], dtype=np.float32)
    gap, expected = np.square(x - x.T), np.zeros((4, 4, 4))
    for a in range(4):
        for b in range(4):
            nearest = np.minimum(gap[a], gap[b])
            if a != b:
                expected[a, b] = gap[a, b] / gap[a].sum() / 4 * nearest / nearest.sum()
    times, seen = 4000, np.zeros((4, 4, 4))
    for seed in range(times):
        seen[tuple(kmeans._seeds(x, 3, np.random.default_rng(seed))[0])] += 1
    assert np.abs(seen / times - expected).max() < 0.03


@pytest.mark.parametrize("k", [0, 11])
def test_k_is_checked(k):
    with pytest.raises(ValueError, match="k must be between 1 and the 10 rows"):
        kmeans.fit(scattered(10, 2), k)


def test_seeds_know_the_two_nearest():
    x = scattered(700, 5)
    seeds, (labels, first, second) = kmeans._seeds(x, 300, np.random.default_rng(0))
    expected = kmeans._two_nearest(x, x[seeds])
    assert len(set(seeds.tolist())) == 300
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_allclose(first, expected[1], atol=1e-5)
    np.testing.assert_allclose(second, expected[2], atol=1e-5)


def test_filling_empty_clusters_takes_the_farthest_points_and_what_is_near_them():
    x = np.array([[0], [1], [50], [51], [90]], dtype=np.float32)
    labels, centroids = np.zeros(5, dtype=np.int64), np.array([[0], [-900], [-900]], dtype=np.float32)
    distances = kmeans.own_distances(x, centroids, labels)
    kmeans.fill_empty(x, labels, centroids, distances)
    assert centroids.ravel().tolist() == [0, 90, 50]
    assert labels.tolist() == [0, 0, 2, 2, 1] and distances.tolist() == [0, 1, 0, 1, 0]


@given(x=pools(), k=st.integers(1, 60), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_filling_leaves_none_empty_while_points_differ(x, k, seed):
    """Whatever the clusters were before; and each point is in no farther a cluster than it was."""
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((k, x.shape[1])).astype(np.float32)
    labels = squared(x, centroids).argmin(axis=1)
    distances = before = kmeans.own_distances(x, centroids, labels)
    distances = distances.copy()
    kmeans.fill_empty(x, labels, centroids, distances)
    assert len(np.unique(labels)) == k or not distances.any()
    np.testing.assert_array_equal(distances, kmeans.own_distances(x, centroids, labels))
    assert (distances <= before).all()


@pytest.mark.parametrize(("niter", "tol"), [(1, 0.0), (3, 0.0), (500, 1e-3)])
def test_progress_adds_up_however_early_it_ends(niter, tol):
    told = []
    kmeans.fit(scattered(300, 4), 7, niter=niter, nredo=2, tol=tol, advance=told.append)
    assert sum(told) == 2 * niter
