"""One small grid of made-up runs that several tests of the report look at."""

from __future__ import annotations

from typing import Any

import pytest

from dsel.record.reader import RunFolder
from dsel.report.match import Composer
from dsel.report.spec import read
from dsel.report.tables import Table, build
from tests.report.made import made_grid

SECTION: dict[str, Any] = {
    "title": "Made up",
    "paper": "Somebody 2024, Table 1",
    "rows": {"random": "selector=random", "k-Center": "selector=kcenter", "longest": "selector=longest"},
    "columns": {"accuracy": "procedural"},
    "baseline": "random",
    "seeds": [0, 1, 2],
    "published": {"random": {"accuracy": 41.0}, "longest": {"accuracy": 43.5}},
}


@pytest.fixture(scope="session")
def composer() -> Composer:
    return Composer(["experiments=quickstart"])


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Three seeds of random and k-Center, and one of k-means that no row is for."""
    rows = {
        "selector=random": [0.40, 0.44, 0.42],
        "selector=kcenter": [0.44, 0.47, 0.46],
        "selector=kmeans_closest": [0.30],
    }
    return made_grid(tmp_path_factory.mktemp("made"), "quickstart", rows)


@pytest.fixture
def table(made_runs: list[RunFolder], composer: Composer) -> Table:
    return build(read(SECTION).tables[0], made_runs, composer)
