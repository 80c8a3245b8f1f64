"""What a table says of a few seeds: means, standard errors, paired differences with intervals, and ranks.

Everything here is a plain function on small arrays. NaN stands for what there is no value for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

Interval = tuple[float, float]

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE  # below it an adjusted p tells two rows apart
NOTHING: Interval = (math.nan, math.nan)


def mean(values: ArrayLike) -> float:
    """The mean of the n values; NaN when n is 0."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.mean()) if len(found) else math.nan


def standard_error(values: ArrayLike) -> float:
    """The standard error of the mean of n values, from their sample deviation (ddof 1); NaN below two values."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan


def student_t(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean of n values; NaN below two values, and where all are one value other than zero.

    It holds what it says with any number of seeds (tests simulate that). The percentile bootstrap does not: it
    resamples a deviation that is itself unsure, and its "95 %" are 75 % with three seeds and 92 % with twenty.
    Accuracies over a small test set often differ by as many items with each of two seeds: such gaps have no interval,
    rather than one of no width.
    """
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2 or _same(found):
        return NOTHING
    reach = _quantile(len(found) - 1, (1 + confidence) / 2) * standard_error(found)
    return mean(found) - reach, mean(found) + reach


def over_items(gap: float, error: float | None, other: float | None) -> Interval:
    """The normal interval of a difference between two means over one test set, from their standard errors.

    It is of the set's examples alone, as if the two were independent (of the same examples it is a little too wide),
    and says nothing of seeds. NaN without both errors.
    """
    if error is None or other is None:
        return NOTHING
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.hypot(error, other)
    return gap - reach, gap + reach


def p_value(values: ArrayLike) -> float:
    """The two-sided p of a t-test that the mean of n values is zero; NaN where `student_t` has no interval.

    It is below 1 - c just where Student's interval of confidence c leaves zero out.
    """
    from scipy import stats

    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2 or _same(found):
        return math.nan
    centre, error = mean(found), standard_error(found)
    if not error:
        return 1.0
    return float(2 * stats.t.sf(abs(centre / error), df=len(found) - 1))


def holm(values: Sequence[float]) -> list[float]:
    """Each p adjusted for there being several (Holm 1979); NaN stays, and does not count.

    The chance that any of them falls below a level where nothing is different is then at most that level.
    """
    order = sorted((p, i) for i, p in enumerate(values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(values), 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class Difference:
    """A paired difference: its mean, that in per cent of the baseline's mean, Student's interval, and over how many.

    pairs: seeds that both have; unpaired: that one of them has. p: of a t-test; adjusted: that p for all comparisons
    of which this is one (`holm`).
    """

    points: float
    percent: float
    interval: Interval
    pairs: int
    unpaired: int
    p: float
    adjusted: float = math.nan


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """How far `values` are above those of `baseline`, both by seed: over the seeds that both have, None without any.

    Per cent are NaN where the baseline's mean over these seeds is zero.
    """
    seeds = sorted(set(values) & set(baseline))
    if not seeds:
        return None
    gaps = [round(values[seed] - baseline[seed], 9) for seed in seeds]  # equal is equal, however it was added up
    below = mean([baseline[seed] for seed in seeds])
    percent = 100 * mean(gaps) / abs(below) if below else math.nan
    unpaired = len(set(values) ^ set(baseline))
    return Difference(mean(gaps), percent, student_t(gaps), len(seeds), unpaired, p_value(gaps))


def differences(rows: Sequence[Mapping[int, float]], baseline: Mapping[int, float] | None) -> list[Difference | None]:
    """The difference of each row to the baseline, adjusted for there being several; None where there is none."""
    found = [None if baseline is None else difference(row, baseline) for row in rows]
    adjusted = holm([math.nan if one is None else one.p for one in found])
    return [None if one is None else replace(one, adjusted=p) for one, p in zip(found, adjusted, strict=True)]


def inseparable(rows: Sequence[Mapping[int, float]], *, higher_is_better: bool = True) -> list[bool]:
    """Which rows, each values by seed, are the best one or cannot be told from it.

    The best has the best mean of those with two seeds or more. Rows that share two seeds or more with it are told from
    it where it is ahead in a paired t-test over these, adjusted for all such rows (`holm`). Where there is no such row,
    nothing can be said, and none is marked.
    """
    sign = 1 if higher_is_better else -1
    means = [sign * mean(list(row.values())) if len(row) > 1 else -math.inf for row in rows]
    best = max(range(len(rows)), key=means.__getitem__, default=0)
    gaps = differences([{} if i == best else row for i, row in enumerate(rows)], rows[best] if rows else {})
    close = [g is not None and g.pairs > 1 and (not g.adjusted < LEVEL or sign * g.points >= 0) for g in gaps]
    compared = any(gap is not None and gap.pairs > 1 for gap in gaps)
    return [compared and (i == best or near) for i, near in enumerate(close)]


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


def _same(values: np.ndarray) -> bool:
    """Whether all values are one, and not zero: by how much they would vary is then not known."""
    return bool(values[0] != 0 and np.all(values == values[0]))


@cache
def _quantile(df: int, share: float) -> float:
    """The value that a share of Student's t distribution is below."""
    from scipy import stats

    return float(stats.t.ppf(share, df=df))
