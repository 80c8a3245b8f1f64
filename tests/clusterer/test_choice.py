"""k=auto: the k with the highest silhouette, and what it was compared with, kept and drawn."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dsel.cache import Cache
from dsel.clusterer import silhouette
from dsel.clusterer.choice import Choice, Trial
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.embedder.tfidf_svd import TfidfSvd
from dsel.errors import ConfigError
from dsel.stage import Stage
from dsel.study import Study
from tests.conftest import make_pool

FILES = ("k_selection.json", "k_selection.png")


def groups(count: int, each: int = 30, d: int = 12) -> np.ndarray:
    rng = np.random.default_rng(count)
    centres = 20 * rng.standard_normal((count, d))
    return (np.repeat(centres, each, axis=0) + rng.standard_normal((count * each, d))).astype(np.float32)


@pytest.mark.parametrize("exact_up_to", [0, 20_000])
@pytest.mark.parametrize(("count", "options"), [(5, {"k_grid": [2, 3, 4, 5, 6, 8, 12]}), (32, {}), (16, {})])
def test_finds_how_many_groups_there_are(count: int, options: dict, exact_up_to: int) -> None:
    found = FaissKMeans(k="auto", exact_up_to=exact_up_to, **options).cluster(groups(count))
    assert found.k == count
    assert found.choice is not None and found.choice.best.k == count
    grid = options.get("k_grid", [16, 32, 64, 128, 256])
    assert [trial.k for trial in found.choice.trials] == [k for k in grid if options or k <= count * 30 / 4]
    inertias = [trial.inertia for trial in found.choice.trials]
    assert inertias == sorted(inertias, reverse=True)


def test_finds_directions_when_spherical() -> None:
    x = groups(6) * np.random.default_rng(0).uniform(0.1, 10, (180, 1)).astype(np.float32)
    found = FaissKMeans(k="auto", k_grid=[2, 4, 6, 9, 15], spherical=True).cluster(x)
    assert found.k == 6


def test_is_the_clustering_of_the_k_it_found() -> None:
    chosen = FaissKMeans(k="auto", k_grid=[12, 5, 5, 8]).cluster(groups(8))
    given = FaissKMeans(k=8).cluster(groups(8))
    np.testing.assert_array_equal(chosen.labels, given.labels)
    np.testing.assert_array_equal(chosen.centroids, given.centroids)
    assert given.choice is None
    assert chosen.choice is not None and [trial.k for trial in chosen.choice.trials] == [5, 8, 12]


def test_silhouettes_are_exact_up_to_a_size_and_simplified_beyond() -> None:
    x = groups(6)
    for limit, form in [(len(x), "exact"), (len(x) - 1, "simplified")]:
        found = FaissKMeans(k="auto", k_grid=[4, 6], exact_up_to=limit).cluster(x)
        scores = {
            "exact": silhouette.silhouette(x, found.labels),
            "simplified": silhouette.simplified(x, found.labels, found.centroids),
        }
        assert found.choice is not None and found.choice.form == form
        assert found.choice.best.silhouette == pytest.approx(scores[form].mean(), abs=1e-6)


def test_equal_points_and_equal_silhouettes_give_the_fewest_clusters() -> None:
    assert FaissKMeans(k="auto", k_grid=[2, 3]).cluster(np.ones((9, 2), dtype=np.float32)).k == 2
    assert Choice("exact", (Trial(4, 0.5, 9.0), Trial(8, 0.5, 3.0))).best.k == 4


def test_each_k_and_the_chosen_one_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dsel.clusterer.faiss_kmeans"):
        FaissKMeans(k="auto", k_grid=[4, 6]).cluster(groups(6))
    lines = [line for line in caplog.messages if "silhouette" in line]
    assert [line.split(":")[0] for line in lines] == ["k=4", "k=6", "clusterer.k=auto"]
    assert "k=6 has the highest" in lines[-1]


@pytest.mark.parametrize(
    ("n", "k_grid", "grid"),
    [(64, None, [16]), (2048, None, [16, 32, 64, 128, 256, 512]), (10**6, None, [2**p for p in range(4, 14)]),
     (10, [9, 2, 9], [2, 9])],
)  # fmt: skip
def test_the_grid(n: int, k_grid: list[int] | None, grid: list[int]) -> None:
    clusterer = FaissKMeans(k="auto", k_grid=k_grid)
    clusterer.check_size(n)
    assert clusterer.grid(n) == grid


def test_a_pool_too_small_for_the_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="63 usable examples are few"):
        FaissKMeans(k="auto").check_size(63)
    with pytest.raises(ConfigError, match=r"clusterer\.k_grid goes beyond the pool: it has 10"):
        FaissKMeans(k="auto", k_grid=[4, 11]).cluster(np.ones((10, 2), dtype=np.float32))


@pytest.mark.parametrize("trials", [1, 2, 20])
def test_survives_the_disk_and_is_drawn(trials: int, tmp_path: Path) -> None:
    from matplotlib.image import imread

    choice = Choice("simplified", tuple(Trial(k, 1 / k, 9.0 / k) for k in range(2, 2 + trials)))
    choice.save(tmp_path)
    assert Choice.load(tmp_path) == choice
    picture = imread(tmp_path / "k_selection.png")  # raises for what is no whole PNG
    assert min(picture.shape[:2]) > 500
    assert picture[..., :3].std() > 0.02
    assert Choice.load(tmp_path / "nowhere") is None


def test_a_cached_clustering_knows_how_its_k_was_chosen(tmp_path: Path) -> None:
    stages: list[Stage] = []

    def stage(name: str) -> nullcontext:
        stages.append(Stage(name))
        return nullcontext(stages[-1])

    def study() -> Study:
        return Study(
            pool=make_pool(60), budget=5, rng=np.random.default_rng(0), embedder=TfidfSvd(),
            clusterer=FaissKMeans(k="auto", k_grid=[2, 3, 5]), scorer=None, cache=Cache(tmp_path), stage=stage,
        )  # fmt: skip

    first, second = study().clustering, study().clustering
    assert [(s.name, s.cached) for s in stages if s.name == "cluster"] == [("cluster", False), ("cluster", True)]
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.choice == second.choice and second.choice is not None
    (artifact,) = (tmp_path / "clusterings").glob("*/")
    assert set(FILES) <= {file.name for file in artifact.iterdir()}


def test_a_run_keeps_the_curves_and_the_clusters(
    dsel_run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for name, word in [("a", "computed"), ("b", "reused")]:
        done = dsel_run(
            "selector=kmeans_uniform", "data=procedural", "data.size=150", "budget=30", "embedder=tfidf_svd",
            "clusterer.k=auto", "clusterer.k_grid=[3,5,9]", "trainer=none", "evaluator=none", "tracker=none",
            f"runs={tmp_path / name}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"clusterings: {word}" in done.stderr
        (file,) = (tmp_path / name).glob("*/record.json")
        facts = json.loads(file.read_text())["clustering"]
        chosen = json.loads((file.parent / "k_selection.json").read_text())
        rows = pq.read_table(file.parent / "clusters.parquet").to_pylist()
        assert facts["k"] == chosen["k"] == len(rows)
        assert f"clusters: k={facts['k']}, " in done.stderr
        assert facts["silhouette"] == max(trial["silhouette"] for trial in chosen["trials"])
        assert facts["smallest"] == min(row["size"] for row in rows)
        assert "low_quality_clusters" not in facts
        assert (file.parent / "k_selection.png").read_bytes().startswith(b"\x89PNG")
