"""What evaluators return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One figure with its standard error (NaN where there is none).

    n: examples it is over. detail: a part of another figure, which summaries leave out.
    """

    value: float
    stderr: float
    metric: str
    n: int | None = None
    shots: int | None = None
    higher_is_better: bool = True
    detail: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def average(metrics: Mapping[str, Metric]) -> Metric:
    """Unweighted mean over tasks; its standard error takes the tasks as independent."""
    k = len(metrics)
    stderr = math.sqrt(sum(m.stderr**2 for m in metrics.values())) / k
    return Metric(sum(m.value for m in metrics.values()) / k, stderr, "mean over tasks")
