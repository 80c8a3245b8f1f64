"""What is said once of each thing that a selector may read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsel.config_groups import GROUPS
from dsel.errors import ConfigError
from dsel.resources import POOL, RESOURCES, closure, keep, makers
from dsel.study import Study
from tests.conftest import make_pool
from tests.test_study import Bench


def test_a_resource_comes_after_what_it_is_made_of() -> None:
    names = [POOL, *RESOURCES]
    for name, resource in RESOURCES.items():
        assert all(names.index(other) < names.index(name) for other in resource.of)
        assert set(resource.groups) <= set(GROUPS)
        assert isinstance(getattr(Study, name), property)


@pytest.mark.parametrize(
    ("needs", "resources", "groups"),
    [
        ((), [], []),
        (("model",), [], []),
        (("embeddings",), ["embeddings"], ["embedder"]),
        (("embeddings", "clusterer"), ["embeddings"], ["embedder", "clusterer"]),
        (("quality", "clustering"), ["embeddings", "clustering", "quality"], ["embedder", "clusterer", "scorer"]),
    ],
)
def test_what_needs_come_to(needs: tuple[str, ...], resources: list[str], groups: list[str]) -> None:
    assert closure(needs) == resources
    assert makers(needs) == groups


def test_all_makers() -> None:
    assert makers() == ["embedder", "targets", "clusterer", "scorer"]


def test_a_study_says_what_was_computed(tmp_path: Path) -> None:
    study = Bench(tmp_path).study()
    assert study.computed == {} and not any(study.is_cached(name) for name in RESOURCES)
    assert study.quality is study.computed["quality"]
    assert study.clustering is study.computed["clustering"]
    assert [name for name in RESOURCES if name in study.computed] == [
        name for name in RESOURCES if name != "target_embeddings"
    ]
    assert study.target_embeddings is None  # as there are no targets
    assert all(study.is_cached(name) for name in ("embeddings", "clustering", "quality"))


@pytest.mark.parametrize("shape", [(3,), (10, 1), ()])
def test_scores_of_another_shape_are_refused_before_they_are_kept(shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "shard-00000.npy").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"the scorer returned scores of shape \[.*wants \[10\]"):
        keep(tmp_path, "scores", np.zeros(shape, dtype=np.float32), make_pool(10), "the scorer")
    assert not list(tmp_path.iterdir())
