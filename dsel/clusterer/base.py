"""What every clusterer returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dsel.clusterer.choice import Choice
from dsel.cost import Cost


@runtime_checkable
class Clusterer(Protocol):
    """What an experiment asks of a clusterer."""

    low_quality: float  # below it a cluster's mean quality is called low in the record

    def check(self) -> None:
        """Raise `ConfigError` for an option out of range. Loads nothing heavy."""

    def check_size(self, n: int) -> None:
        """Raise `ConfigError` when n points cannot be clustered."""

    def cluster(self, x: npt.NDArray[np.float32]) -> Clustering:
        """The clusters of float32[n, d]."""
        ...


def clustered(clusterer: Clusterer, x: npt.NDArray[Any], folder: Path) -> Clustering:
    """The clusters of x [n, d]; a clusterer that `resumes` keeps unfinished work in `folder` and goes on from it.

    One that has that attribute, true, takes the folder as well: `cluster(x, folder)`, and reads float16, too. Files
    whose names begin with `shard` are removed when it is done.
    """
    resumes: Any = clusterer if getattr(clusterer, "resumes", False) else None
    return resumes.cluster(x, folder) if resumes else clusterer.cluster(np.asarray(x, dtype=np.float32))


def cost(clusterer: Any, n: int, d: int) -> Cost:
    """What clustering n points of d dimensions takes, as a method `cost(n, d)` says; nothing where there is none."""
    return clusterer.cost(n, d) if hasattr(clusterer, "cost") else Cost()


def sized(clusterer: Any, n: int) -> Any:
    """The clusterer as it is for n points: one whose options follow their number says so in a method `sized(n)`."""
    return clusterer.sized(n) if hasattr(clusterer, "sized") else clusterer


@dataclass(frozen=True)
class Clustering:
    """labels int64[n] in [0, k); centroids float32[k, d]; distances float32[n], squared L2 to the own centroid.

    choice: the numbers of clusters that were compared, where k was not given but chosen.
    """

    labels: npt.NDArray[np.int64]
    centroids: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]
    choice: Choice | None = None

    @property
    def k(self) -> int:
        return len(self.centroids)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of examples in each cluster, int64[k]."""
        return np.bincount(self.labels, minlength=self.k)

    @property
    def inertia(self) -> float:
        """Sum of squared distances to the own centroid: what k-means minimises."""
        return float(self.distances.astype(np.float64).sum())

    def save(self, folder: Path) -> None:
        for name in ("labels", "centroids", "distances"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        if self.choice is not None:
            self.choice.save(folder)

    @staticmethod
    def load(folder: Path) -> Clustering:
        labels, centroids, distances = (np.load(folder / f"{n}.npy") for n in ("labels", "centroids", "distances"))
        return Clustering(labels, centroids, distances, Choice.load(folder))
