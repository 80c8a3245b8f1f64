import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dsel import blocks
from dsel.clusterer import device_points, kept, kmeans, points
from dsel.clusterer.device_points import DevicePoints
from dsel.clusterer.points import Points
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
    points = Points(x)
    state = kmeans.start(points, centroids, points.two_nearest(centroids))
    list(kmeans.lloyd(points, state, niter, 0.0, False))
    return state.labels, state.centroids, points.own_distances(state.centroids, state.labels)


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
        seen[tuple(kmeans._seeds(Points(x), 2, np.random.default_rng(seed))[0])] += 1
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
        seen[tuple(kmeans._seeds(Points(x), 3, np.random.default_rng(seed))[0])] += 1
    assert np.abs(seen / times - expected).max() < 0.03


@pytest.mark.parametrize("k", [0, 11])
def test_k_is_checked(k):
    with pytest.raises(ValueError, match="k must be between 1 and the 10 rows"):
        kmeans.fit(scattered(10, 2), k)


def test_seeds_know_the_two_nearest():
    x = scattered(700, 5)
    seeds, (labels, first, second) = kmeans._seeds(Points(x), 300, np.random.default_rng(0))
    expected = Points(x).two_nearest(x[seeds])
    assert len(set(seeds.tolist())) == 300
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_allclose(first, expected[1], atol=1e-5)
    np.testing.assert_allclose(second, expected[2], atol=1e-5)


def test_filling_empty_clusters_takes_the_farthest_points_and_what_is_near_them():
    x = np.array([[0], [1], [50], [51], [90]], dtype=np.float32)
    labels, centroids = np.zeros(5, dtype=np.int64), np.array([[0], [-900], [-900]], dtype=np.float32)
    distances = Points(x).own_distances(centroids, labels)
    kmeans.fill_empty(Points(x), labels, centroids, distances)
    assert centroids.ravel().tolist() == [0, 90, 50]
    assert labels.tolist() == [0, 0, 2, 2, 1] and distances.tolist() == [0, 1, 0, 1, 0]


@given(x=pools(), k=st.integers(1, 60), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_filling_leaves_none_empty_while_points_differ(x, k, seed):
    """Whatever the clusters were before; and each point is in no farther a cluster than it was."""
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((k, x.shape[1])).astype(np.float32)
    labels = squared(x, centroids).argmin(axis=1)
    distances = before = Points(x).own_distances(centroids, labels)
    distances = distances.copy()
    kmeans.fill_empty(Points(x), labels, centroids, distances)
    assert len(np.unique(labels)) == k or not distances.any()
    np.testing.assert_array_equal(distances, Points(x).own_distances(centroids, labels))
    assert (distances <= before).all()


@pytest.mark.parametrize(("niter", "tol"), [(1, 0.0), (3, 0.0), (500, 1e-3)])
def test_progress_adds_up_however_early_it_ends(niter, tol):
    told = []
    kmeans.fit(scattered(300, 4), 7, niter=niter, nredo=2, tol=tol, advance=told.append)
    assert sum(told) == 2 * niter


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("sample", [None, 250])
def test_a_matrix_on_disk_is_read_in_blocks(spherical, dtype, sample, tmp_path, monkeypatch):
    """What lies on disk, in half precision or in small blocks is clustered as the same rows in memory are."""
    x = scattered(700, 6).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    options = {"nredo": 2, "spherical": spherical, "sample": sample}
    expected = kmeans.fit(x.astype(np.float32), 12, **options)
    assert same(kmeans.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), 12, **options), expected)
    monkeypatch.setattr(blocks, "MEMORY", 100)
    monkeypatch.setattr(points, "PRODUCT", 500)
    monkeypatch.setattr(points, "COPY", 0)
    assert np.array_equal(kmeans.fit(x, 12, **options)[0], expected[0])


@pytest.mark.parametrize("spherical", [False, True])
def test_a_sample_is_trained_on_and_all_rows_join(spherical):
    x = scattered(3000, 5)
    labels, centroids, distances = kmeans.fit(x, 8, sample=400, nredo=2, spherical=spherical)
    assert not same((labels,), kmeans.fit(x, 8, sample=400, nredo=2, seed=7, spherical=spherical)[:1])
    if spherical:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    every = squared(x, centroids)
    np.testing.assert_array_equal(labels, every.argmin(axis=1))
    np.testing.assert_allclose(distances, every.min(axis=1), rtol=1e-4)
    assert distances.sum() < 1.03 * kmeans.fit(x, 8, nredo=2, spherical=spherical)[2].sum()


