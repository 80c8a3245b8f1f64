"""Pools on disk: what was written is what is read, however it was cut, and it is made once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsel.batches import ROWS, Distinct, pieces
from dsel.cache import Cache
from dsel.messages import to_column
from dsel.originals import Originals
from dsel.pool import Example, Pool
from dsel.stored import FORMAT, Writer, read, stored


def examples(n: int) -> list[Example]:
    made = []
    for i in range(n):
        answer = {"role": "assistant", "content": f"answer é {i}" * (i % 5)}
        turns = [{"role": "user", "content": f"question {i}"}, answer | ({"reasoning_content": "so"} if i % 7 else {})]
        score = {"quality": i / 3, **({"other": float(i)} if i % 2 else {})}
        made.append(Example(f"e{i % 40}", turns, f"s{i % 3}", {"row": i}, score, {"answer": str(i)}))
    return made


def write(writer: Writer, rows: Sequence[Example], cuts: Sequence[int]) -> None:
    for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        some = rows[start:end]
        batch = {
            "source": pa.array([e.source for e in some], pa.large_string()),  # of another type, in another place
            "id": pa.array([e.id for e in some]),
            "messages": to_column(e.messages for e in some),
            "quality": pa.array([e.scores["quality"] for e in some]),
        }
        if any("other" in e.scores for e in some):
            batch["other"] = pa.array([e.scores.get("other") for e in some])
        truth = pa.record_batch({"answer": [e.truth["answer"] for e in some]})
        writer.write(pa.record_batch(batch), Originals.of_rows(e.original for e in some), truth)


def same(one: Pool, two: Pool) -> bool:
    columns = [c for c in one.rows.column_names if c not in ("messages", "other")]
    assert one.rows.column_names == two.rows.column_names
    assert all(one.rows[c] == two.rows[c] for c in columns) and one.messages == two.messages
    np.testing.assert_array_equal(one.rows["other"], two.rows["other"])
    assert one.originals["json"] == two.originals["json"]
    return one.fingerprint == two.fingerprint


@pytest.mark.parametrize("cuts", [[], [1], [3, 50, 51, 90]])
@pytest.mark.parametrize("on_disk", [True, False])
def test_a_pool_is_the_same_however_it_is_written(tmp_path: Path, cuts: list[int], on_disk: bool) -> None:
    rows = examples(100)
    writer = Writer(tmp_path if on_disk else None)
    write(writer, rows, cuts)
    pool = writer.finish("p", skipped={"bad": 2})
    built = Pool.build("p", rows)
    assert same(pool, built) and pool.skipped == {"bad": 2}
    assert pool.truth is not None and pool.truth["answer"] == [str(i) for i in range(100)]
    assert pool.ids[40] == "e0#2" and pool.ids[80] == "e0#3"
    assert pool.texts == built.texts and pool.responses == built.responses
    if on_disk:
        assert same(read(tmp_path), built)


def test_a_slice_of_a_batch_has_the_digest_of_its_rows(tmp_path: Path) -> None:
    rows = examples(30)
    whole = pa.record_batch(
        [pa.array([e.id for e in rows]), to_column(e.messages for e in rows), pa.array([e.source for e in rows])],
        names=["id", "messages", "source"],
    )
    writer = Writer(tmp_path)
    for start, size in ((5, 7), (12, 18)):
        writer.write(whole.slice(start, size), Originals.of_rows(e.original for e in rows[start : start + size]))
    plain = [Example(e.id, e.messages, e.source, e.original) for e in rows[5:]]
    assert writer.finish("p").fingerprint == Pool.build("p", plain).fingerprint


def test_scores_may_be_put_together_or_left_out() -> None:
    rows = [Example("a", [], "s", {}), Example("b", [], "s", {})]
    batch = pa.record_batch(
        [["a", "b"], to_column(e.messages for e in rows), ["s", "s"], [1.0, None], [5.0, 2.0], [0, 1]],
        names=["id", "messages", "source", "x", "text of x", "y"],
    )
    writer = Writer(None)
    writer.write(batch, Originals.of_rows(e.original for e in rows))
    pool = writer.finish("p", scores={"x": ["x", "text of x"]})
    assert pool.score_columns == ["x"] and pool.rows["x"] == [1.0, 2.0]


def test_rows_that_are_not_used_are_listed(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    write(writer, examples(3), [])
    for i in range(5):
        writer.report("a.jsonl", i, "not JSON")
    writer.finish("p")
    table = pq.read_table(tmp_path / "reported.parquet")
    assert table.column_names == ["file", "row", "reason"] and table.column("row").to_pylist() == [0, 1, 2, 3, 4]


def test_batches_are_cut_by_rows_and_by_bytes() -> None:
    many = pa.record_batch({"a": pa.array(np.arange(3 * ROWS + 1))})
    assert [p.num_rows for p in pieces(many)] == [ROWS, ROWS, ROWS, 1]
    large = pa.record_batch({"a": ["x" * 2**24] * 5})
    assert [p.num_rows for p in pieces(large)] == [2, 2, 1]


@given(st.lists(st.sampled_from("a b a#2 a#3 a#2#2 c".split()), max_size=30), st.integers(1, 30))
def test_ids_are_made_distinct_however_they_are_cut(names: list[str], size: int) -> None:
    distinct = Distinct()
    found = [n for i in range(0, len(names), size) for n in distinct(pa.array(names[i : i + size])).to_pylist()]
    seen: set[str] = set()
    counts: dict[str, int] = {}
    for name, unique in zip(names, found, strict=True):
        wanted = name
        while wanted in seen:
            counts[name] = counts.get(name, 1) + 1
            wanted = f"{name}#{counts[name]}"
        assert unique == wanted
        seen.add(wanted)


def test_many_ids_are_told_apart() -> None:
    distinct = Distinct()
    names = [f"row/{i}" for i in range(100_000)]
    for start in range(0, len(names), 5000):
        some = pa.array(names[start : start + 5000])
        assert distinct(some).equals(some)
    assert distinct(pa.array(names[77_777:77_779])).to_pylist() == ["row/77777#2", "row/77778#2"]


def test_a_pool_is_made_once_and_says_again_what_its_reader_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = 0

    def fill(writer: Writer) -> Pool:
        nonlocal made
        made += 1
        write(writer, examples(10), [4])
        return writer.finish("p", said=[(logging.WARNING, "two rows were odd")])

    cache = Cache(tmp_path)
    first = stored(cache, {"file": 1}, fill)
    assert not first.found and not caplog.records
    again = stored(cache, {"file": 1}, fill)
    assert again.found and made == 1 and again.fingerprint == first.fingerprint
    assert [r.message for r in caplog.records] == ["two rows were odd"]
    assert stored(None, {"file": 1}, fill).fingerprint == first.fingerprint


def test_two_that_want_the_same_new_pool_make_it_once(tmp_path: Path) -> None:
    made: list[Path | None] = []

    def fill(writer: Writer) -> Pool:
        made.append(writer.folder)
        time.sleep(0.3)  # both are here by now
        write(writer, examples(10), [4])
        return writer.finish("p")

    with ThreadPoolExecutor(2) as both:
        one, two = both.map(lambda _: stored(Cache(tmp_path), 1, fill), range(2))
    assert len(made) == 1 and one.found != two.found and one.fingerprint == two.fingerprint


def test_what_a_killed_run_left_is_no_part_of_the_pool(tmp_path: Path) -> None:
    def killed(writer: Writer) -> Pool:
        write(writer, examples(50), [4])
        writer.report("a.jsonl", 3, "odd")
        writer.finish("p")
        raise KeyboardInterrupt

    def fill(writer: Writer) -> Pool:
        rows = [Example(e.id, e.messages, e.source, e.original) for e in examples(10)]
        batch = pa.record_batch(
            [pa.array([e.id for e in rows]), to_column(e.messages for e in rows), pa.array([e.source for e in rows])],
            names=["id", "messages", "source"],
        )
        writer.write(batch, Originals.of_rows(e.original for e in rows))
        return writer.finish("p")

    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stored(cache, 1, killed)
    pool = stored(cache, 1, fill)
    assert not pool.found and pool.truth is None and not pool.score_columns and len(pool) == 10
    assert sorted(p.name for p in cache.path("pools", {"format": FORMAT, "of": 1}).iterdir()) == [
        "key.json", "originals.arrow", "pool.json", "rows.arrow"
    ]  # fmt: skip
