"""Scores that come with the file."""

from __future__ import annotations

import numpy as np
import pytest

from dsel.errors import ConfigError
from dsel.pool import Example, Pool
from dsel.scorer.column import Column
from dsel.scorer.none import NoScorer


def pool(*scores: float | None) -> Pool:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        Example(str(i), messages, "s", {}, scores={} if score is None else {"quality": score})
        for i, score in enumerate(scores)
    ]
    return Pool.build("p", rows)


def test_the_column_is_the_score() -> None:
    np.testing.assert_array_equal(Column("quality").score(pool(1.5, -2, 3)), np.float32([1.5, -2, 3]))


def test_a_missing_column_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"scorer\.name=ifd: the pool has quality"):
        Column("ifd").score(pool(1, 2))


def test_examples_without_a_score_are_named() -> None:
    with pytest.raises(ConfigError, match=r"1 examples have no score \(ids 1\)"):
        Column("quality").score(pool(1, None, 3))


def test_what_needs_scores_and_has_none_says_so() -> None:
    with pytest.raises(ConfigError, match="choose a scorer"):
        NoScorer().check()
