"""What is spent is counted where it is spent, once, and kept with what it was spent on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.shards import HERE
from dsel.spent import FILE, Spent, counted, device, keep, kept, settle, spend
from tests.test_study import Bench


def test_what_is_inside_is_for_its_own_account() -> None:
    spend(1.0)  # nobody counts
    with counted() as outer:
        spend(10.0, 2)
        with counted() as inner:
            spend(100.0, 3)
        spend(1.0)
    assert (outer.flops, outer.tokens) == (11.0, 2) and (inner.flops, inner.tokens) == (100.0, 3)
    assert outer.seconds >= inner.seconds > 0 and outer.device == device()
    with counted() as nothing:
        pass
    assert nothing.flops is None  # which is not 0


def test_a_part_that_was_there_brings_its_seconds_along() -> None:
    with counted() as whole:
        settle(Spent(5.0, 7.0, 2, "a GPU"), before=True)
        settle(Spent(3.0, None, 1), before=False)
    assert (whole.flops, whole.tokens, whole.device) == (7.0, 3, "a GPU")
    assert 5.0 <= whole.seconds < 6.0


def test_it_is_kept_in_a_folder(tmp_path: Path) -> None:
    assert kept(tmp_path) is None
    keep(Spent(1.0, 2.0, 3, "cpu"), tmp_path)
    assert kept(tmp_path) == Spent(1.0, 2.0, 3, "cpu")


@dataclass(frozen=True)
class Reads:
    """A worker that counts ten operations a row, and dies at the row `dies`."""

    dies: int = -1
    shard_size: int = 2
    suffix: str = ".npy"

    def build(self) -> Any:
        def read(rows: list[int]) -> Any:
            if self.dies in rows:
                raise RuntimeError
            spend(10.0 * len(rows), len(rows))
            return np.array(rows, dtype=np.float64)

        return read


@pytest.mark.parametrize("way", ["map", "fill"])
def test_shards_of_a_killed_run_count(tmp_path: Path, way: str) -> None:
    def run(worker: Reads) -> None:
        if way == "map":
            HERE.map(worker, list(range(6)), tmp_path, title="reading")
        else:
            HERE.fill(worker, list(range(6)), tmp_path / "out.npy", title="reading")

    with pytest.raises(RuntimeError):
        run(Reads(dies=5))
    with counted() as spent:
        run(Reads())
    assert (spent.flops, spent.tokens) == (60.0, 6)
    with counted() as again:
        run(Reads(dies=0))  # which nobody asks
    assert (again.flops, again.tokens) == (60.0, 6)


def test_an_artifact_that_is_found_costs_what_it_cost(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def build(folder: Path) -> None:
        spend(42.0, 7)
        (folder / "a").write_text("a")

    folder = [bench.study().artifact("score", "scores", {"a": 1}, build) for _ in range(2)][0]
    first, again = (stage.to_dict() for stage in bench.stages)
    assert (first["cached"], again["cached"]) == (False, True)
    assert first["artifact"] == again["artifact"] == f"scores/{folder.name}"
    assert first["spent"] == again["spent"] and (first["spent"]["flops"], first["spent"]["tokens"]) == (42.0, 7)
    assert json.loads((folder / FILE).read_text()) == first["spent"]
    other = bench.study().artifact("score", "scores", {"b": 1}, lambda to: np.save(to / "b.npy", np.zeros(1)))
    uncounted = kept(other)
    assert uncounted is not None and uncounted.flops is None
