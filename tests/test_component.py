"""Identities and digests: the keys of everything that is cached."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.component import digest, folder_state, identity, knob, plain, without_software
from dsel.hub import commit_of


@dataclass
class Inner:
    rate: float = 0.5
    device: str = knob("cpu")


@dataclass
class Outer:
    name: str = "a"
    inner: Inner = field(default_factory=Inner)
    options: dict[str, Any] = field(default_factory=lambda: {"b": [1, (2, 3)], "a": Path("x") / "y"})
    batch_size: int = knob(8)


@dataclass
class Other(Outer):
    pass


@dataclass
class WithFiles:
    path: str = "somewhere"

    def extra_identity(self) -> dict[str, Any]:
        return {"path": None, "files": ["weights"]}


def test_an_identity_is_the_class_and_its_fields_as_plain_json() -> None:
    assert identity(Outer()) == {
        "class": "tests.test_component.Outer",
        "name": "a",
        "inner": {"class": "tests.test_component.Inner", "rate": 0.5},
        "options": {"b": [1, [2, 3]], "a": "x/y"},
    }


def test_knobs_change_no_key_at_any_depth() -> None:
    assert digest(Outer()) == digest(Outer(batch_size=1, inner=Inner(device="cuda")))


def test_everything_else_changes_the_key() -> None:
    others = [Outer(name="b"), Outer(inner=Inner(0.1)), Outer(options={}), Outer(options={"b": [1]}), Other()]
    assert len({digest(o) for o in [Outer(), *others]}) == 1 + len(others)


def test_extra_identity_takes_the_place_of_fields() -> None:
    assert digest(WithFiles("here")) == digest(WithFiles("there"))
    assert identity(WithFiles())["files"] == ["weights"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_plain_values_stay_as_they_are(value: Any) -> None:
    assert plain(value) == value
    assert plain({"x": (value,)}) == {"x": [value]}


@given(st.dictionaries(st.text(max_size=5), values, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@given(st.lists(st.integers(), min_size=2, max_size=4, unique=True))
def test_the_order_of_lists_does(value: list[int]) -> None:
    assert digest(value) != digest(value[::-1])


def test_a_digest_is_a_safe_file_name() -> None:
    assert len(digest("x")) == 24
    assert set(digest("x")) <= set("0123456789abcdef")


def test_digests_are_the_same_in_every_process() -> None:
    code = "from tests.test_component import *; print(digest([Outer(), WithFiles(), {'ü': 1.0, 'a': None}]))"
    root = Path(__file__).resolve().parents[1]
    found = {digest([Outer(), WithFiles(), {"ü": 1.0, "a": None}])}
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
        found.add(done.stdout.strip() or done.stderr)
    assert len(found) == 1


def test_a_folder_is_known_by_its_files_not_by_its_place(tmp_path: Path) -> None:
    one = tmp_path / "one"
    (one / "deep").mkdir(parents=True)
    (one / "config.json").write_text("{}")
    (one / "deep" / "weights").write_bytes(b"1234")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    assert folder_state(one) == folder_state(two)
    assert [name for name, *_ in folder_state(one)] == ["config.json", "deep/weights"]


@pytest.mark.parametrize("change", ["content", "size", "name", "new", "gone"])
def test_any_change_of_a_folder_shows(tmp_path: Path, change: str) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"1234")
    os.utime(weights, (1, 1))
    before = folder_state(tmp_path)
    if change == "content":
        weights.write_bytes(b"1235")
    elif change == "size":
        weights.write_bytes(b"12345")
        os.utime(weights, (1, 1))
    elif change == "name":
        weights.rename(tmp_path / "other")
    elif change == "new":
        (tmp_path / "new").touch()
    else:
        weights.unlink()
    assert folder_state(tmp_path) != before


@dataclass
class Versioned(Outer):
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "no-such-package")


def test_what_a_class_says_of_its_software_is_part_of_what_it_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = identity(Versioned())
    assert known["version"] == 2
    assert known["software"] == {"numpy": metadata.version("numpy"), "no-such-package": None}
    before = digest(Versioned())
    monkeypatch.setattr(metadata, "version", lambda name: "99")
    assert digest(Versioned()) != before
    monkeypatch.setattr(Versioned, "version", 3)
    assert identity(Versioned())["version"] == 3
    known = identity(Versioned())
    plainly = {name: value for name, value in known.items() if name != "software"}
    assert without_software({"a": [known], "b": 1}) == {"a": [plainly], "b": 1}


@dataclass
class OfTheHub:
    hub: str = "some/model"
    revision: str | None = None
    path: str | None = None


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit_of.cache_clear()
    assert identity(OfTheHub())["commit"] is None
    refs = tmp_path / "models--some--model" / "refs"
    refs.mkdir(parents=True)
    digests = set()
    for commit in ("1" * 40, "2" * 40):
        (refs / "main").write_text(commit)
        commit_of.cache_clear()
        assert identity(OfTheHub())["commit"] == commit
        digests.add(digest(OfTheHub()))
    assert len(digests) == 2
    assert identity(OfTheHub(revision="a" * 40))["commit"] == "a" * 40
    assert "commit" not in identity(OfTheHub(path=str(tmp_path)))
    commit_of.cache_clear()
