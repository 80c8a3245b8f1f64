"""What the embedders that map one text to one vector share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsel.progress import progress

Vectors = npt.NDArray[np.float32]

SHARD = 2048  # texts between two saves: what a killed run loses at most


class Embedder(ABC):
    """`embed` maps n texts to float32[n, d]; a subclass that treats texts one by one only writes `encode`."""

    def check(self) -> None:
        """Raise `ConfigError` when the embedder cannot run here. Loads nothing heavy."""

    @abstractmethod
    def encode(self, texts: list[str]) -> Vectors:
        """float32[len(texts), d]."""

    def embed(self, texts: list[str], scratch: Path) -> Vectors:
        """float32[n, d], in the order of `texts`.

        Texts are taken longest first (little padding, and memory runs out at the start or never), a shard at a time;
        each finished shard is saved in `scratch`, where a killed run finds it again.
        """
        order = np.argsort([-len(t) for t in texts], kind="stable")
        out: Vectors | None = None
        with progress("embedding", total=len(texts), unit="examples") as advance:
            for number, start in enumerate(range(0, len(texts), SHARD)):
                rows = order[start : start + SHARD]
                vectors = self._shard(scratch / f"shard-{number:05d}.npy", [texts[i] for i in rows])
                if out is None:
                    out = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
                out[rows] = vectors
                advance(len(rows))
        if out is None:
            raise ValueError("no texts to embed")
        return out

    def _shard(self, path: Path, texts: list[str]) -> Vectors:
        if path.exists():
            return np.load(path)
        vectors = np.asarray(self.encode(texts), dtype=np.float32)
        temporary = path.with_name("shard.tmp.npy")
        np.save(temporary, vectors)
        temporary.replace(path)
        return vectors
