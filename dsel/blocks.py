"""What kernels over many vectors share: blocks of a matrix that may be on disk, and the device they run on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Floats, Indices, lengths_or_zero, refuse
from dsel.constraints import Matches
from dsel.errors import ConfigError, need

if TYPE_CHECKING:
    import torch

MEMORY = 2**26  # bytes of a block, and of what is computed from it, where nothing else is said
DRIVERS = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so")  # one of them is there where a GPU is

Matrix = NDArray[np.float32] | NDArray[np.float16]
Where = Annotated[str, Matches(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:1")]
"""The type of an option that says where kernels run: `torch_device` reads it."""


def matrix(embeddings: ArrayLike) -> Matrix:
    """The embeddings as a matrix [n, d] to read in blocks: float32 or float16 where they lie, else a float32 copy.

    Raises ValueError for anything but a non-empty matrix, and names the rows that hold NaN or infinity. Time: one look
    at all of it. Memory: a block.
    """
    x: Any = np.asarray(embeddings)
    x = np.ascontiguousarray(x, dtype=x.dtype if x.dtype == np.float16 else np.float32)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"embeddings must be a non-empty [n, d] matrix, not of shape {x.shape}")
    bad = np.zeros(len(x), dtype=bool)
    with np.errstate(invalid="ignore", over="ignore"):
        for part, block in blocks(x):
            # A NaN or an infinity anywhere in a row survives in its sum, so one quick pass clears most pools.
            suspect = np.flatnonzero(~np.isfinite(np.einsum("nd->n", block)))
            bad[part.start + suspect] = ~np.isfinite(block[suspect]).all(axis=1)
    refuse(bad, "embeddings hold NaN or infinity")
    return x


def parts(n: int, row: int, memory: int | None = None) -> Iterator[slice]:
    """Slices over n rows, in order, each of as many as `memory` bytes (MEMORY) hold at `row` a row: at least one."""
    step = max(1, (memory or MEMORY) // max(row, 1))
    return (slice(lo, min(lo + step, n)) for lo in range(0, n, step))


def read(x: Matrix, rows: slice | Indices) -> Floats:
    """Some rows of a matrix as contiguous float32: a view where a slice of them is that already, else a copy."""
    return np.ascontiguousarray(x[rows], dtype=np.float32)


def blocks(x: Matrix, beside: int = 0, memory: int | None = None) -> Iterator[tuple[slice, Floats]]:
    """A matrix [n, d] as contiguous float32, block by block, each with the slice of its rows.

    Args:
        x: float32 or float16, in memory or mapped. What is mapped is read once and held by the system's page cache.
        beside: bytes that the caller computes for each row: 4 k for its products with k others.
        memory: bytes of a block and of what is computed beside it; MEMORY unless given.
    """
    for part in parts(len(x), 4 * x.shape[1] + beside, memory):
        yield part, read(x, part)


def lengths(x: Matrix) -> Floats:
    """Euclidean lengths float32[n] of finite rows. Raises ValueError naming rows of length zero. Memory: a block."""
    result = np.empty(len(x), dtype=np.float32)
    for part, block in blocks(x):
        result[part] = lengths_or_zero(block)
    refuse(result == 0, "embeddings are zero vectors, which have no cosine")
    return result


def summed(rows: Floats, groups: Indices) -> tuple[Indices, Floats, Indices]:
    """The groups that have rows: which they are, rising, the sum of each one's rows, and how many these are.

    rows float32[n, d]; groups int64[n], the number of each one's. A group's rows are added as they come.
    """
    order = np.argsort(groups, kind="stable")
    filled, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    return filled, np.add.reduceat(rows[order], starts, axis=0), sizes


def in_threads(
    work: Callable[[slice], None], over: Iterable[slice], advance: Callable[[int], None] = lambda count: None
) -> None:
    """`work(part)` for each part, in as many threads as BLAS may use; each then has BLAS for itself, on one thread.

    What follows a product (a minimum of each row) is spread over the cores as well, which BLAS alone does not do. Parts
    must not depend on each other. `advance` is told of the rows of each that is done. The first error is raised when
    those that are being worked on have ended.
    """
    waiting = list(over)
    count = min(_threads(), len(waiting)) if len(waiting) > 1 else 1
    if count == 1:
        for part in waiting:
            work(part)
            advance(part.stop - part.start)
        return
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(count) as threads:
        for part, _ in zip(waiting, threads.map(work, waiting), strict=True):
            advance(part.stop - part.start)


@cache
def _libraries() -> Any:
    """The BLAS that NumPy has loaded, and others; looking for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _threads() -> int:
    return max((known["num_threads"] for known in _libraries().info() if known["user_api"] == "blas"), default=1)


def torch_device(name: str, option: str = "device") -> torch.device | None:
    """Where kernels run: a torch device, or None for the CPU's own kernels.

    Args:
        name: `auto` (CUDA where there is one, else the CPU's own kernels), `cpu`, `cuda` or `cuda:1`.
        option: what a message calls it.

    Raises:
        ConfigError: for a device that is not here.
    """
    if name == "cpu" or (name == "auto" and not _driver()):  # without torch, which takes seconds to import
        return None
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda") if there else None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{option}={name}: wants auto, cpu, cuda or cuda:1") from error
    need((device.index or 0) < there, f"{option}={name}: torch finds {there} CUDA devices here: use {option}=cpu")
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """torch's products of float32 are of float32 within the block: no TF32, whatever was set before."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _driver() -> bool:
    for name in DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
