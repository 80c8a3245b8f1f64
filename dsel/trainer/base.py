"""What a selector asks of the trainer after a round's choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Training:
    """One finetuning: on which examples, for how long, and from where. The default is a static method's.

    on: indices int64[m] into the pool, or None for the round's choice. epochs: instead of the trainer's own. restart:
    from the base model, else from where the last finetuning left it. part: (i, m) for the i-th of m finetunings, i from
    1, that are one training: one optimizer and one learning rate schedule over all of them.
    """

    on: npt.NDArray[np.int64] | None = None
    epochs: float | None = None
    restart: bool = True
    part: tuple[int, int] = (1, 1)

    @property
    def goes_on(self) -> bool:
        """Whether parts of the same training follow."""
        return self.part[0] < self.part[1]
