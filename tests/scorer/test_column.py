"""Scores that come with a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dsel.component import digest, identity
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


def lines(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_column_is_the_score(tmp_path: Path) -> None:
    np.testing.assert_array_equal(Column("quality").score(pool(1.5, -2, 3), tmp_path), np.float32([1.5, -2, 3]))


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.name=ifd: the pool has quality"):
        Column("ifd").score(pool(1, 2), tmp_path)


def test_a_column_of_text_is_said_to_be_one(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [Example(str(i), messages, "s", {"score": text}) for i, text in enumerate(("", "4,5"))]
    with pytest.raises(ConfigError, match="this column holds text that is no number, as '4,5'"):
        Column("score").score(Pool.build("p", rows), tmp_path)


def test_examples_without_a_score_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"1 examples have no score \(ids 1\)"):
        Column("quality").score(pool(1, None, 3), tmp_path)


def test_a_side_file_is_joined_by_id(tmp_path: Path) -> None:
    rows = [{"id": "2", "q": 7}, {"id": "other", "q": 1}, {"id": 0, "q": 0.5}, {"id": "1", "q": -1}]
    scorer = Column("q", lines(tmp_path / "scores.jsonl", *rows))
    scorer.check()
    np.testing.assert_array_equal(scorer.score(pool(0, 0, 0), tmp_path), np.float32([0.5, -1, 7]))


def test_a_csv_side_file_works_too(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("id,q\n1,2.5\n0,1e-3\n")
    scores = Column("q", str(tmp_path / "scores.csv")).score(pool(0, 0), tmp_path)
    np.testing.assert_array_equal(scores, np.float32([0.001, 2.5]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "0", "q": 1}], r"1 examples have no score \(ids 1\)"),
        ([{"id": "0", "q": 1}, {"id": "1", "q": "good"}], r"1 examples have no score \(ids 1\)"),
        ([{"id": "0", "quality": 1}], "no column q; the columns are id, quality"),
        ([{"id": "0", "q": 1}, {"id": "0", "q": 2}], "two different scores for id 0"),
        ([{"q": 1}], "no row with an id and a number"),
    ],
)
def test_what_is_wrong_with_a_side_file_is_said(tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Column("q", lines(tmp_path / "scores.jsonl", *rows)).score(pool(0, 0), tmp_path)


def test_a_side_file_is_known_by_its_content(tmp_path: Path) -> None:
    one = Column("q", lines(tmp_path / "a.jsonl", {"id": "0", "q": 1}))
    same = Column("q", lines(tmp_path / "b.jsonl", {"id": "0", "q": 1}))
    other = Column("q", lines(tmp_path / "c.jsonl", {"id": "0", "q": 2}))
    assert digest(one) == digest(same) != digest(other)
    assert str(tmp_path) not in str(identity(one))
    with pytest.raises(ConfigError, match=r"scorer\.file="):
        Column("q", str(tmp_path / "missing.jsonl")).check()


def test_what_needs_scores_and_has_none_says_so() -> None:
    with pytest.raises(ConfigError, match="choose a scorer"):
        NoScorer().check()
