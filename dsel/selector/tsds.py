"""TSDS: probabilities by optimal transport from the targets, less where the pool is dense (Liu et al. 2024).

Task-specific data selection, arXiv 2410.11303: KNN-Uniform and KNN-KDE, their Algorithms 1 and 2.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsel.arrays import Doubles, Floats, Indices
from dsel.constraints import Above, AtMost, Count, NotNegative
from dsel.npy import copied
from dsel.retrieval import CELLS, top
from dsel.selector.base import Selection, Static
from dsel.selector.density import kde, kde_by_lists, turn
from dsel.selector.sampling import gumbel_top
from dsel.study import Study

log = logging.getLogger(__name__)


def transport(
    distances: ArrayLike, density: ArrayLike, *, alpha: float, c: float
) -> tuple[Doubles, NDArray[np.int64]] | None:
    """How much of each target's mass goes to each of its nearest neighbours.

    Minimises α/C · (the mean distance) + (1 − α) · (how far from an even spread): targets fill their neighbours, the
    nearest first, each with the mass 1/(M·s·ρ), and s is the smallest level at which
    α/C · Σ over targets, and over their full neighbours l, of (distance to the first that is not full − d_l)/ρ_l
    is (1 − α)·M or more: to spread farther costs more than it gains.

    Args:
        distances: float[M, L], of each target to its L nearest, rising.
        density: float[M, L], ρ of those neighbours, positive; all 1 is KNN-Uniform.
        alpha: what weighs distances against an even spread.
        c: C, the scale of distances.

    Returns:
        Mass float64[M, L - 1], 1 in all, and how many neighbours each target fills before that level, int64[M]; the
        next one gets what is left. None where L is too few.
    """
    d, weight = np.asarray(distances, dtype=np.float64), 1 / np.asarray(density, dtype=np.float64)
    m = len(d)
    if d.shape[1] < 2:
        return None
    full_at = weight.cumsum(axis=1)[:, :-1]  # the level at which a neighbour is full
    order = np.argsort(full_at, axis=None, kind="stable")
    costs = (np.diff(d, axis=1) * full_at).ravel()[order].cumsum()
    enough = int(np.searchsorted(costs, (1 - alpha) * m * c / alpha))
    level = full_at.ravel()[order[enough]] if enough < len(order) else np.inf
    if level > full_at[:, -1].min():  # beyond it a target has no neighbour left
        return None
    filled = np.bincount(order[:enough] // full_at.shape[1], minlength=m)
    mass = np.where(np.arange(full_at.shape[1]) < filled[:, None], weight[:, :-1], 0.0) / (m * level)
    rest = filled < mass.shape[1]  # at the very level at which a target has filled all, nothing of it is left
    mass[rest, filled[rest]] = (1 / m - mass.sum(axis=1))[rest]
    return mass, filled


def probabilities(
    pool: ArrayLike,
    targets: ArrayLike,
    *,
    alpha: float = 0.5,
    c: float = 5.0,
    sigma: float = 0.75,
    max_k: int = 5000,
    kde_k: int = 1000,
    neighbours: str = "exact",
) -> tuple[Doubles, Doubles]:
    """With what probability each example is drawn, float64[n], and its distance to a target that it is near to.

    pool [n, d], targets [m, d]; the other options are those of `Tsds`. Densities are computed for as many neighbours of
    each target as are filled, and among all the max_k of each target. Distances are infinite beyond these.
    """
    x, wanted = np.asanyarray(pool), np.asarray(targets, dtype=np.float32)
    k, kernel = (max(2, min(most, len(x) // 10)) for most in (max_k, kde_k))
    k = min(k, len(x))
    nearest, far = _nearest(x, wanted, k)
    known, place = np.unique(nearest, return_inverse=True)
    place = place.reshape(nearest.shape)
    candidates = x[:0]
    if sigma:
        candidates = copied(x, known, np.float32)
        turn(candidates)
    density, unseen = np.ones(len(known)), np.full(len(known), sigma > 0)
    estimate = kde if neighbours == "exact" else kde_by_lists
    while True:
        # No density is below 1, that of an example alone, and the larger they are, the more neighbours are filled. So
        # those filled by now, and the next one of each target, are wanted in any case; once known, they decide.
        found = transport(far, density[place], alpha=alpha, c=c)
        missing = np.unique(place if found is None else place[np.arange(k) <= found[1][:, None]])
        missing = missing[unseen[missing]]
        if not missing.size:
            break
        estimated = estimate(candidates, missing, sigma=sigma, neighbours=kernel)
        density[missing] = np.maximum(estimated, 1)  # rounding may hide an example from itself where σ is small
        unseen[missing] = False
    if found is None:
        why = f"selector.max_k={max_k}" if k == max_k else "a tenth of the pool"
        log.warning("tsds: %d neighbours of each target (%s) do not suffice: all of them share evenly", k, why)
        mass = 1 / density[place]
        mass /= len(wanted) * mass.sum(axis=1, keepdims=True)
    else:
        mass = found[0]
    drawn = nearest[:, : mass.shape[1]].ravel()
    probability = np.bincount(drawn, mass.ravel(), minlength=len(x)).astype(np.float64)
    distance = np.full(len(x), np.inf)
    np.minimum.at(distance, nearest.ravel(), far.ravel())
    return probability, distance


def _nearest(x: NDArray[np.floating], wanted: Floats, k: int) -> tuple[Indices, Doubles]:
    """The k nearest rows of x to each target, int64[m, k], and their distances, float64[m, k], rising."""
    squares = np.einsum("md,md->m", wanted, wanted)

    def blocks() -> Iterator[Floats]:
        step = max(1, CELLS // len(wanted))
        for start in range(0, len(x), step):
            part = np.asarray(x[start : start + step], dtype=np.float32)
            yield 2 * part @ wanted.T - squares - np.einsum("nd,nd->n", part, part)[:, None]

    indices = top(blocks(), k)[0]
    far = np.empty(indices.shape)
    for i, row in enumerate(indices):
        apart = np.asarray(x[row], dtype=np.float64)
        apart -= wanted[i]
        far[i] = np.sqrt(np.einsum("kd,kd->k", apart, apart))
    order = np.argsort(far, axis=1, kind="stable")  # products round, differences less
    return np.take_along_axis(indices, order, 1), np.take_along_axis(far, order, 1)


def draw(probability: Doubles, distance: Doubles, budget: int, rng: np.random.Generator) -> Indices:
    """`budget` distinct examples, drawn one after another in proportion to their probability; then the nearest others.

    probability, distance: float64[n]. Returns int64[budget] in the order drawn.
    """
    with np.errstate(divide="ignore"):
        return gumbel_top(np.log(probability), budget, rng, then=distance)


@dataclass
class Tsds(Static):
    """`selector=tsds`: b distinct examples (the released code draws with replacement).

    alpha: 1 is nearness to the targets alone, small values spread farther. c: C, the scale of distances. sigma: σ of
    the kernel that sees how dense the pool is (KNN-KDE); 0: it does not (KNN-Uniform). max_k: neighbours of a target
    that are looked at; kde_k: of an example, for its density; each at most a tenth of the pool. neighbours: of these
    `exact`, or nearly, by faiss's inverted file (`ivf`), for pools where all products of all with all take too long.
    """

    alpha: Annotated[float, Above(0), AtMost(1)] = 0.5
    c: Annotated[float, Above(0)] = 5.0
    sigma: NotNegative = 0.75
    max_k: Count = 5000
    kde_k: Count = 1000
    neighbours: Literal["exact", "ivf"] = "exact"

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings", "target_embeddings"})

    def select(self, study: Study) -> Selection:
        probability, distance = probabilities(
            study.embeddings,
            study.resource("target_embeddings"),
            alpha=self.alpha,
            c=self.c,
            sigma=self.sigma,
            max_k=self.max_k,
            kde_k=self.kde_k,
            neighbours=self.neighbours,
        )
        drawable = int(np.count_nonzero(probability))
        if drawable < study.budget:
            log.info("tsds: %d examples have a probability; the others are the nearest beside them", drawable)
        chosen = draw(probability, distance, study.budget, study.rng)
        return Selection(chosen, scores=probability[chosen].astype(np.float32))
