"""What the clusters of a run are like: sizes, quality, typical members, sources."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dsel.clusterer.base import Clustering

if TYPE_CHECKING:
    from pyarrow import Table

    from dsel.pool import Pool

log = logging.getLogger(__name__)


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
    Raises ValueError when lengths differ or a label is out of range.
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
    rank = np.arange(n) - (np.cumsum(sizes) - sizes)[which[order]]
    nearest = order[rank < medoids]

    encoded = pa.array(sources, pa.string()).dictionary_encode()
    names = len(encoded.dictionary)
    pairs, members = np.unique(which * names + np.asarray(encoded.indices), return_counts=True)
    cluster, source = np.divmod(pairs, max(names, 1))
    largest = np.lexsort((source, -members, cluster))
    shares = (members / sizes[cluster])[largest]

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
            "sources": pa.MapArray.from_arrays(
                _offsets(np.bincount(cluster, minlength=k)), encoded.dictionary.take(pa.array(source[largest])), shares
            ),
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


def _offsets(counts: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
