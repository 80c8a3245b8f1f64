"""GIST: gradients compared in the space that the targets' span (Min et al. 2026, arXiv 2602.18584)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Floats
from dsel.constraints import Above, AtMost
from dsel.pool import Pool
from dsel.selector.less import ByGradients, similarities
from dsel.study import Study

if TYPE_CHECKING:
    from dsel.learner import Learner

FILE = "directions.npy"
COLUMNS = 65536  # of gradients, that are multiplied at once
NOTHING = 1e-12  # of the largest eigenvalue: what is smaller is rounding


def directions(targets: ArrayLike, *, variance: float = 0.95, whiten: bool = False) -> Floats:
    """The directions that the targets' gradients vary in: float32[r, d], orthonormal (Min et al. 2026).

    With K = GGᵀ = UΛUᵀ for the gradients G of the targets they are the rows of Λ^(−½)UᵀG, G's right singular vectors,
    that go with the r largest eigenvalues. Time grows with m²d; in memory are m² numbers and as many as are returned.

    Args:
        targets: gradients, float32[m, d], at least one of which is not zero; read block by block.
        variance: r is the smallest number of directions that keep this share of the sum of eigenvalues.
        whiten: each is divided by its singular value too, so that the targets' products with all are of one size.
    """
    gradients = np.asanyarray(targets)
    m, d = gradients.shape
    gram = np.zeros((m, m))
    for start in range(0, d, COLUMNS):
        part = gradients[:, start : start + COLUMNS].astype(np.float64)
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    values = np.where(values > NOTHING * values[0], values, 0.0)
    if not values[0]:
        raise ValueError("the targets have no gradients: max_length leaves none of their responses, or they are empty")
    kept = np.cumsum(values) / values.sum()
    r = min(int(np.searchsorted(kept, variance - 1e-12)) + 1, int((values > 0).sum()))
    weights = (vectors[:, :r] / (values[:r] if whiten else np.sqrt(values[:r]))).T
    out = np.empty((r, d), dtype=np.float32)
    for start in range(0, d, COLUMNS):
        out[:, start : start + COLUMNS] = weights @ gradients[:, start : start + COLUMNS].astype(np.float64)
    return out


@dataclass
class Gist(ByGradients):
    """`selector=gist`: a warm-up on a random part of the pool, and at each of its checkpoints the plain gradients,
    compared in the space that the gradients of the targets span.

    What is kept of an example is its products with r `directions`, as many as keep the share `variance` of what the
    targets' gradients vary by: a few dozen numbers. An example is compared with the mean of a subtask's targets by the
    cosine of these. whiten: see `directions`. The others: see `ByGradients`; with projection=none the directions are of
    the gradients themselves, r times the parameters of LoRA.
    """

    variance: Annotated[float, Above(0), AtMost(1)] = 0.95
    whiten: bool = False

    def compare(
        self, study: Study, learner: Learner, target: Pool, subtasks: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.floating]:
        there = self.wanted(study, learner, target)

        def build(folder: Path) -> None:
            np.save(folder / FILE, directions(there, variance=self.variance, whiten=self.whiten))

        key = {**self.known_by(learner, target), "variance": self.variance, "whiten": self.whiten}
        file = study.artifact("directions", "directions", key, build, items=len(target)) / FILE
        here = self.features(study, learner, study.pool, onto=file)
        return similarities(here, there @ np.load(file).T, subtasks, subtask="mean_gradient")
