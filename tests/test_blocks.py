"""Matrices in blocks, and where kernels run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsel import arrays, blocks
from dsel.arrays import finite_rows
from dsel.errors import ConfigError
from tests.selector.pools import scattered


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("memory", [1, 200, 10**9])
def test_blocks_are_the_matrix_in_order(dtype: type, memory: int, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", scattered(83, 5).astype(dtype))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    matrix = blocks.matrix(x)
    assert (dtype == np.float64) != np.shares_memory(matrix, x)  # what is on disk stays there
    seen = list(blocks.blocks(matrix, beside=20, memory=memory))
    assert [part.start for part, _ in seen] == [0, *(part.stop for part, _ in seen[:-1])]
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for _, block in seen)
    np.testing.assert_array_equal(np.concatenate([block for _, block in seen]), x.astype(np.float32))
    assert len(seen) == {1: 83, 200: 17, 10**9: 1}[memory]


def test_rows_are_read_by_number() -> None:
    x = scattered(20, 3).astype(np.float16)
    np.testing.assert_array_equal(blocks.read(x, np.array([7, 2])), x[[7, 2]].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_that_are_not_finite_are_named_as_in_memory(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MEMORY", 64)
    x = scattered(50, 4).astype(dtype)
    x[3] = 60_000  # its sum is not of float16
    x[[7, 44], 1] = np.nan, np.inf
    with pytest.raises(ValueError) as ours:
        blocks.matrix(x)
    with pytest.raises(ValueError) as theirs:
        finite_rows(x)
    assert str(ours.value) == str(theirs.value) and "rows 7, 44" in str(ours.value)
    for empty in (np.ones(3), np.ones((0, 3))):
        with pytest.raises(ValueError, match="non-empty"):
            blocks.matrix(empty)


def test_lengths_are_those_of_rows_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MEMORY", 64)
    x = scattered(50, 4)
    x[7] *= 1e-25  # its square is not of float32
    np.testing.assert_array_equal(blocks.lengths(x), arrays.lengths(x))
    half = x[:7].astype(np.float16)
    np.testing.assert_array_equal(blocks.lengths(half), arrays.lengths(half.astype(np.float32)))
    x[[5, 40]] = 0
    with pytest.raises(ValueError, match="zero vectors, which have no cosine: rows 5, 40"):
        blocks.lengths(x)


def test_the_device() -> None:
    import torch

    assert blocks.torch_device("cpu") is None
    there = torch.cuda.is_available()
    assert blocks.torch_device("auto") == (torch.device("cuda") if there else None)
    with pytest.raises(ConfigError, match=r"clusterer\.device=cuda:99: torch finds \d+ CUDA devices here"):
        blocks.torch_device("cuda:99", "clusterer.device")
    with pytest.raises(ConfigError, match="wants auto, cpu, cuda or cuda:1"):
        blocks.torch_device("gpu")


def test_products_are_of_full_precision_within() -> None:
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with blocks.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
