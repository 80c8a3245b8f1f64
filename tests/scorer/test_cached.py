"""Scores in a study: computed once, kept, and never without a number."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.component import knob
from dsel.pool import Pool
from dsel.scorer.base import Reader, Scorer, Scores
from dsel.scorer.length import Length
from dsel.scorer.none import NoScorer
from dsel.shards import HERE, Map, Read
from dsel.stage import Stage
from dsel.study import Study
from tests.scorer.pools import MIXED, pool_of

POOL = pool_of(*MIXED)


@dataclass
class Sizes(Reader):
    """The number of turns times `scale`, NaN for the examples in `bad`."""

    scale: float = 1.0
    bad: tuple[int, ...] = knob(())
    calls: list[int] = field(default_factory=list, metadata={"identity": False})

    def build(self) -> Read:
        def compute(rows: list[tuple[int, int]]) -> np.ndarray:
            self.calls.append(len(rows))
            return np.array([np.nan if i in self.bad else self.scale * turns / 2 for i, turns in rows])

        return compute

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        (scratch / "answers.jsonl").write_text("kept\n")
        rows = [(i, len(messages)) for i, messages in enumerate(pool.messages)]
        return self.read_all(rows, [1] * len(rows), scratch, engine, title="sizes").astype(np.float32)


def study(cache: Cache, scorer: Scorer, stages: list[Stage], pool: Pool = POOL) -> Study:
    @contextmanager
    def stage(name: str) -> Iterator[Stage]:
        stages.append(Stage(name))
        yield stages[-1]

    generator = np.random.default_rng(0)
    return Study(pool, 2, generator, embedder=None, clusterer=None, scorer=scorer, cache=cache, stage=stage)


def test_scores_are_computed_once_and_kept(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    scorer, stages = Sizes(), list[Stage]()
    first = study(cache, scorer, stages)
    assert first.quality is first.quality and first.quality is not None
    assert first.quality.dtype == np.float32
    np.testing.assert_array_equal(first.quality, [len(chat) for chat in MIXED])
    with caplog.at_level(logging.INFO, "dsel.study"):
        np.testing.assert_array_equal(study(cache, scorer, stages).quality_or_fail(), first.quality)
    assert [(stage.name, stage.cached, stage.items) for stage in stages] == [("score", False, 7), ("score", True, 7)]
    assert len(scorer.calls) == 1 and "scores: reused from the cache" in caplog.text
    files = {p.name for p in cache.folder.rglob("*") if p.is_file() and p.suffix not in (".lock", ".use")}
    assert files == {"scores.npy", "key.json", "answers.jsonl", "spent.json"}


def test_what_is_reused_depends_on_scorer_and_pool(cache: Cache) -> None:
    stages: list[Stage] = []
    for scorer, pool in [(Sizes(), POOL), (Sizes(scale=2), POOL), (Sizes(), POOL.take([1, 0])), (Length(), POOL)]:
        assert study(cache, scorer, stages, pool).quality is not None
    assert not any(stage.cached for stage in stages)
    assert study(cache, Sizes(bad=(3,)), stages).quality is not None
    assert stages[-1].cached


def test_scores_that_are_no_numbers_are_named_and_computed_anew(cache: Cache) -> None:
    with pytest.raises(ValueError, match=r"NaN or infinity for 2 examples \(ids e1, e4\)"):
        _ = study(cache, Sizes(bad=(4, 1)), []).quality
    assert not list(cache.folder.rglob("scores.npy"))
    repaired = Sizes()
    assert np.isfinite(study(cache, repaired, []).quality_or_fail()).all()
    assert len(repaired.calls) == 1


def test_no_scorer_leaves_no_trace(cache: Cache) -> None:
    stages: list[Stage] = []
    assert study(cache, NoScorer(), stages).quality is None
    assert not stages and not cache.folder.exists()
