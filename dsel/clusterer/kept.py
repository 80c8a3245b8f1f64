"""What a killed k-means goes on from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.files import piece, save_piece

EVERY = 30.0  # seconds from one time that it is written to the next


class Kept:
    """Arrays in a file of `folder`, written now and then; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, name: str):
        self.path = None if folder is None else folder / f"shard-{name}.safetensors"
        self._written = time.monotonic()

    def load(self) -> dict[str, npt.NDArray[Any]]:
        """What was kept last; nothing where nothing was."""
        from safetensors.numpy import load_file

        if self.path is None or piece(self.path) is None:
            return {}
        return {name: value.copy() for name, value in load_file(self.path).items()}  # theirs cannot be written to

    def save(self, values: Mapping[str, Any]) -> None:
        """Keep arrays and numbers in place of those before, where the last time is long enough ago."""
        if self.path is None or time.monotonic() - self._written < EVERY:
            return
        from safetensors.numpy import save_file

        arrays = {name: np.array(value, order="C") for name, value in values.items()}
        save_piece(self.path, lambda file: save_file(arrays, file))
        self._written = time.monotonic()
