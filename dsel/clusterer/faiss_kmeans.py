"""k-means with faiss, on the CPU or, where faiss-gpu is installed, on all GPUs."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsel.clusterer.base import Clustering
from dsel.errors import need

log = logging.getLogger(__name__)


@dataclass
class FaissKMeans:
    """Lloyd's algorithm over all points, the best of `nredo` random starts (settings of Yu et al. 2024: method.md §1).

    spherical: centroids are normalised after each step, for cosine instead of Euclidean clusters.
    """

    k: int = 1024
    niter: int = 300
    nredo: int = 5
    seed: int = 42
    spherical: bool = False

    def check(self) -> None:
        need(isinstance(self.k, int) and self.k > 0, f"clusterer.k={self.k}: give a whole number above 0")
        need(self.niter > 0 and self.nredo > 0, "clusterer.niter and clusterer.nredo must be above 0")

    def check_size(self, n: int) -> None:
        """Raise `ConfigError` when n points cannot make k clusters."""
        need(self.k <= n, f"clusterer.k={self.k} is larger than the pool: it has {n} usable examples")

    def cluster(self, x: npt.NDArray[np.float32]) -> Clustering:
        """Cluster float32[n, d]. The same points and configuration give the same clusters, bit for bit."""
        import faiss

        n, d = x.shape
        self.check_size(n)
        x = np.ascontiguousarray(x, dtype=np.float32)
        gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
        kmeans = faiss.Kmeans(
            d,
            self.k,
            niter=self.niter,
            nredo=self.nredo,
            seed=self.seed,
            spherical=self.spherical,
            gpu=gpus > 0,
            min_points_per_centroid=1,
            max_points_per_centroid=n,  # faiss would train on a sample of 256 points per cluster
        )
        kmeans.train(x)
        centroids = np.asarray(kmeans.centroids, dtype=np.float32).reshape(self.k, d)
        distances, labels = kmeans.index.search(x, 1)
        if self.spherical:  # the index holds inner products; keep one meaning of `distances`
            distances = ((x - centroids[labels[:, 0]]) ** 2).sum(1, keepdims=True)
        return Clustering(
            labels=labels[:, 0].astype(np.int64),
            centroids=centroids,
            distances=np.maximum(distances[:, 0], 0).astype(np.float32),
        )
