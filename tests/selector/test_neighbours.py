"""The graph of nearest neighbours, and the greedy on it beside the exact one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dsel.arrays import unit_rows
from dsel.selector import facility_location, neighbours, qdit
from dsel.selector.facility_location import FacilityLocation
from dsel.selector.neighbours import Graph, build
from dsel.selector.qdit import QDIT
from tests.selector.pools import scattered
from tests.test_study import Bench


def cosines(x: np.ndarray) -> np.ndarray:
    unit = unit_rows(x)
    result = unit @ unit.T
    np.fill_diagonal(result, -np.inf)
    return result


def graph(x: np.ndarray, k: int, folder: Path) -> Graph:
    build(x, k, folder)
    return Graph.load(folder)


def value(x: np.ndarray, chosen: np.ndarray) -> float:
    unit = unit_rows(x)
    return float((unit @ unit[chosen].T).max(axis=1).sum())


def test_nearly_all_neighbours_are_found_with_their_similarities(tmp_path: Path) -> None:
    x = scattered(3000, 24)
    found, wanted = graph(x, 10, tmp_path), cosines(x)
    rows = np.arange(3000)[:, None]
    np.testing.assert_allclose(found.similarities, wanted[rows, found.nearest], atol=1e-5)
    nearest = np.sort(wanted, axis=1)[:, -10]
    assert (found.similarities >= nearest[:, None] - 1e-5).mean() > 0.97
    assert all(len(set(row)) == 10 for row in found.nearest.tolist())


@pytest.mark.parametrize("n, k", [(1, 3), (2, 3), (40, 60), (40, 39)])
def test_few_examples_have_all_others_as_neighbours(n: int, k: int, tmp_path: Path) -> None:
    found = graph(scattered(n, 5), k, tmp_path)
    assert found.nearest.shape == (n, n - 1)
    assert [sorted(row) for row in found.nearest.tolist()] == [[j for j in range(n) if j != i] for i in range(n)]


def test_rows_on_disk_in_half_precision_have_the_same_graph_each_time(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", scattered(500, 8).astype(np.float16))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    once, again = tmp_path / "once", tmp_path / "again"
    for folder, rows in ((once, x), (again, x.astype(np.float32))):
        folder.mkdir()
        build(rows, 7, folder)
    assert [(once / f"{name}.npy").read_bytes() for name in ("nearest", "similarities")] == [
        (again / f"{name}.npy").read_bytes() for name in ("nearest", "similarities")
    ]


def test_a_cell_of_copies_falls_into_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(neighbours, "LARGE", 1)
    x = np.concatenate([np.ones((300, 8)), scattered(100, 8)])
    found = graph(x, 5, tmp_path)
    np.testing.assert_allclose(found.similarities[:300], 1, atol=1e-5)
    assert (found.nearest[:300] < 300).all()


def test_torch_compares_all_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(neighbours, "torch_device", lambda name: torch.device("cpu"))
    x = scattered(300, 6)
    found, wanted = graph(x, 9, tmp_path), cosines(x)
    assert [set(row) for row in found.nearest.tolist()] == [set(row) for row in np.argsort(-wanted)[:, :9].tolist()]
    np.testing.assert_allclose(np.sort(found.similarities), np.sort(wanted)[:, -9:], atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_its_value_is_that_of_the_exact_greedy(alpha: float, tmp_path: Path) -> None:
    # Groups far larger than the graph sees, as in pools of templates.
    x = np.concatenate([scattered(1200, 24), scattered(300, 24, seed=1)[:3].repeat(100, axis=0)])
    x[1200:] += 0.05 * np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
    quality = np.random.default_rng(1).random(len(x))

    def total(chosen: np.ndarray) -> float:
        return (1 - alpha) * value(x, chosen) + alpha * quality[chosen].sum()

    ours = neighbours.greedy(x, graph(x, 10, tmp_path), 75, weight=1 - alpha, bonus=alpha * quality)
    assert len(set(ours.tolist())) == 75
    assert total(ours) >= 0.99 * total(qdit.greedy(x, quality, 75, alpha=alpha))


def test_with_all_pairs_it_is_the_exact_greedy_until_examples_are_looked_at_together(tmp_path: Path) -> None:
    x = scattered(200, 6)
    ours = neighbours.greedy(x, graph(x, 199, tmp_path), 60)
    np.testing.assert_array_equal(ours, facility_location.greedy(x, 60))


def test_equal_points_come_in_order(tmp_path: Path) -> None:
    x = np.ones((20, 3))
    np.testing.assert_array_equal(neighbours.greedy(x, graph(x, 4, tmp_path), 20), np.arange(20))


@pytest.mark.parametrize("selector", [FacilityLocation(neighbours=5), QDIT(neighbours=5)])
def test_the_graph_is_in_the_cache(selector: FacilityLocation | QDIT, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = selector.select(bench.study()).indices
    again = bench.study()
    np.testing.assert_array_equal(selector.select(again).indices, first)
    assert [stage.cached for stage in bench.stages if stage.name == "neighbours"] == [False, True]
