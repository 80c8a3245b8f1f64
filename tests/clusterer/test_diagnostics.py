"""What is said of each cluster, against a plain loop over clusters and members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dsel.clusterer import diagnostics
from dsel.clusterer.base import Clustering
from dsel.clusterer.choice import Choice, Trial
from dsel.clusterer.diagnostics import report, table
from tests.conftest import make_pool


def by_loop(labels, distances, ids, sources, quality, k, low, medoids):  # type: ignore[no-untyped-def]
    rows = []
    for cluster in range(k):
        members = [i for i in range(len(labels)) if labels[i] == cluster]
        scores = [quality[i] for i in members if quality is not None and not np.isnan(quality[i])]
        mean = sum(scores) / len(scores) if scores else None
        counts = sorted(Counter(sources[i] for i in members).items(), key=lambda item: -item[1])
        rows.append(
            {
                "cluster": cluster,
                "size": len(members),
                "mean_quality": mean,
                "share_low_quality": sum(s < low for s in scores) / len(scores) if scores else None,
                "low_quality": mean < low if scores else None,
                "medoids": [ids[i] for i in sorted(members, key=lambda i: (distances[i], i))[:medoids]],
                "sources": {name: count / len(members) for name, count in counts},
            }
        )
    return rows


@given(n=st.integers(1, 60), k=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), scored=st.booleans())
@settings(deadline=None, max_examples=150)
def test_equals_a_plain_loop(n: int, k: int, seed: int, scored: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    distances = rng.integers(0, 5, n).astype(np.float32)  # with ties
    ids, sources = [f"e{i}" for i in range(n)], [f"s{i}" for i in rng.integers(0, 4, n)]
    quality = np.where(rng.random(n) < 0.2, np.nan, rng.random(n)) if scored else None
    found = table(labels, distances, ids, sources, quality, k=k, low_quality=0.4, medoids=2).to_pylist()
    for row, expected in zip(found, by_loop(labels, distances, ids, sources, quality, k, 0.4, 2), strict=True):
        shares = list(dict(row["sources"]).values())
        assert shares == sorted(shares, reverse=True)
        assert dict(row.pop("sources")) == pytest.approx(expected.pop("sources"))
        assert row.pop("mean_quality") == pytest.approx(expected.pop("mean_quality"))
        assert row.pop("share_low_quality") == pytest.approx(expected.pop("share_low_quality"))
        assert row == expected


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 labels need as many distances"):
        table([0, 1, 0], [1.0, 1.0], ["a", "b", "c"], ["s"] * 3)
    with pytest.raises(ValueError, match="labels must be from 0 to 1"):
        table([0, 2], [1.0, 1.0], ["a", "b"], ["s"] * 2, k=2)


class Counted(Sequence[str]):
    """Texts made when they are asked for, which counts them."""

    def __init__(self, n: int, name: Callable[[int], str]):
        self.n, self.name, self.singly = n, name, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.name(i) for i in range(*index.indices(self.n))]
        self.singly += 1
        return self.name(index)


def test_sources_are_read_in_blocks_and_ids_of_medoids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "BLOCK", 7)
    labels, distances = np.arange(100) % 4, np.arange(100.0)
    ids, sources = Counted(100, lambda i: f"e{i}"), Counted(100, lambda i: f"s{i % 3}")
    found = table(labels, distances, ids, sources)
    assert found.equals(table(labels, distances, list(ids[:]), list(sources[:])))
    assert ids.singly == 12 and sources.singly == 0


def clustering(choice: Choice | None = None) -> Clustering:
    labels = np.array([0, 0, 0, 0, 0, 2, 2, 2, 1, 1])
    return Clustering(labels, np.zeros((3, 2), dtype=np.float32), np.arange(10, dtype=np.float32), choice)


def test_a_report_sums_the_table_up() -> None:
    quality = np.array([0.1, 0.2, 0.3, 0.2, 0.2, 0.9, 0.8, 0.7, 0.5, 0.5])
    facts, table = report(clustering(), make_pool(10), quality, low_quality=0.3)
    assert facts == {
        "k": 3, "inertia": 45.0, "smallest": 2, "median": 3.0, "largest": 5,
        "low_quality_below": 0.3, "low_quality_clusters": pytest.approx(1 / 3),
    }  # fmt: skip
    rows = table.to_pylist()
    assert [row["medoids"] for row in rows] == [["e0", "e1", "e2"], ["e8", "e9"], ["e5", "e6", "e7"]]
    assert dict(rows[0]["sources"]) == {"even": 0.6, "odd": 0.4}


def test_without_quality_nothing_is_said_of_it_and_a_chosen_k_is_explained() -> None:
    choice = Choice("exact", (Trial(2, 0.1, 60.0), Trial(3, 0.4, 45.0)))
    facts, table = report(clustering(choice), make_pool(10), None, low_quality=0.3)
    assert "low_quality_clusters" not in facts
    assert (facts["silhouette"], facts["silhouette_form"]) == (0.4, "exact")
    assert table["mean_quality"].null_count == 3
