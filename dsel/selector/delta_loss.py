"""Examples drawn by how much their loss has fallen, from the fast learnt to the slow (DataFlex: Liang et al. 2026)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dsel.arrays import Doubles
from dsel.constraints import Above, AtMost, NotNegative, Positive
from dsel.selector.loss import ByLoss


def weights(
    first: ArrayLike, present: ArrayLike, time: float, *, window: float = 0.2, steepness: float = 10.0,
    outside: float = 0.025,
) -> Doubles:  # fmt: skip
    """How likely each example is to be drawn, in proportion: float64[n].

    Examples are put in order by first − present, the largest first. The window over the order begins at
    σ(steepness · (time − ½)) · (1 − window) · n and is window · n long, but ends before the first loss that has risen.

    Args:
        first: the base model's losses, float[n].
        present: the losses of the model as it stands, float[n].
        time: from 0 to 1; the window moves from the front of the order to its end.
        window: its share of the pool.
        steepness: of the sigmoid σ that moves it: the larger, the longer it stays at either end.
        outside: the weight of an example that is not in the window, where that of one that is is 1.

    Returns:
        0 for an example without a loss. Ties in the order go to the lower index.
    """
    fallen = np.asarray(first, dtype=np.float64) - np.asarray(present, dtype=np.float64)
    known, n = np.isfinite(fallen), len(fallen)
    order = np.argsort(np.where(known, -fallen, np.inf), kind="stable")
    start = (n - window * n) / (1 + math.exp(-steepness * (time - 0.5)))
    end = min(int(start + window * n), int((fallen[known] >= 0).sum()))
    out = np.where(known, outside, 0.0)
    out[order[int(start) : end]] = 1.0
    return out


@dataclass
class DeltaLoss(ByLoss):
    """`selector=delta_loss`: for each epoch a fresh subset, mostly of a window over the order of fallen losses.

    The window, a share of the pool, moves from the examples whose loss has fallen most to those where it has hardly
    fallen. window, steepness, outside: see `weights`. epochs, max_length: see `ByLoss`.
    """

    window: Annotated[float, Above(0), AtMost(1)] = 0.2
    steepness: Positive = 10.0
    outside: NotNegative = 0.025

    reads_first: ClassVar[bool] = True

    def weigh(self, losses: Doubles, first: Doubles | None, time: float) -> Doubles:
        assert first is not None
        return weights(first, losses, time, window=self.window, steepness=self.steepness, outside=self.outside)
