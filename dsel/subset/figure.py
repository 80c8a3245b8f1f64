"""The picture of a subset: the pool in a plane, and what was chosen of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsel.embedder.plane import plane
from dsel.errors import need
from dsel.subset.choose import Chosen

KINDS = (".png", ".svg", ".pdf")
GREY, CHOSEN = "#8a919a", "#d55e00"  # seen on light and on dark


def check(path: Path) -> None:
    """Raise `ConfigError` for a file that no picture can be."""
    need(path.suffix.lower() in KINDS, f"--picture {path}: give a name that ends in {', '.join(KINDS)}")


def draw(chosen: Chosen, path: Path) -> None:
    """Write the picture; the vectors are computed now, where the selector had no need of them."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    from dsel.files import replacing

    study = chosen.problem.study
    need(len(study.pool) > 2, "--picture: three examples make the smallest one")
    points = plane(np.asarray(study.embeddings), np.unique(chosen.indices))
    x, y, is_chosen = (points[name].to_numpy(zero_copy_only=False) for name in ("x", "y", "chosen"))
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.subplots()
    few = f", {len(x):,} of them shown" if len(x) < len(study.pool) else ""
    for part, colour, size, label in (
        (~is_chosen, GREY, 4, f"the pool, {len(study.pool):,} examples{few}"),
        (is_chosen, CHOSEN, 8, f"chosen, {len(chosen.indices):,}"),
    ):
        axes.scatter(x[part], y[part], s=size, color=colour, alpha=0.6, linewidths=0, rasterized=True, label=label)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("Two principal components of the embeddings", fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=200, format=path.suffix.lower()[1:])
