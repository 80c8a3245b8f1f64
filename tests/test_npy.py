"""An array in a file, written a few rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel import npy
from dsel.npy import Rows, is_file, taken


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 7), st.sampled_from(["f4", "f2", "i8"]), st.randoms(use_true_random=False))
def test_rows_come_back_whatever_the_order_they_were_written_in(n: int, step: int, dtype: str, random: object) -> None:
    import tempfile

    whole = np.arange(n * 3).reshape(n, 3).astype(dtype)
    order = np.array(sorted(range(n), key=lambda i: random.random()))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(Path(folder) / "a.npy", n)
        for start in range(0, n, step):
            rows.write(order[start : start + step], whole[order[start : start + step]])
        found = rows.read()
        assert found.dtype == whole.dtype
        np.testing.assert_array_equal(found, whole)
        np.testing.assert_array_equal(np.load(rows.path), whole)
        assert list(Path(folder).iterdir()) == [rows.path]


def test_the_file_has_its_size_from_the_first_row_on(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "a.npy", 1000)
    rows.write(np.array([7]), np.ones((1, 8), dtype=np.float16))
    assert rows.path.stat().st_size == 128 + 1000 * 8 * 2
    assert rows.read().sum() == 8


def test_rows_of_another_shape_or_type_are_an_error(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "a.npy", 4)
    rows.write(np.array([0]), np.ones((1, 2), dtype=np.float32))
    with pytest.raises(ValueError, match=r"a\.npy: a row is float32\[3\], not float32\[2\]"):
        rows.write(np.array([1]), np.ones((1, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="float16"):
        rows.write(np.array([1]), np.ones((1, 2), dtype=np.float16))
    with pytest.raises(ValueError, match="has 4 rows, not 5"):
        Rows(rows.path, 5).read()


def test_a_mapped_array_knows_its_file(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "a.npy", 1)
    rows.write(np.array([0]), np.ones((1, 2), dtype=np.float32))
    assert is_file(rows.read(), rows.path)
    assert not is_file(rows.read(), tmp_path / "b.npy") and not is_file(np.ones((1, 2)), rows.path)


@pytest.mark.parametrize("large", [0, 10**9])
def test_some_rows_are_a_view_or_a_copy_that_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(npy, "LARGE", large)
    whole = np.random.default_rng(0).normal(size=(10_000, 3)).astype(np.float16)
    np.save(tmp_path / "a.npy", whole)
    values = np.load(tmp_path / "a.npy", mmap_mode="r")
    some = np.random.default_rng(1).permutation(10_000)[:9_000]
    for rows in (some, np.sort(some), some[:0], np.arange(5, 80)):
        np.testing.assert_array_equal(taken(values, rows), whole[rows])
        np.testing.assert_array_equal(taken(whole, rows), whole[rows])
    assert isinstance(taken(values, some), np.memmap) == (large == 0)
    assert np.shares_memory(taken(values, np.arange(5, 80)), values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
