"""k-means: faiss on GPUs, our own kernel on the CPU; k given, or chosen by the silhouette."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from dsel.arrays import Floats, finite_rows, unit_rows
from dsel.clusterer import kmeans, silhouette
from dsel.clusterer.base import Clustering
from dsel.clusterer.choice import Choice, Form, Trial
from dsel.component import knob
from dsel.constraints import AtLeast, Count, NotEmpty, NotNegative, Seed
from dsel.errors import need
from dsel.progress import progress

log = logging.getLogger(__name__)

GRID = tuple(2**power for power in range(4, 14))  # 16 … 8192; Yu et al. 2024, Table 5, has 64 … 8192
MOST = 2048  # clusters that a pool gets where no number is said: the best for 196,000 examples in Table 5
REDO_SEED = 15_486_557  # what faiss adds to the seed from one of its restarts to the next


@dataclass
class FaissKMeans:
    """Lloyd's algorithm over all points, the best of `nredo` starts (settings of Yu et al. 2024).

    k: a count; None: the square root of the number of points, so that a cluster has as many of them as there are
        clusters, and at most 2,048; `auto`: the k of `k_grid` with the highest mean silhouette. Yu et al. find that it
        predicts the quality of the finetuned model before any training, so this costs clusterings and no model. The
        clustering carries the silhouette and the inertia of every k.
    k_grid: what `auto` tries; None: the powers of two from 16 to 8192 that leave four points to a cluster.
    silhouette: measure a given k's silhouette as well, for the record.
    exact_up_to: `auto` computes exact silhouettes for at most so many points, for more the simplified ones.
    tol: a start ends when an iteration changes the objective by less than this share of it; 0: never for that.
    spherical: rows and centroids have length one in each step, for cosine instead of Euclidean clusters.
    backend: `exact` is dsel.clusterer.kmeans (k-means++ seeds); `faiss` starts from random points, and with tol=0
        does what the published code does; `auto` is faiss where faiss-gpu finds a GPU (it uses all), else exact.
    low_quality: the diagnostics count clusters whose mean quality is below this (0.3 for rewards in [0, 1]:
        Figure 4). Changes no cluster.

    No cluster stays empty while there are as many distinct points: it restarts at the farthest point.
    """

    k: Count | Literal["auto"] | None = None
    niter: Count = 300
    nredo: Count = 5
    seed: Seed = 42
    spherical: bool = False
    tol: NotNegative = 1e-5
    backend: Literal["auto", "faiss", "exact"] = "auto"
    k_grid: Annotated[Sequence[Annotated[int, AtLeast(2)]], NotEmpty()] | None = None
    silhouette: bool = False
    exact_up_to: int = 20_000
    low_quality: float = knob(0.3)

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads nothing heavy."""

    def sized(self, n: int) -> FaissKMeans:
        """The same for n points: a k that follows their number is that number."""
        return self if self.k is not None else replace(self, k=min(round(math.sqrt(n)), MOST))

    def check_size(self, n: int) -> None:
        """Raise `ConfigError` when n points cannot make k clusters."""
        if self.k is None:
            return
        if isinstance(self.k, int):
            need(self.k <= n, f"clusterer.k={self.k} is larger than the pool: it has {n} usable examples")
            return
        grid = self.grid(n)
        need(bool(grid), f"clusterer.k=auto: {n} usable examples are few, give clusterer.k or clusterer.k_grid")
        need(max(grid) <= n, f"clusterer.k_grid goes beyond the pool: it has {n} usable examples")

    def grid(self, n: int) -> list[int]:
        """The numbers of clusters that `auto` tries on n points, ascending."""
        return sorted(set(self.k_grid)) if self.k_grid is not None else [k for k in GRID if k <= n / 4]

    def extra_identity(self) -> dict[str, Any]:
        """Which backend `auto` is here: the two find different clusters."""
        return {"backend": self._backend()}

    def cluster(self, x: npt.NDArray[np.float32]) -> Clustering:
        """Cluster float32[n, d]. The same points and configuration give the same clusters, bit for bit.

        Raises `ConfigError` as `check_size`, and ValueError for NaN rows (zero rows, when spherical), named.
        """
        x = finite_rows(x)
        self.check_size(len(x))
        k = self.sized(len(x)).k
        if isinstance(k, int):
            return self._choose(x, [k]) if self.silhouette and k > 1 else self._fit(x, k)
        return self._choose(x, self.grid(len(x)))

    def _choose(self, x: Floats, grid: Sequence[int]) -> Clustering:
        points = unit_rows(x) if self.spherical else x
        form: Form = "exact" if len(x) <= self.exact_up_to else "simplified"
        trials: list[Trial] = []
        for k in grid:
            found = self._fit(x, k)
            trials.append(Trial(k, _mean_silhouette(points, found, form), found.inertia))
            log.info("k=%d: silhouette %.4f (%s), inertia %.6g", k, trials[-1].silhouette, form, found.inertia)
            if Choice(form, tuple(trials)).best.k == k:
                best = found
        if self.k == "auto":
            log.info("clusterer.k=auto: k=%d has the highest silhouette", best.k)
        return replace(best, choice=Choice(form, tuple(trials)))

    def _fit(self, x: Floats, k: int) -> Clustering:
        with progress(f"k-means, k={k}", total=self.nredo * self.niter, unit="iterations") as advance:
            if self._backend() == "faiss":
                labels, centroids = self._faiss(unit_rows(x) if self.spherical else x, k, advance)
            else:
                labels, centroids, _ = kmeans.fit(
                    x, k,
                    niter=self.niter, nredo=self.nredo, seed=self.seed, spherical=self.spherical, tol=self.tol,
                    advance=advance,
                )  # fmt: skip
        return Clustering(labels, centroids, kmeans.own_distances(x, centroids, labels))

    def _backend(self) -> str:
        if self.backend != "auto":
            return self.backend
        import faiss

        return "faiss" if faiss.get_num_gpus() > 0 else "exact"

    def _faiss(
        self, x: Floats, k: int, advance: Callable[[int], None]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Labels int64[n] and centroids float32[k, d] as faiss.Kmeans finds them, one iteration at a time.

        Given centroids, a training of one iteration goes on from them, so that many are one long training.
        """
        import faiss

        n, d = x.shape
        index: Any = faiss.IndexFlatIP(d) if self.spherical else faiss.IndexFlatL2(d)
        if faiss.get_num_gpus() > 0:
            index = faiss.index_cpu_to_all_gpus(index)
        best: tuple[float, npt.NDArray[np.float32]] | None = None
        for redo in range(self.nredo):
            options = faiss.ClusteringParameters()
            options.niter = options.nredo = options.min_points_per_centroid = 1
            options.max_points_per_centroid = n  # faiss would train on a sample of 256 points per cluster
            options.seed = (self.seed + redo * REDO_SEED) % 2**31
            options.spherical = self.spherical
            run: Any = faiss.Clustering(d, k, options)
            last = np.inf
            for iteration in range(self.niter):
                run.train(x, index)
                # lower is better: squared distances, or the inner products' negative
                now = run.iteration_stats.at(run.iteration_stats.size() - 1).obj * (-1 if self.spherical else 1)
                advance(1)
                if abs(last - now) < self.tol * abs(now):
                    advance(self.niter - iteration - 1)
                    break
                last = now
            log.info("k-means %d of %d: objective %.6g", redo + 1, self.nredo, now)
            if best is None or now < best[0]:
                best = now, faiss.vector_to_array(run.centroids).reshape(k, d)
        assert best is not None
        centroids = best[1]
        index.reset()
        index.add(centroids)
        labels = index.search(x, 1)[1][:, 0].astype(np.int64)
        kmeans.fill_empty(x, labels, centroids, kmeans.own_distances(x, centroids, labels))
        return labels, centroids


def _mean_silhouette(x: Floats, found: Clustering, form: Form) -> float:
    """0 where all points fell into one cluster: they are all equal."""
    if np.count_nonzero(found.sizes) < 2:
        return 0.0
    if form == "exact":
        scores = silhouette.silhouette(x, found.labels)
    else:
        scores = silhouette.simplified(x, found.labels, found.centroids)
    return float(scores.mean(dtype=np.float64))