def test_centroids_of_a_sample_move_to_the_means_of_all_that_are_nearest():
    x = scattered(2000, 4)
    centroids = kmeans.sampled(Points(x), 10, seed=0)
    before = squared(x, centroids).argmin(axis=1)
    labels, _ = kmeans.close(Points(x), centroids, False)
    means = np.array([x[before == j].mean(axis=0) for j in range(10)])
    np.testing.assert_allclose(centroids, means, atol=1e-5)
    np.testing.assert_array_equal(labels, squared(x, centroids).argmin(axis=1))


def test_a_sample_has_as_many_rows_as_are_asked_for_and_no_row_twice():
    x = np.arange(50, dtype=np.float32)[:, None]
    drawn = kmeans.sampled(Points(x), 20, seed=1).ravel()
    assert len(set(drawn.tolist())) == 20 and (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(kmeans.sampled(Points(x), 90, seed=1), x)
    assert len(kmeans.fit(x, 30, sample=3)[1]) == 30  # and at least one for each cluster


def test_the_mean_of_a_large_cluster_is_that_of_its_rows_at_once(monkeypatch):
    x = scattered(900, 3)
    labels = np.zeros(900, dtype=np.int64)
    _, expected = Points(x).means(labels, np.array([True, True]))
    monkeypatch.setattr(blocks, "MEMORY", 50)
    which, means = Points(x).means(labels, np.array([True, True]))
    assert which.tolist() == [0] and np.array_equal(means, expected)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("sample", [None, 300])
def test_a_killed_run_goes_on_and_ends_bit_for_bit_the_same(sample, tmp_path, monkeypatch):
    """Killed again and again, wherever it is: each time a few iterations further."""
    monkeypatch.setattr(kept, "EVERY", 0)
    x = scattered(600, 6)
    expected = kmeans.fit(x, 15, nredo=3, niter=25, sample=sample)
    kills = 0
    for _ in range(200):
        left = 4

        def advance(count):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        try:
            found = kmeans.fit(x, 15, nredo=3, niter=25, sample=sample, folder=tmp_path, advance=advance)
            break
        except Killed:
            kills += 1
    assert same(found, expected)
    assert 3 < kills < 40
    told = []
    monkeypatch.setattr(kmeans, "lloyd", None)  # all is known
    assert same(kmeans.fit(x, 15, nredo=3, niter=25, sample=sample, folder=tmp_path, advance=told.append), expected)
    assert sum(told) == 75


def test_what_is_kept_is_written_now_and_then(tmp_path, monkeypatch):
    x = scattered(300, 4)
    kmeans.fit(x, 7, nredo=1, niter=4, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(kept, "EVERY", 0)
    expected = kmeans.fit(x, 7, nredo=1, niter=4, folder=tmp_path)
    (file,) = tmp_path.glob("shard-kmeans-7.safetensors")
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    assert same(kmeans.fit(x, 7, nredo=1, niter=4, folder=tmp_path), expected)


def on_torch(x, **options):
    return DevicePoints(x, torch.device("cpu"), **options)


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_device_computes_what_the_cpu_does(resident, spherical, dtype, monkeypatch):
    monkeypatch.setattr(DevicePoints, "_room", lambda self: resident * 1e9)
    monkeypatch.setattr(device_points, "BLOCK", 9000)
    x = scattered(800, 7).astype(dtype)
    ours, theirs = Points(x, spherical=spherical), on_torch(x, spherical=spherical)
    assert (theirs.there is not None) == resident
    centroids, some = ours.read(np.arange(30)), np.arange(5, 800, 3)
    for rows in (None, some):
        (labels, first, second), found = ours.two_nearest(centroids, rows), theirs.two_nearest(centroids, rows)
        np.testing.assert_array_equal(found[0], labels)
        np.testing.assert_allclose(found[1], first, atol=1e-5)
        np.testing.assert_allclose(found[2], second, atol=1e-5)
    labels, wanted = ours.two_nearest(centroids)[0], np.arange(31) % 3 > 0
    np.testing.assert_allclose(
        theirs.own_distances(centroids, labels), ours.own_distances(centroids, labels), atol=1e-5
    )
    (which, means), found = ours.means(labels, wanted), theirs.means(labels, wanted)
    np.testing.assert_array_equal(found[0], which)
    np.testing.assert_allclose(found[1], means, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(theirs.sums(labels, 31), ours.sums(labels, 31), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("sample", [None, 500])
def test_a_device_chooses_the_same_clusters(spherical, sample):
    x = scattered(900, 12)
    options = {"nredo": 2, "spherical": spherical, "sample": sample}
    ours, theirs = (kmeans.fit(x, 20, device=device, **options) for device in (None, torch.device("cpu")))
    np.testing.assert_array_equal(theirs[0], ours[0])
    np.testing.assert_allclose(theirs[1], ours[1], atol=1e-6)
    np.testing.assert_allclose(theirs[2], ours[2], atol=1e-5)
