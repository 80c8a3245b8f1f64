"""What the clusters of a run are like: sizes, quality, typical members, sources."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from dsel.blocks import parts
from dsel.clusterer.base import Clustering

if TYPE_CHECKING:
    from pyarrow import Table

    from dsel.pool import Pool

log = logging.getLogger(__name__)

BLOCK = 2**15  # examples whose sources are read at once


def table(
    labels: ArrayLike,
    distances: ArrayLike,
    ids: Sequence[str],
    sources: Sequence[str],
    quality: ArrayLike | None = None,
    *,
    k: int | None = None,
    low_quality: float = 0.3,
    medoids: int = 3,
) -> Table:
    """A row for each of k clusters, from labels int[n] in 0..k-1, distances [n] to the own centroid, and the n
    examples' ids, sources and, if there is one, quality [n] (NaN: not scored).

    - `size`: members, and `sources`: the share of each source among them, from the largest down;
    - `mean_quality`, `share_low_quality`: of the members, the mean and the share below `low_quality`;
    - `low_quality`: whether the mean is below it. The share of such clusters against k is Figure 4 of Yu et al.
      2024, where quality is a reward in [0, 1] and the threshold 0.3;
    - `medoids`: ids of the members nearest to the centroid, nearest first, at most `medoids`.

    What an empty or unscored cluster has no value for is null. k: the largest label's plus one unless given.
    Sources are read in blocks, ids of medoids alone, so both may be sequences that decode what is asked for. Time: a
    sort of n numbers; memory: some 50 bytes an example. Raises ValueError when lengths differ or a label is out of
    range.
    """
    import pyarrow as pa

    which, gaps = np.asarray(labels), np.asarray(distances)
    n, k = len(which), int(k if k is not None else np.max(labels) + 1)
    scores = np.full(n, np.nan) if quality is None else np.asarray(quality, dtype=np.float64)
    if not n == len(gaps) == len(ids) == len(sources) == len(scores):
        raise ValueError(f"{n} labels need as many distances, ids, sources and qualities")
    if n and not 0 <= which.min() <= which.max() < k:
        raise ValueError(f"labels must be from 0 to {k - 1}")
    sizes = np.bincount(which, minlength=k)

    scored = ~np.isnan(scores)
    counted = np.bincount(which[scored], minlength=k)
    missing = counted == 0
    mean = np.bincount(which[scored], weights=scores[scored], minlength=k) / np.maximum(counted, 1)
    share_low = np.bincount(which[scored], weights=scores[scored] < low_quality, minlength=k) / np.maximum(counted, 1)

    order = np.lexsort((gaps, which))
    starts, rank = np.cumsum(sizes) - sizes, np.arange(medoids)
    nearest = order[(starts[:, None] + rank)[rank < sizes[:, None]]]

    codes, names = _encoded(sources)
    pairs, members = np.unique(which * max(len(names), 1) + codes, return_counts=True)
    cluster, source = np.divmod(pairs, max(len(names), 1))
    largest = np.lexsort((source, -members, cluster))
    shares = (members / sizes[cluster])[largest]
    of = pa.array([names[i] for i in source[largest]], pa.string())

    return pa.table(
        {
            "cluster": np.arange(k),
            "size": sizes,
            "mean_quality": pa.array(mean, mask=missing),
            "share_low_quality": pa.array(share_low, mask=missing),
            "low_quality": pa.array(mean < low_quality, mask=missing),
            "medoids": pa.ListArray.from_arrays(
                _offsets(np.minimum(sizes, medoids)), pa.array([ids[i] for i in nearest], pa.string())
            ),
            "sources": pa.MapArray.from_arrays(_offsets(np.bincount(cluster, minlength=k)), of, shares),
        }
    )


def report(
    clustering: Clustering,
    pool: Pool,
    quality: ArrayLike | None,
    *,
    low_quality: float,
) -> tuple[dict[str, Any], Table]:
    """A summary of the clusters of the pool's n examples, as plain values, and its `table`; quality [n], if known."""
    rows = table(
        clustering.labels, clustering.distances, pool.ids, pool.sources, quality,
        k=clustering.k, low_quality=low_quality,
    )  # fmt: skip
    sizes = clustering.sizes
    facts: dict[str, Any] = {
        "k": clustering.k,
        "inertia": clustering.inertia,
        "smallest": int(sizes.min()),
        "median": float(np.median(sizes)),
        "largest": int(sizes.max()),
    }
    if clustering.choice is not None:
        facts |= {"silhouette": clustering.choice.best.silhouette, "silhouette_form": clustering.choice.form}
    low = rows["low_quality"].drop_null().to_numpy()
    if len(low):
        facts |= {"low_quality_below": low_quality, "low_quality_clusters": float(low.mean())}
    log.info("clusters: k=%d, %d to %d members, median %g", *(facts[x] for x in ("k", "smallest", "largest", "median")))
    return facts, rows


def _encoded(sources: Sequence[str]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """int32[n], the number of each example's source, and the sources in the order they first come up."""
    known: dict[str, int] = {}
    codes = np.empty(len(sources), dtype=np.int32)
    for part in parts(len(sources), 1, BLOCK):
        codes[part] = [known.setdefault(source, len(known)) for source in sources[part]]
    return codes, list(known)


def _offsets(counts: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
