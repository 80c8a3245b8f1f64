"""k-means: faiss on GPUs, our own kernel on the CPU; k given, or chosen by the silhouette."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dsel.arrays import Floats, Indices
from dsel.blocks import Matrix, Where, matrix, parts, torch_device
from dsel.clusterer import kmeans, silhouette
from dsel.clusterer.base import Clustering
from dsel.clusterer.choice import Choice, Form, Trial
from dsel.clusterer.points import Points
from dsel.component import knob
from dsel.constraints import AtLeast, Count, NotEmpty, NotNegative, Seed
from dsel.cost import Cost
from dsel.errors import need
from dsel.progress import progress
from dsel.spent import spend

log = logging.getLogger(__name__)

GRID = tuple(2**power for power in range(4, 14))  # 16 … 8192; Yu et al. 2024, Table 5, has 64 … 8192
MOST = 2048  # clusters that a pool gets where no number is said: the best for 196,000 examples in Table 5
ALL_UP_TO = 250_000  # points that `sample_per_cluster=auto` trains on whatever k is: all of the papers' pools
FAISS_SAMPLE = 256  # what faiss trains on for each cluster where more is not asked for
SEARCHED = 2**18  # rows that faiss is asked about at once
PASSES = 80  # over all products at most, of a start of our kernel: 4 to 75 were seen, the fewer the more clusters
REDO_SEED = 15_486_557  # what faiss adds to the seed from one of its restarts to the next


@dataclass
class FaissKMeans:
    """Lloyd's algorithm, the best of `nredo` starts (settings of Yu et al. 2024), over all points or a sample of many.

    k: a count; None: the square root of the number of points, so that a cluster has as many of them as there are
        clusters, and at most 2,048; `auto`: the k of `k_grid` with the highest mean silhouette. Yu et al. find that it
        predicts the quality of the finetuned model before any training, so this costs clusterings and no model. The
        clustering carries the silhouette and the inertia of every k.
    k_grid: what `auto` tries; None: the powers of two from 16 to 8192 that leave four points to a cluster.
    silhouette: measure a given k's silhouette as well, for the record.
    exact_up_to: `auto` computes exact silhouettes for at most so many points, for more the simplified ones.
    tol: a start ends when an iteration changes the objective by less than this share of it; 0: never for that.
    sample_per_cluster: train on so many points for each cluster, drawn by the seed; None: on all; `auto`: on all of a
        pool of up to 250,000, of a larger one on as many, or on 256 for each cluster where that is more (what faiss,
        and with it the published code, takes of any pool). After a sample all points join the nearest centroid, each
        centroid moves to the mean of all its members, and they do so once more.
    spherical: rows and centroids have length one in each step, for cosine instead of Euclidean clusters.
    backend: `exact` is dsel.clusterer.kmeans (k-means++ seeds); `faiss` starts from random points, and with tol=0
        does what the published code does; `auto` is faiss where faiss-gpu finds a GPU (it uses all), else exact.
    device: where `exact` computes: `cpu`, `cuda`, `cuda:1`; `auto` is CUDA where torch finds it. The clusters are the
        same but for float ties.
    low_quality: the diagnostics count clusters whose mean quality is below this (0.3 for rewards in [0, 1]:
        Figure 4). Changes no cluster.

    No cluster stays empty while there are as many distinct points: it restarts at the farthest point.
    """

    resumes: ClassVar[bool] = True  # `cluster` takes a folder to keep unfinished work in

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
    sample_per_cluster: Count | Literal["auto"] | None = "auto"
    device: Where = knob("auto")

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads torch, for a device that is asked for."""
        torch_device(self.device, "clusterer.device")

    def sized(self, n: int) -> FaissKMeans:
        """The same for n points: a k that follows their number is that number, and so is whether all are trained on."""
        follow: dict[str, Any] = {}
        if self.k is None:
            follow["k"] = min(round(math.sqrt(n)), MOST)
        if self.sample_per_cluster == "auto" and n <= ALL_UP_TO:
            follow["sample_per_cluster"] = None
        return replace(self, **follow) if follow else self

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

    def cost(self, n: int, d: int) -> Cost:
        """What n points of d dimensions take; for faiss, as if no start ended early."""
        one = self.sized(n)
        grid = [one.k] if isinstance(one.k, int) else one.grid(n)
        operations, most, faiss = 0.0, 0, self._backend() == "faiss"
        for k in grid:
            sample = one._sample(n, k)
            m = n if sample is None else sample
            passes = self.niter if faiss else min(1 + self.niter, PASSES)
            operations += 2.0 * m * k * d * passes * self.nredo + (0 if sample is None else 4.0 * n * k * d)
            if one.silhouette or self.k == "auto":
                operations += 2.0 * n * d * (n if n <= self.exact_up_to else k)
            most = max(most, m)
        return Cost(operations, 4.0 * most * d + 60.0 * most + 24.0 * n, self.device if not faiss else "auto")

    def extra_identity(self) -> dict[str, Any]:
        """Which backend `auto` is here, and whether a GPU computes: they find different clusters."""
        return {"backend": self._backend(), **({"device": "cuda"} if self._device() else {})}

    def cluster(self, x: npt.ArrayLike, folder: Path | None = None) -> Clustering:
        """Cluster the rows of x [n, d]. The same points and configuration give the same clusters, bit for bit.

        Time and memory grow as `dsel.clusterer.kmeans.fit` says.

        Args:
            x: float32 or float16, in memory or mapped.
            folder: gets unfinished work, from which a later call goes on.

        Raises:
            ConfigError: as `check_size`.
            ValueError: for NaN rows (zero rows, when spherical), named.
        """
        points = matrix(x)
        self.check_size(len(points))
        k = self.sized(len(points)).k
        if isinstance(k, int):
            return self._choose(points, [k], folder) if self.silhouette and k > 1 else self._fit(points, k, folder)
        return self._choose(points, self.grid(len(points)), folder)

    def _choose(self, x: Matrix, grid: Sequence[int], folder: Path | None) -> Clustering:
        form: Form = "exact" if len(x) <= self.exact_up_to else "simplified"
        trials: list[Trial] = []
        for k in grid:
            found = self._fit(x, k, folder)
            trials.append(Trial(k, self._mean_silhouette(x, found, form), found.inertia))
            log.info("k=%d: silhouette %.4f (%s), inertia %.6g", k, trials[-1].silhouette, form, found.inertia)
            if Choice(form, tuple(trials)).best.k == k:
                best = found
        if self.k == "auto":
            log.info("clusterer.k=auto: k=%d has the highest silhouette", best.k)
        return replace(best, choice=Choice(form, tuple(trials)))

    def _fit(self, x: Matrix, k: int, folder: Path | None) -> Clustering:
        sample = self._sample(len(x), k)
        if sample is not None:
            log.info("k-means trains on %d of %d points (clusterer.sample_per_cluster)", sample, len(x))
        with progress(f"k-means, k={k}", total=self.nredo * self.niter, unit="iterations") as advance:
            if self._backend() == "faiss":
                labels, centroids = self._faiss(Points(x, spherical=self.spherical), k, sample, advance)
            else:
                labels, centroids, _ = kmeans.fit(
                    x, k,
                    niter=self.niter, nredo=self.nredo, seed=self.seed, spherical=self.spherical, tol=self.tol,
                    sample=sample, device=self._device(), folder=folder, advance=advance,
                )  # fmt: skip
        return Clustering(labels, centroids, Points(x).own_distances(centroids, labels))

    def _sample(self, n: int, k: int) -> int | None:
        """How many of n points k clusters are trained on; None: all."""
        per_cluster = self.sized(n).sample_per_cluster
        if per_cluster is None:
            return None
        size = max(FAISS_SAMPLE * k, ALL_UP_TO) if per_cluster == "auto" else per_cluster * k
        return size if size < n else None

    def _mean_silhouette(self, x: Matrix, found: Clustering, form: Form) -> float:
        """0 where all points fell into one cluster: they are all equal."""
        if np.count_nonzero(found.sizes) < 2:
            return 0.0
        if form == "exact":
            points = Points(x, spherical=self.spherical).read(slice(None))
            scores = silhouette.silhouette(points, found.labels)
        else:
            scores = silhouette.simplified(x, found.labels, found.centroids, spherical=self.spherical)
        return float(scores.mean(dtype=np.float64))

    def _device(self) -> Any:
        return torch_device(self.device, "clusterer.device") if self._backend() == "exact" else None

    def _backend(self) -> str:
        if self.backend != "auto":
            return self.backend
        import faiss

        return "faiss" if faiss.get_num_gpus() > 0 else "exact"

    def _faiss(
        self, points: Points, k: int, sample: int | None, advance: Callable[[int], None]
    ) -> tuple[Indices, Floats]:
        """Labels int64[n] and centroids float32[k, d] as faiss.Kmeans finds them, one iteration at a time.

        Given centroids, a training of one iteration goes on from them, so that many are one long training. What it is
        trained on has to be in memory, as float32.
        """
        import faiss

        x = points.read(slice(None)) if sample is None else kmeans.sampled(points, sample, self.seed)
        n, d = x.shape
        index: Any = faiss.IndexFlatIP(d) if self.spherical else faiss.IndexFlatL2(d)
        if faiss.get_num_gpus() > 0:
            index = faiss.index_cpu_to_all_gpus(index)
        best: tuple[float, npt.NDArray[np.float32]] | None = None
        for redo in range(self.nredo):
            options = faiss.ClusteringParameters()
            options.niter = options.nredo = options.min_points_per_centroid = 1
            options.max_points_per_centroid = n  # faiss would train on a sample of its own
            options.seed = (self.seed + redo * REDO_SEED) % 2**31
            options.spherical = self.spherical
            run: Any = faiss.Clustering(d, k, options)
            last = np.inf
            for iteration in range(self.niter):
                run.train(x, index)
                spend(2.0 * n * k * d)
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
        labels = _nearest(index, points, centroids)
        if sample is not None:
            kmeans.recentre(points, labels, centroids, self.spherical)
            labels = _nearest(index, points, centroids)
        kmeans.fill_empty(points, labels, centroids, points.own_distances(centroids, labels))
        return labels, centroids


def _nearest(index: Any, points: Points, centroids: Floats) -> Indices:
    """Each row's nearest of the centroids, as a faiss index finds it."""
    index.reset()
    index.add(centroids)
    labels = np.empty(len(points), dtype=np.int64)
    spend(2.0 * len(points) * centroids.size)
    for part in parts(len(points), 1, SEARCHED):
        labels[part] = index.search(points.read(part), 1)[1][:, 0]
    return labels
