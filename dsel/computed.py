"""What a run's record shows of all that its selector had computed: nothing is computed for the record's sake alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.clusterer.base import Clustering
from dsel.clusterer.diagnostics import report
from dsel.contamination import KINDS, Evaluated
from dsel.embedder.plane import plane
from dsel.pool import Pool, excerpt, text_of
from dsel.record.writer import Record
from dsel.targets.base import Target

log = logging.getLogger(__name__)


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


def note_contamination(record: Record, pool: Pool, target: Target | None) -> None:
    """Hands the record what of the targets is in what was chosen: whoever chooses for them may find them again.

    Looked for are the user's turns of each target, in all turns of the chosen (`dsel.contamination`).
    """
    if target is None:
        return
    asked = ["\n".join(text_of(m) for m in chat if m["role"] == "user") for chat in target.pool.messages]
    chosen = pool.take(record.chosen)
    found = Evaluated(asked).look([text_of(m) for m in chat] for chat in chosen.messages)
    worst = [
        {
            "id": chosen.ids[i],
            "target": target.pool.ids[int(found.items[i])],
            "kind": KINDS[found.kinds[i]],
            "share": float(found.shares[i]),
        }
        for i in found.worst()
    ]
    hits = int(found.hit.sum())
    if hits:
        first = worst[0]
        log.warning(
            "%d of %d chosen examples have what a target asks, most of all %s that of %s (%s)",
            *(hits, len(chosen), first["id"], first["target"], first["kind"]),
        )
    record.contamination({"against": "targets", "texts": len(asked), "examples": hits, "worst": worst})


def _medoids(clustering: Clustering) -> npt.NDArray[np.int64]:
    """The member nearest to the centroid, of each cluster that has any: indices into the pool."""
    order = np.lexsort((clustering.distances, clustering.labels))
    return order[np.unique(clustering.labels[order], return_index=True)[1]]
