import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dsel.clusterer import silhouette
from tests.selector.pools import pools, scattered


def by_definition(x, labels):
    x, scores = x.astype(np.float64), []
    distances = np.sqrt(np.square(x[:, None] - x).sum(axis=2))
    for i, label in enumerate(labels):
        same = labels == label
        if same.sum() == 1:
            scores.append(0.0)
            continue
        a = distances[i, same].sum() / (same.sum() - 1)
        b = min(distances[i, labels == other].mean() for other in np.unique(labels) if other != label)
        scores.append((b - a) / max(a, b) if max(a, b) else 0.0)
    return np.array(scores)


@given(x=pools(), k=st.integers(2, 12), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_equals_the_definition(x, k, seed):
    labels = np.random.default_rng(seed).integers(0, k, len(x))
    if len(np.unique(labels)) < 2:
        return
    np.testing.assert_allclose(silhouette.silhouette(x, labels), by_definition(x, labels), atol=1e-5)


@pytest.mark.parametrize(("tile", "rows"), [(4_000_000, 2048), (1000, 17)])
@pytest.mark.parametrize("offset", [0, 100])
def test_equals_scikit_learn(tile, rows, offset, monkeypatch):
    from sklearn.metrics import silhouette_samples

    monkeypatch.setattr(silhouette, "TILE", tile)
    monkeypatch.setattr(silhouette, "ROWS", rows)
    x = scattered(900, 20)
    labels = np.square(x[:, None] - x[None, :40]).sum(axis=2).argmin(axis=1)
    x += offset
    expected = silhouette_samples(x.astype(np.float64), labels)
    np.testing.assert_allclose(silhouette.silhouette(x, labels), expected, atol=1e-4)


def test_labels_may_have_gaps():
    x = scattered(50, 3)
    labels = np.arange(50) % 3
    np.testing.assert_array_equal(silhouette.silhouette(x, 10 * labels - 4), silhouette.silhouette(x, labels))


def test_simplified_equals_its_definition():
    x, centroids = scattered(300, 8), scattered(12, 8, seed=5)
    distances = np.linalg.norm(x[:, None].astype(np.float64) - centroids, axis=2)
    labels = np.random.default_rng(0).integers(0, 12, 300)
    labels[labels == 3] = 4
    labels[77] = 3
    a = distances[np.arange(300), labels]
    b = np.where(np.arange(12) == labels[:, None], np.inf, distances).min(axis=1)
    expected = np.where(np.arange(300) == 77, 0, (b - a) / np.maximum(a, b))
    np.testing.assert_allclose(silhouette.simplified(x, labels, centroids), expected, atol=1e-5)


@pytest.mark.parametrize("tile", [60, 4_000_000])
def test_simplified_reads_half_precision_and_directions_block_by_block(tile, monkeypatch):
    monkeypatch.setattr(silhouette, "TILE", tile)
    x, centroids, labels = scattered(100, 6).astype(np.float16), scattered(12, 6, seed=5), np.arange(100) % 12
    single = x.astype(np.float32)
    expected = silhouette.simplified(single, labels, centroids)
    np.testing.assert_allclose(silhouette.simplified(x, labels, centroids), expected, atol=1e-6)
    unit = single / np.linalg.norm(single, axis=1, keepdims=True)
    expected = silhouette.simplified(unit, labels, centroids)
    np.testing.assert_allclose(silhouette.simplified(x, labels, centroids, spherical=True), expected, atol=1e-6)


def test_bad_arguments():
    x = scattered(10, 2)
    with pytest.raises(ValueError, match="at least two clusters"):
        silhouette.silhouette(x, np.zeros(10, dtype=int))
    with pytest.raises(ValueError, match="each of 10 rows"):
        silhouette.silhouette(x, np.arange(9) % 2)
    with pytest.raises(ValueError, match="labels must be from 0 to 2"):
        silhouette.simplified(x, np.arange(10), x[:3])
    with pytest.raises(ValueError, match="columns"):
        silhouette.simplified(x, np.arange(10) % 2, np.ones((2, 3)))
