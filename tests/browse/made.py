"""Run folders as runs leave them, without the running: made-up pools, clusters and rounds, and the real record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsel.clusterer.base import Clustering
from dsel.computed import note_computed, note_map
from dsel.pool import Example, Pool
from dsel.record.writer import Record
from dsel.selector.base import Selection

SOURCES = ("chat", "code", "a source <b>of</b> many words")
WORDS = "the of cat loss river seven gradient paper blue winter count token mirror engine".split()


def made_pool(n: int, *, texts: dict[int, str] | None = None, words: int = 20) -> Pool:
    """A pool of n examples of random words; `texts` are the prompts of some of them."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(WORDS, (n, 2, words))

    def example(i: int) -> Example:
        prompt = (texts or {}).get(i, f"question {i}: {' '.join(drawn[i, 0])}?")
        answer = " ".join(drawn[i, 1])
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        original = {"instruction": prompt, "output": answer}
        return Example(f"e{i}", messages, SOURCES[i % len(SOURCES)], original)

    return Pool.build("made", map(example, range(n)))


def made_run(folder: Path, pool: Pool, *, budget: int, clusters: int = 12, rounds: int = 3) -> Path:
    """What a selector in rounds leaves in `folder`, with all tables that it can."""
    rng = np.random.default_rng(1)
    n = len(pool)
    labels = rng.integers(clusters, size=n)
    centroids = rng.normal(size=(clusters, 8)).astype(np.float32) * 3
    embeddings = (centroids[labels] + rng.normal(size=(n, 8))).astype(np.float32)
    distances = ((embeddings - centroids[labels]) ** 2).sum(1)
    quality = rng.normal(size=n).astype(np.float32)
    folder.mkdir(parents=True)
    config = {"seed": 3, "budget": budget}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsel.record.writer.environment", lambda: {"versions": {}, "gpus": []})
        record = Record(folder, config, {"selector": "iterative", "model": "tiny", "scorer": "length"})
    record.pool(pool, budget)
    order, weights = rng.permutation(n)[:budget], np.full(clusters, 1 / clusters)
    for number, new in enumerate(np.array_split(order, rounds), 1):
        drawn = np.bincount(labels[new], minlength=clusters)
        sizes = np.bincount(labels, minlength=clusters)
        table = {"cluster": np.arange(clusters), "size": sizes, "weight": weights, "chosen": drawn}
        record.note("weights", number, table)
        record.round(Selection(new, clusters=labels[new], weights=weights[labels[new]], scores=quality[new]), pool)
        answers = [f"answer {i} <i>of</i> the model" for i in new]
        heard = {"index": new, "cluster": labels[new], "answer": answers, "feedback": rng.normal(size=len(new))}
        record.note("answers", number, heard)
        weights = rng.dirichlet(np.ones(clusters))
    known = {"embeddings": embeddings, "quality": quality, "clustering": Clustering(labels, centroids, distances)}
    note_computed(record, known, pool, low_quality=-1)
    note_map(record, known, pool)
    record.finish("finished")
    return folder
