"""What a selector is given: computed when it is asked for, once, and kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.clusterer.base import Clustering
from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.component import knob
from dsel.embedder import base
from dsel.embedder.base import Embedder, Vectors
from dsel.embedder.tfidf_svd import TfidfSvd
from dsel.pool import Example, Message, Pool
from dsel.reading import Counts, note_cut
from dsel.scorer.none import NoScorer
from dsel.selector.random import Random
from dsel.shards import HERE, Map
from dsel.stage import Stage
from dsel.study import Study
from tests.conftest import make_pool


class Calls:
    """A counter that components carry without it being part of their identity."""

    def __init__(self) -> None:
        self.n = 0


def calls() -> Any:
    return field(default_factory=Calls, metadata={"identity": False})


@dataclass
class Lengths(Embedder):
    """Embeds a text as (its length, its length modulo 3) times `scale`, and can fail on some."""

    scale: float = 1.0
    nan_for: str = knob("")
    calls: Calls = calls()

    def encode(self, texts: list[str]) -> Vectors:
        self.calls.n += 1
        rows = [[len(t), len(t) % 3] for t in texts]
        bad = [bool(self.nan_for) and self.nan_for in t for t in texts]
        return np.where(np.array(bad)[:, None], np.nan, np.array(rows) * self.scale).astype(np.float32)


@dataclass
class Thirds:
    """Clusters by the second coordinate."""

    name: str = "thirds"
    calls: Calls = calls()

    def cluster(self, x: np.ndarray) -> Clustering:
        self.calls.n += 1
        labels = np.unique(x[:, 1], return_inverse=True)[1].astype(np.int64)
        centroids = np.stack([x[labels == c].mean(0) for c in range(labels.max() + 1)])
        return Clustering(labels, centroids, ((x - centroids[labels]) ** 2).sum(1))


@dataclass
class Scores:
    calls: Calls = calls()

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> np.ndarray:
        self.calls.n += 1
        return np.arange(len(pool), dtype=np.float32)


def pool(n: int = 10, word: str = "word ") -> Pool:
    def messages(i: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": word * i + f"#{i}"}, {"role": "assistant", "content": "yes"}]

    return Pool.build("p", [Example(f"id-{i}", messages(i), "s", {}) for i in range(n)])


@dataclass
class Bench:
    """A cache folder, and the stages that all studies made here went through."""

    folder: Path
    stages: list[Stage] = field(default_factory=list)

    def study(self, **parts: Any) -> Study:
        @contextmanager
        def stage(name: str) -> Iterator[Stage]:
            self.stages.append(Stage(name))
            yield self.stages[-1]

        given: dict[str, Any] = {
            "pool": pool(),
            "budget": 3,
            "rng": np.random.default_rng(0),
            "embedder": Lengths(),
            "clusterer": Thirds(),
            "scorer": Scores(),
        }
        return Study(cache=Cache(self.folder), stage=stage, **(given | parts))

    @property
    def seen(self) -> list[tuple[str, bool]]:
        return [(stage.name, stage.cached) for stage in self.stages]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def counts(study: Any) -> tuple[int, int, int]:
    return study.embedder.calls.n, study.clusterer.calls.n, study.scorer.calls.n


def test_nothing_is_computed_that_nobody_asks_for(bench: Bench) -> None:
    study = bench.study()
    (step,) = Random().steps(study, None)
    assert len(step.examples) == 3
    assert counts(study) == (0, 0, 0)
    assert bench.stages == []


def test_each_part_is_computed_once_and_brings_only_what_it_needs(bench: Bench) -> None:
    study = bench.study()
    assert study.quality is study.quality
    assert counts(study) == (0, 0, 1)
    assert study.embeddings is study.embeddings
    assert counts(study) == (1, 0, 1)
    assert study.clustering is study.clustering
    assert counts(study) == (1, 1, 1)
    assert bench.seen == [("score", False), ("embed", False), ("cluster", False)]
    assert [stage.items for stage in bench.stages] == [10, 10, 10]


def test_a_clustering_brings_its_embeddings(bench: Bench) -> None:
    study = bench.study()
    assert study.clustering.k == 3
    assert bench.seen == [("embed", False), ("cluster", False)]


def test_the_second_run_reads_what_the_first_computed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    first = bench.study()
    labels, vectors = first.clustering.labels, np.array(first.embeddings)
    bench.stages.clear()
    second = bench.study()
    with caplog.at_level(logging.INFO, "dsel.study"):
        np.testing.assert_array_equal(second.clustering.labels, labels)
        np.testing.assert_array_equal(second.embeddings, vectors)
    assert counts(second) == (0, 0, 0)
    assert bench.seen == [("embed", True), ("cluster", True)]
    assert sum("reused from the cache" in line for line in caplog.messages) == 2


def test_embeddings_are_in_the_pools_order_and_read_only(bench: Bench) -> None:
    study = bench.study()
    assert study.embeddings.dtype == np.float32
    np.testing.assert_array_equal(study.embeddings[:, 0], [len(text) for text in study.pool.texts])
    with pytest.raises(ValueError, match="read-only"):
        study.embeddings[0, 0] = 1


def test_damaged_embeddings_have_no_width_and_are_made_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    study = bench.study()
    expected = np.array(study.embeddings)
    file = study.cache.path("embeddings", study.key("embeddings")) / "embeddings.npy"
    for damaged in (file.read_bytes()[:-8], b"", b"[]"):
        file.write_bytes(damaged)
        assert bench.study().dimensions == 1024
        np.testing.assert_array_equal(bench.study().embeddings, expected)
        assert "is damaged" in caplog.text and bench.study().dimensions == 2
        caplog.clear()


def test_shards_are_cleared_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SHARD", 4)
    assert len(bench.study().embeddings) == 10
    files = {p.name for p in bench.folder.rglob("*") if p.is_file() and p.suffix not in (".lock", ".use")}
    assert files == {"embeddings.npy", "key.json", "spent.json"}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, [("embed", True), ("cluster", True)]),
        ({"scorer": None}, [("embed", True), ("cluster", True)]),
        ({"embedder": Lengths(nan_for="never")}, [("embed", True), ("cluster", True)]),
        ({"clusterer": Thirds(name="other")}, [("embed", True), ("cluster", False)]),
        ({"embedder": Lengths(scale=2)}, [("embed", False), ("cluster", False)]),
        ({"pool": pool(word="else ")}, [("embed", False), ("cluster", False)]),
        ({"pool": pool().take([1, 0, *range(2, 10)])}, [("embed", False), ("cluster", False)]),
    ],
    ids=["same", "scorer", "knob", "clusterer", "embedder", "pool", "order"],
)
def test_what_is_reused_depends_on_what_went_in(
    bench: Bench, parts: dict[str, Any], expected: list[tuple[str, bool]]
) -> None:
    assert bench.study().clustering.k == 3
    bench.stages.clear()
    study = bench.study(**parts)
    assert study.clustering.k == 3
    assert bench.seen == expected
    np.testing.assert_array_equal(study.clustering.labels, np.unique(study.embeddings[:, 1], return_inverse=True)[1])


def test_embeddings_that_are_not_numbers_are_refused_by_name(bench: Bench) -> None:
    study = bench.study(embedder=Lengths(nan_for="#7"))
    with pytest.raises(ValueError, match=r"NaN or infinity for 1 examples \(ids id-7\)"):
        _ = study.embeddings
    assert not list(bench.folder.rglob("embeddings.npy"))


def test_after_bad_embeddings_the_next_run_computes_them_anew(bench: Bench) -> None:
    with pytest.raises(ValueError, match="NaN"):
        _ = bench.study(embedder=Lengths(nan_for="#7")).embeddings
    repaired = bench.study()
    assert np.isfinite(repaired.embeddings).all()
    assert counts(repaired)[0] == 1


def test_a_killed_embedding_goes_on_from_its_shards(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SHARD", 4)

    @dataclass
    class Dies(Lengths):
        def encode(self, texts: list[str]) -> Vectors:
            if self.calls.n == 2 and self.nan_for == "dies":
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        _ = bench.study(embedder=Dies(nan_for="dies")).embeddings
    again = bench.study(embedder=Dies())
    np.testing.assert_array_equal(again.embeddings[:, 0], [len(text) for text in again.pool.texts])
    assert counts(again)[0] == 1


def test_what_is_not_read_is_said_each_time(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """When it is computed and when it is reused; of embeddings and of scores; once a stage."""

    @dataclass
    class Short(Lengths):
        def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
            vectors, counts = super().read(conversations)
            counts[:] = [[20, 15, 15]]
            return vectors, counts

    @dataclass
    class Brief(Scores):
        def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> np.ndarray:
            counts = np.full((len(pool), 3), 5)
            counts[0] = [9, 5, 5]
            note_cut(scratch, "brief scorer", counts, "write less")
            return super().score(pool, scratch, engine)

    for cached in (False, True):
        caplog.clear()
        study = bench.study(embedder=Short(), scorer=Brief())
        assert len(study.restrict(np.array([1, 2])).embeddings) == 2
        assert study.quality is not None
        embed, score = bench.stages[-2:]
        assert (embed.cached, score.cached) == (cached, cached)
        assert embed.to_dict()["cut"][0]["tokens"] == 50 and score.to_dict()["cut"][0]["texts"] == 1
        lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert len(lines) == 2
        assert lines[0].startswith("10 of 10 texts are longer than the 15 tokens that the embedder reads: 25.0 % of")
        assert lines[1].startswith("1 of 10 texts are longer than the 5 tokens that the brief scorer reads: 44.4 % of")
    assert "cut" not in Stage("embed").to_dict()


# --- part of a study ---


def test_a_part_cuts_what_the_whole_has_computed(bench: Bench) -> None:
    whole = bench.study()
    kept = np.array([7, 2, 5])
    part = whole.restrict(kept)
    assert part.pool.ids == ["id-7", "id-2", "id-5"]
    np.testing.assert_array_equal(part.embeddings, whole.embeddings[kept])
    np.testing.assert_array_equal(part.clustering.labels, whole.clustering.labels[kept])
    np.testing.assert_array_equal(part.clustering.distances, whole.clustering.distances[kept])
    assert part.clustering.k == whole.clustering.k
    assert part.quality is not None and whole.quality is not None
    np.testing.assert_array_equal(part.quality, whole.quality[kept])
    assert counts(whole) == (1, 1, 1)
    assert part.rng is whole.rng and part.budget == whole.budget


def test_a_part_speaks_of_the_whole_pools_examples(bench: Bench) -> None:
    notes: list[Any] = []
    asked: list[Any] = []

    def verify(indices: np.ndarray, responses: Sequence[str]) -> np.ndarray:
        asked.append((indices.tolist(), list(responses)))
        return np.array([i % 2 == 0 for i in indices])

    whole = bench.study(note=lambda *note: notes.append(note), verify=verify)
    part = whole.restrict(np.array([7, 2, 5]))
    smaller = part.restrict(np.array([2, 0]))  # 5 and 7
    for study, index, expected in ((part, [1, 0], [2, 7]), (smaller, [1, 0, 1], [7, 5, 7])):
        study.note("answers", 3, {"index": np.array(index), "cluster": np.array(index)})
        table, round, columns = notes.pop()
        assert (table, round) == ("answers", 3)
        assert columns["index"].tolist() == expected and columns["cluster"].tolist() == index
        assert study.verify is not None
        right = study.verify(np.array(index), ["x"] * len(index))
        assert asked.pop() == (expected, ["x"] * len(index))
        assert right.tolist() == [i % 2 == 0 for i in expected]
    columns = {"cluster": np.array([1, 0])}
    part.note("weights", 1, columns)
    assert notes == [("weights", 1, columns)]


def test_a_study_without_notes_and_truth_has_parts_without(bench: Bench) -> None:
    part = bench.study().restrict(np.array([1]))
    part.note("answers", 1, {"index": np.array([0])})
    assert part.verify is None


def test_a_study_of_other_texts_keeps_its_notes_and_scores(bench: Bench) -> None:
    """What an iterative selector hands to a feedback, also of a part."""
    part = bench.study(verify=lambda indices, responses: indices == 7).restrict(np.array([7, 2]))
    other = replace(part, pool=part.pool.answered(["no", "perhaps"]))
    assert other.pool.responses == ["no", "perhaps"] and part.pool.responses == ["yes", "yes"]
    assert other.verify is not None and other.verify(np.array([1, 0]), ["", ""]).tolist() == [False, True]
    assert part.quality is not None and part.quality.tolist() == [7, 2]


# --- scores of other texts ---


def test_scores_are_kept_for_each_pool_and_scorer(bench: Bench) -> None:
    study, scorer = bench.study(), Scores()
    few = study.pool.take([3, 1, 2])
    assert study.scores(scorer, few).tolist() == [0, 1, 2]
    assert study.scores(scorer, few.answered(["a", "b", "c"])).tolist() == [0, 1, 2]
    assert study.scores(scorer, few).dtype == np.float32
    assert scorer.calls.n == 2
    assert bench.seen == [("score", False), ("score", False), ("score", True)]
    assert [stage.items for stage in bench.stages] == [3, 3, 3]


def test_bad_scores_name_the_examples_they_are_of(bench: Bench) -> None:
    @dataclass
    class Bad(Scores):
        def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> np.ndarray:
            return np.array([0, np.nan], dtype=np.float32)

    study = bench.study()
    with pytest.raises(ValueError, match=r"the scorer returned NaN or infinity for 1 examples \(ids id-8\)"):
        study.scores(Bad(), study.pool.take([4, 8]))


def test_a_k_that_follows_the_pool_is_the_number_it_comes_to(tmp_path: Path) -> None:
    """In what clusters are known by: the same are found again, however k was said."""

    def study(**clusterer: Any) -> Study:
        parts = {"embedder": TfidfSvd(min_df=1), "scorer": NoScorer(), "clusterer": FaissKMeans(nredo=1, **clusterer)}
        return Study(make_pool(36), 5, np.random.default_rng(0), **parts, cache=Cache(tmp_path))

    follows, given = study(), study(k=6)
    assert follows.clustering.k == 6
    assert follows.key("clustering") == given.key("clustering") and given.is_cached("clustering")
    half = follows.restrict(np.arange(9))
    assert half.clusters(3).k == 3 and half.clusterer is follows.clusterer
