"""An array in a file whose rows are written where they belong, a few at a time: it is never in memory as a whole."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from dsel.arrays import Indices
from dsel.files import replacing
from dsel.lazy import blocks

LARGE = 2**28  # bytes of a copy that is better on disk

Header = tuple[tuple[int, ...], np.dtype, int]
"""Shape, type, and where in the file the rows begin."""


@dataclass(frozen=True)
class Rows:
    """The n rows of an array, in an NPY file that has its final size from the first of them on."""

    path: Path
    n: int

    def write(self, rows: Indices, values: npt.NDArray[Any]) -> None:
        """Put `values` [m, …] into the m `rows`; they are on disk when this comes back.

        The first call makes the file, of this shape and type. Neighbouring rows are written at once, and several
        processes may write rows of their own.

        Raises:
            ValueError: if the file's rows are of another shape or type.
        """
        if not self.path.exists():
            lock = self.path.with_name(f".{self.path.name}.lock")
            with FileLock(lock):
                if not self.path.exists():  # another process was faster
                    self._create(values.shape[1:], values.dtype)
                lock.unlink(missing_ok=True)  # whoever waits for it finds the file
        if (np.diff(rows) < 0).any():
            order = np.argsort(rows, kind="stable")
            rows, values = rows[order], values[order]
        values = np.ascontiguousarray(values)
        with self.path.open("r+b") as file:
            shape, dtype, offset = header(file)
            if (shape, dtype) != ((self.n, *values.shape[1:]), values.dtype):
                found = f"{values.dtype}{list(values.shape[1:])}"
                raise ValueError(f"{self.path.name}: a row is {found}, not {dtype}{list(shape[1:])} as those before")
            raw = np.frombuffer(values, dtype=np.uint8).reshape(len(values), -1)
            starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
            for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
                _write(file.fileno(), raw[start:end].reshape(-1).data, offset + int(rows[start]) * raw.shape[1])
            os.fsync(file.fileno())

    def read(self) -> npt.NDArray[Any]:
        """The array, memory-mapped and read-only. Raises ValueError where the file is none of n rows."""
        found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if len(found) != self.n:
            raise ValueError(f"{self.path.name} has {len(found)} rows, not {self.n}")
        return found

    def _create(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        known = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (self.n, *shape)}
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, known)
            file.flush()
            size = file.tell() + self.n * dtype.itemsize * int(np.prod(shape))
            with suppress(AttributeError):  # not every system has it
                os.posix_fallocate(file.fileno(), 0, size)  # a disk that is too small says so now
            file.truncate(size)


def header(file: BinaryIO) -> Header:
    """What an NPY file says of itself."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype, file.tell()


def _write(handle: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(handle, data, at)
        data, at = data[count:], at + count


def taken(values: npt.NDArray[Any], indices: Indices) -> npt.NDArray[Any]:
    """The rows at `indices`: a view of those side by side; of others a copy (`copied`)."""
    if len(indices) and (np.diff(indices) == 1).all():
        return values[indices[0] : indices[-1] + 1]
    return copied(values, indices, values.dtype)


def copied(values: npt.NDArray[Any], indices: Indices, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The rows at `indices`, as numbers of that type: a copy that may be written to.

    Of many rows of a mapped file it is a file too, that nobody else sees and that takes its room on the same disk, so
    that memory does not grow with them.
    """
    shape = (len(indices), *values.shape[1:])
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    file = values.filename if isinstance(values, np.memmap) and size >= LARGE else None
    folder = Path(file).parent if file else None
    if folder is None or not os.access(folder, os.W_OK):
        return np.asarray(values)[indices].astype(dtype, copy=False)
    with tempfile.TemporaryFile(dir=folder) as own:  # gone when nobody has the array
        out = np.memmap(own, dtype, "w+", shape=shape)
    for part in blocks(len(indices)):
        out[part.start : part.stop] = values[indices[part.start : part.stop]]
    return out


def is_file(values: npt.NDArray[Any], path: Path) -> bool:
    """Whether `values` are the array in the file `path`, memory-mapped."""
    return isinstance(values, np.memmap) and path.exists() and path.samefile(values.filename or "")
