"""Near-duplicates: against the definition, and in front of another selector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.selector import semdedup
from dsel.selector.base import Choose, Selection, Selector, Step, Train
from dsel.selector.semdedup import SemDedup, redundancy
from dsel.study import Study
from dsel.trainer.base import Training
from tests.test_study import Bench, Lengths, pool


def plain(x: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    centres = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    out = np.full(len(x), -1.0)
    for c in range(len(centroids)):
        members = sorted(np.flatnonzero(labels == c), key=lambda i: (float(unit[i] @ centres[c]), i))
        for rank, i in enumerate(members):
            if rank:
                out[i] = max(float(unit[i] @ unit[j]) for j in members[:rank])
    return out


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 10**6), st.integers(1, 50))
def test_redundancy_is_the_definition_whatever_the_block(n: int, k: int, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    labels = rng.integers(k, size=n)
    centroids = rng.normal(size=(k, 6)).astype(np.float32)
    before, semdedup.BLOCK = semdedup.BLOCK, block
    try:
        found = redundancy(x, labels, centroids)
    finally:
        semdedup.BLOCK = before
    np.testing.assert_allclose(found, plain(x, labels, centroids), atol=1e-5)


def test_torch_and_half_precision_on_disk_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(300, 6)).astype(np.float16))
    x, labels, centroids = (
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        rng.integers(3, size=300),
        rng.normal(size=(3, 6)),
    )
    wanted = plain(x.astype(np.float64), labels, centroids)
    monkeypatch.setattr(semdedup, "BLOCK", 16)
    np.testing.assert_allclose(redundancy(x, labels, centroids), wanted, atol=1e-5)
    monkeypatch.setattr(semdedup, "torch_device", lambda name: torch.device(name))
    np.testing.assert_allclose(redundancy(x, labels, centroids), wanted, atol=1e-5)


def test_of_exact_copies_one_is_left() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(10, 8)), 3, axis=0).astype(np.float32)
    similar = redundancy(x, np.zeros(30, dtype=int), x.mean(0, keepdims=True))
    kept = np.flatnonzero(similar <= 0.999)
    assert sorted(kept // 3) == list(range(10))


class Rounds(Selector):
    """Warms up on the last of what it is given; chooses the first, then the second, and so on.

    Trains on all so far, in every other round.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model"})

    def __init__(self) -> None:
        self.told: list[Any] = []

    def steps(self, study: Study, learner: Any) -> Iterator[Step]:
        yield Train(np.array([len(study.pool) - 1]), Training(epochs=1))
        for done in range(3):
            self.told.append(learner)
            study.note("asked", done + 1, {"index": np.array([done]), "of": np.array([len(study.pool)])})
            selection, so_far = Selection(np.array([done])), np.arange(done + 1)
            yield Choose(selection, Training(epochs=2, restart=False), so_far) if done % 2 else Choose(selection)


def test_rounds_of_another_selector_are_told_of_the_whole_pool(tmp_path: Path) -> None:
    whole = pool(12).take([0, 0, 0, 3, 3, 6, 7, 8, 9, 9, 10, 11])  # the copies are exact
    notes: list[Mapping[str, Any]] = []
    study = Bench(tmp_path).study(
        pool=whole, embedder=Lengths(), note=lambda table, round, columns: notes.append({"round": round, **columns})
    )
    selector = SemDedup(then=Rounds(), threshold=0.999999)
    assert selector.needs == {"embeddings", "clustering", "model"}
    kept = selector.kept(study)
    assert 3 < len(kept) < 12 and kept.tolist() != list(range(len(kept)))
    warmup, *rounds = selector.steps(study, "learner")  # type: ignore[arg-type]
    assert selector.then.told == ["learner"] * 3  # type: ignore[attr-defined]
    assert isinstance(warmup, Train) and warmup.examples.tolist() == [kept[-1]] and warmup.training.epochs == 1
    assert [r.selection.indices.tolist() for r in rounds] == [[k] for k in kept[:3]]  # type: ignore[union-attr]
    first, second, third = rounds
    assert first.on is None and third.on is None  # type: ignore[union-attr]
    assert second.examples.tolist() == kept[:2].tolist()
    assert (second.training.epochs, second.training.restart) == (2, False)
    assert [(n["round"], n["index"].tolist(), n["of"].tolist()) for n in notes] == [
        (i + 1, [kept[i]], [len(kept)]) for i in range(3)
    ]
