"""What a run's record shows of all that its selector had computed: nothing is computed for the record's sake alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.clusterer.base import Clustering
from dsel.clusterer.diagnostics import report
from dsel.embedder.plane import plane
from dsel.pool import Pool, excerpt
from dsel.record.writer import Record


def note_computed(record: Record, known: Mapping[str, Any], pool: Pool, *, low_quality: float) -> None:
    """Hands the record what is known of the whole pool, once: the quality of each example, and its clusters.

    known: a study's `clustering` and `quality`, where it has them.
    """
    clustering, quality = known.get("clustering"), known.get("quality")
    if quality is not None and "scores" not in record.facts:
        record.scores(pool, quality)
    if clustering is not None and "clustering" not in record.facts:
        facts, rows = report(clustering, pool, quality, low_quality=low_quality)
        record.clusters(facts, rows, clustering.choice)


def note_map(record: Record, known: Mapping[str, Any], pool: Pool) -> None:
    """Hands the record a plane picture of the pool, where the selector had its `embeddings` computed.

    With each point goes what it takes to read the picture: which example it is, and the beginning of its text.
    """
    embeddings, clustering = known.get("embeddings"), known.get("clustering")
    if embeddings is None or len(embeddings) <= 2:
        return
    labels, medoids = (None, None) if clustering is None else (clustering.labels, _medoids(clustering))
    points = plane(embeddings, record.chosen, labels, medoids)
    shown = pool.take(points["index"].to_numpy())
    texts = [excerpt(messages) for messages in shown.messages]
    for name, column in (("id", shown.ids), ("source", shown.sources), ("text", texts)):
        points = points.append_column(name, [column])
    record.map(points)


def _medoids(clustering: Clustering) -> npt.NDArray[np.int64]:
    """The member nearest to the centroid, of each cluster that has any: indices into the pool."""
    order = np.lexsort((clustering.distances, clustering.labels))
    return order[np.unique(clustering.labels[order], return_index=True)[1]]
