"""What a table says of a few seeds: means, standard errors, paired differences with intervals, and ranks.

Everything here is a plain function on small arrays. NaN stands for what there is no value for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Interval = tuple[float, float]

CONFIDENCE = 0.95
EXACT_UP_TO = 50_000  # resamples of a bootstrap that are all looked at: 6 seeds have 46,656
RESAMPLES = 10_000  # else so many, drawn with a fixed seed
NOTHING: Interval = (math.nan, math.nan)


def mean(values: ArrayLike) -> float:
    """The mean of the n values; NaN when n is 0."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.mean()) if len(found) else math.nan


def standard_error(values: ArrayLike) -> float:
    """The standard error of the mean of n values, from their sample deviation (ddof 1); NaN below two values."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan


def bootstrap(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Interval:
    """The percentile bootstrap interval of the mean of n values (Efron 1979); NaN below two values.

    Its ends are the smallest means that a share of (1 ± confidence) / 2 of the resamples does not exceed. Up to
    `EXACT_UP_TO` of them, all n**n resamples count; else `RESAMPLES` with a fixed seed, so it is the same each time.
    """
    found = np.asarray(values, dtype=np.float64)
    n = len(found)
    if n < 2:
        return NOTHING
    if n**n <= EXACT_UP_TO:
        resamples = np.indices((n,) * n).reshape(n, -1).T
    else:
        resamples = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(found[resamples].mean(axis=1), ends, method="inverted_cdf")
    return float(low), float(high)


def student_t(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean of n values; NaN below two values.

    With three to five seeds the bootstrap interval is too narrow: it resamples a deviation that is itself unsure.
    """
    from scipy import stats

    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        return NOTHING
    reach = float(stats.t.ppf((1 + confidence) / 2, df=len(found) - 1)) * standard_error(found)
    return mean(found) - reach, mean(found) + reach


@dataclass(frozen=True)
class Difference:
    """A paired difference: its mean, that in per cent of the baseline's mean, its intervals, and how many pairs."""

    points: float
    percent: float
    bootstrap: Interval
    student_t: Interval
    pairs: int


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """How far `values` are above those of `baseline`, both by seed: over the seeds that both have, None without any.

    Per cent are NaN where the baseline's mean over these seeds is zero.
    """
    seeds = sorted(set(values) & set(baseline))
    if not seeds:
        return None
    gaps = [values[seed] - baseline[seed] for seed in seeds]
    below = mean([baseline[seed] for seed in seeds])
    percent = 100 * mean(gaps) / abs(below) if below else math.nan
    return Difference(mean(gaps), percent, bootstrap(gaps), student_t(gaps), len(seeds))


def ranks(values: Sequence[float], *, higher_is_better: bool = True, decimals: int | None = None) -> list[int | None]:
    """The place of each value, 1 for the best; None for NaN, and for all where fewer than two have a value.

    Equal values share a place, and the next best value has the next one: [3, 3, 2] are placed 1, 1, 2. decimals: values
    that are shown as the same number are equal.
    """
    shown = [v if math.isnan(v) or decimals is None else round(v, decimals) for v in values]
    known = [v for v in shown if not math.isnan(v)]
    if len(known) < 2:
        return [None] * len(shown)
    order = sorted(set(known), reverse=higher_is_better)
    return [None if math.isnan(v) else order.index(v) + 1 for v in shown]
