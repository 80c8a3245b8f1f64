"""How much of a pool each selector covers, where the truth about its tasks is known: a table in Markdown.

    python -m tests.bench.coverage data=p3 data.path=../shared/data/p3_55k.parquet 'data.columns={source: template}'

The arguments are overrides of a run; the source of each example is taken as its true task. Columns: tasks with at
least one example chosen; entropy of the choice over tasks, in bits; covering radius, the largest distance from an
example to the nearest chosen one; mean quality; seconds the method itself took, with embeddings, clusters and quality
at hand.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dsel.cache import Cache
from dsel.config_groups import ROOT
from dsel.pool import resolve_budget
from dsel.stage import Stage
from dsel.study import Study

METHODS = (
    "random uniform longest quality deita qdit kcenter facility_location graphfilter kmeans_closest "
    "kmeans_uniform kmq kmeans_centroids kmeans_median kmeans_dynamic semdedup"
).split()
DEFAULTS = ["embedder=tfidf_svd", "embedder.dimensions=384", "clusterer.k=256", "scorer=length", "budget=0.02"]
SEEDS = 3  # for methods that draw: the table shows the mean


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    yield Stage(name)


def radius(x: np.ndarray, chosen: np.ndarray) -> float:
    """Largest Euclidean distance from a row of x to the nearest of the chosen rows."""
    squares = np.einsum("nd,nd->n", x, x)
    far = 0.0
    for rows in np.array_split(np.arange(len(x)), max(1, len(x) // 2048)):
        gaps = squares[rows, None] - 2 * x[rows] @ x[chosen].T + squares[None, chosen]
        far = max(far, float(gaps.min(axis=1).max()))
    return float(np.sqrt(max(far, 0.0)))


def entropy(tasks: np.ndarray) -> float:
    """Of the shares of tasks, in bits."""
    share = np.unique(tasks, return_counts=True)[1] / len(tasks)
    return float(-(share * np.log2(share)).sum())


def main(overrides: list[str]) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=[*DEFAULTS, *overrides])
        selectors = {m: compose("config", overrides=[f"selector={m}"]).selector for m in METHODS}
    parts = {g: instantiate(config[g], _convert_="all") for g in ("data", "embedder", "clusterer", "scorer")}
    pool = parts.pop("data").load().blind()
    budget = resolve_budget(config.budget, len(pool))
    tasks = np.array(pool.sources)

    def study(seed: int) -> Study:
        return Study(pool, budget, np.random.default_rng(seed), **parts, cache=Cache(config.cache), stage=stage)

    known = study(0)
    x, quality = np.asarray(known.embeddings), known.quality_or_fail()
    print(f"{len(pool):,} examples, {len(set(tasks))} tasks, budget {budget:,}, clusters {known.clustering.k}\n")
    print("| selector | tasks covered | entropy (bits) | covering radius | mean quality | seconds |")
    print("|---|---|---|---|---|---|")
    for method, options in selectors.items():
        rows = []
        for seed in range(SEEDS):
            problem = study(seed)
            problem.computed.update(embeddings=known.embeddings, clustering=known.clustering, quality=quality)
            selector = instantiate(options, _convert_="all")
            start = time.perf_counter()
            chosen = next(selector.steps(problem, None)).selection.indices
            seconds = time.perf_counter() - start
            covered = len(set(tasks[chosen]))
            rows.append((covered, entropy(tasks[chosen]), radius(x, chosen), quality[chosen].mean(), seconds))
            if seconds > 20:
                break  # the slow ones do not draw
        covered, bits, far, mean, seconds = np.mean(rows, axis=0)
        print(f"| `{method}` | {covered:.0f} | {bits:.2f} | {far:.3f} | {mean:.1f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
