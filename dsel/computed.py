"""What a run's record shows of all that its selector had computed: nothing is computed for the record's sake alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsel.clusterer.diagnostics import report
from dsel.embedder.plane import plane
from dsel.pool import Pool
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


def note_map(record: Record, known: Mapping[str, Any]) -> None:
    """Hands the record a plane picture of the pool, where the selector had its `embeddings` computed."""
    embeddings, clustering = known.get("embeddings"), known.get("clustering")
    if record.writes and embeddings is not None and len(embeddings) > 2:
        record.map(plane(embeddings, record.chosen, None if clustering is None else clustering.labels))
