"""The pool in a plane: the picture of it that a run leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pyarrow import Table

POINTS = 4000  # chosen, as many others, and as many medoids


def plane(
    embeddings: npt.NDArray[np.float32],
    chosen: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64] | None = None,
    medoids: npt.NDArray[np.int64] | None = None,
) -> Table:
    """A row for each point of the picture: index, x and y (two principal components), cluster, and whether chosen.

    Args:
        embeddings: float[n, d] of the pool, n > 2.
        chosen: distinct indices into it. Of these and of the others up to POINTS each are shown; the components are
            those of the points shown.
        labels: the cluster of each example, int[n]; without them clusters are null.
        medoids: distinct indices, of which up to POINTS are shown too.
    """
    import pyarrow as pa
    from sklearn.decomposition import PCA

    others = np.setdiff1d(np.arange(len(embeddings)), chosen)
    draws = np.random.default_rng(0)
    of_chosen, of_others = (np.sort(draws.permutation(part)[:POINTS]) for part in (chosen, others))
    if medoids is not None:
        of_others = np.union1d(of_others, np.setdiff1d(medoids[:POINTS], of_chosen))
    index = np.concatenate([of_chosen, of_others])
    points = PCA(2, svd_solver="randomized", random_state=0).fit_transform(embeddings[index])
    return pa.table(
        {
            "index": index,
            "x": points[:, 0].astype(np.float32),
            "y": points[:, 1].astype(np.float32),
            "cluster": pa.nulls(len(index), pa.int64()) if labels is None else pa.array(labels[index]),
            "chosen": np.isin(index, chosen),
        }
    )
