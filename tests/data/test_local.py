"""A pool from files: labels, limits, bad rows, and the real data where this checkout has it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.component import digest
from dsel.data.local import Local
from dsel.errors import ConfigError
from tests.conftest import checked, shared


def row(i: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"question {i}", "completion": f"answer {i}", **more}


def write(path: Path, *rows: Mapping[str, Any] | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def originals(local: Local) -> list[Any]:
    return [json.loads(text) for text in local.load().originals["json"]]


def refused(local: Local, *words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        local.check()
        local.load()
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_files_without_labels_are_named_after_themselves(tmp_path: Path) -> None:
    files = [write(tmp_path / "one.jsonl", row(0), row(1)), write(tmp_path / "two.part.json", row(2), row(3))]
    pool = Local(path=[str(f) for f in files]).load()
    assert pool.sources == ["one", "one", "two", "two"]
    assert pool.ids == ["one/1", "one/2", "two/1", "two/2"]
    assert pool.responses == [f"answer {i}" for i in range(4)]
    assert Local(path=str(tmp_path)).load().fingerprint == pool.fingerprint


def test_labels_come_before_the_source_column_and_that_before_the_files_name(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", row(0, source="web"), row(1, dataset="books"), row(2), row(3, source=""))
    assert Local(path=file).load().sources == ["web", "books", "a", "a"]
    assert Local(path={"mine": str(file)}).load().sources == ["mine"] * 4


def test_labelled_files_keep_their_order_and_may_differ_in_format(tmp_path: Path) -> None:
    chat = write(
        tmp_path / "z.jsonl", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    )
    code = write(tmp_path / "folder" / "y.jsonl", {"instruction": "c", "input": "", "output": "d"})
    pool = Local(path={"chat": str(chat), "code": str(code.parent)}).load()
    assert list(zip(pool.sources, pool.texts, strict=True)) == [("chat", "a\nb"), ("code", "c\nd")]


def test_a_label_may_have_several_files(tmp_path: Path) -> None:
    files = [str(write(tmp_path / f"{name}.jsonl", row(0), row(1))) for name in "abc"]
    pool = Local(path={"flan": files[0], "rest": files[1:]}).load()
    assert pool.sources == ["flan"] * 2 + ["rest"] * 4
    assert pool.ids == ["flan/1", "flan/2", "rest/1", "rest/2", "rest/3", "rest/4"]


def test_files_of_one_name_are_two_sources_and_shards_are_one(tmp_path: Path) -> None:
    files = [write(tmp_path / name / "train.jsonl", row(0), row(1)) for name in ("chat", "code")]
    pool = Local(path=[str(f) for f in files]).load()
    assert pool.sources == ["chat", "chat", "code", "code"]
    assert pool.ids == ["chat/1", "chat/2", "code/1", "code/2"]
    for i in range(2):
        write(tmp_path / "x" / f"part-{i}.jsonl", row(i), row(i))
    assert Local(path=tmp_path / "x").load().ids == ["part/1", "part/2", "part/3", "part/4"]


def test_the_test_split_is_in_no_pool_unasked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, count in (("train", 3), ("test", 2)):
        write(tmp_path / "d" / "data" / f"{split}-00000-of-00001.jsonl", *map(row, range(count)))
    with caplog.at_level(logging.INFO, "dsel"):
        assert len(Local(path=tmp_path / "d").load()) == 3
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert "split test (test-00000-of-00001.jsonl)" in line
    assert len(Local(path=tmp_path / "d", split="test").load()) == 2
    assert len(Local(path=tmp_path / "d", split=None).load()) == 5
    refused(Local(path=tmp_path / "d", split="dev"), "no split dev", "train", "test", "data.split")


def test_missing_shards_double_and_empty_files_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "a-00001-of-00002.jsonl", row(0))
    pool = Local(path=[file, file, write(tmp_path / "b.jsonl")]).load()
    assert pool.sources == ["a"]
    for said in ("a: shards 0 are not there", f"read once: {file}", "b.jsonl: holds no row"):
        assert said in caplog.text


def test_a_pool_is_known_by_what_is_in_its_files(tmp_path: Path) -> None:
    def key(path: Any, **options: Any) -> str:
        return digest(Local(path=path, **options))

    one, two = (write(tmp_path / name / "a.jsonl", row(0), row(1)) for name in ("one", "two"))
    os.utime(two, (1, 1))
    before = key(one)
    assert key(str(two)) == key([two]) == before
    assert len({before, key({"x": one}), key(write(tmp_path / "b.jsonl", row(0), row(1))), key(one, limit=1)}) == 4
    write(one, row(0), row(2))
    assert key(one) != before == key(two)
    write(tmp_path / "one" / "test.jsonl", row(7))
    write(tmp_path / "one" / "train.jsonl", row(8))
    split = key(one.parent)
    write(tmp_path / "one" / "test.jsonl", row(9))
    assert key(one.parent) == split  # what is left out changes nothing


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_the_limit_counts_usable_rows_over_all_files(tmp_path: Path, limit: int) -> None:
    files = [
        write(tmp_path / "a.jsonl", row(0), row(1, completion=""), row(2)),
        write(tmp_path / "b.jsonl", row(3), row(4)),
    ]
    pool = Local(path=files, limit=limit).load()
    assert pool.responses == [f"answer {i}" for i in (0, 2, 3, 4)][:limit]


def test_bad_rows_are_counted_by_reason_and_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = [row(i, completion="") for i in range(7)]
    file = write(tmp_path / "a.jsonl", row(0), *empty, b'{"prompt": "caf\xe9", "completion": "x"}', b"{broken", row(1))
    with caplog.at_level(logging.INFO, "dsel"):
        pool = Local(path=file).load()
    assert pool.responses == ["answer 0", "answer 1"]
    assert pool.skipped == {"empty response": 7, "broken UTF-8": 1, "not JSON": 1}
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 3
    named = next(line for line in lines if "empty response" in line)
    assert "7 rows" in named and f"{file} row 2; " in named and "2 more" in named
    assert f"{file} row 9" in next(line for line in lines if "broken UTF-8" in line)
    assert f"{file} row 10" in next(line for line in lines if "not JSON" in line)


def test_cut_turns_are_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]
    file = write(tmp_path / "a.jsonl", {"conversations": turns}, {"conversations": turns})
    with caplog.at_level(logging.INFO, "dsel"):
        assert len(Local(path=file).load()) == 2
    assert "unanswered last turns cut: 2" in caplog.messages


@pytest.mark.parametrize("bad", [row(1, completion=""), b'{"prompt": "\xff", "completion": "x"}', b"{broken"])
def test_on_bad_row_error_stops_at_the_first(tmp_path: Path, bad: Any) -> None:
    file = write(tmp_path / "a.jsonl", row(0), bad, row(2))
    refused(Local(path=file, on_bad_row="error"), f"{file} row 2")
    assert len(Local(path=file).load()) == 2


def test_broken_bytes_anywhere_in_a_row_never_break_the_pool(tmp_path: Path) -> None:
    broken = [
        b'{"prompt": "a", "completion": "b", "id": "\xff"}',
        b'{"prompt": "a", "completion": "b", "source": "\xff"}',
        b'{"prompt": "a", "completion": "b", "unused": "\xff"}',
    ]
    pool = Local(path=write(tmp_path / "a.jsonl", *broken, row(1))).load()
    assert pool.responses == ["b", "answer 1"]  # an unused column may hold anything
    assert pool.skipped == {"broken UTF-8": 2}


def test_a_file_without_a_usable_row_says_why(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", row(0, completion=""), row(1, completion=" "), b"{")
    refused(Local(path=file), str(file), "2 × empty response", "1 × not JSON")
    refused(Local(path=write(tmp_path / "b.jsonl")), "b.jsonl", "empty")


def test_score_columns_come_along(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", row(0, quality=1, note="x"), row(1, quality=2.5), row(2, length=9))
    pool = Local(path=file).load()
    assert pool.score_columns == ["length", "quality"]
    assert pool.rows["quality"][:2] == [1.0, 2.5]
    assert pool.rows["quality"][2] != pool.rows["quality"][2]  # NaN: this row came without


def test_ids_are_kept_and_made_distinct(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", row(0, id="x"), row(1, id="x"), row(2, id=0), row(3, id=None), row(4, id=""))
    assert Local(path=file).load().ids == ["x", "x#2", "0", "a/4", "a/5"]
    again = Local(path=[write(tmp_path / name / "a.jsonl", row(0)) for name in ("one", "two")]).load()
    assert len(set(again.ids)) == 2


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_originals_are_the_files_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"

    @settings(deadline=None)
    @given(st.lists(st.dictionaries(names, values, max_size=3), min_size=1, max_size=3))
    def same(extras: list[dict[str, Any]]) -> None:
        rows = [{**extra, "instruction": "a", "input": "", "output": f"b{i}"} for i, extra in enumerate(extras)]
        for r in rows:
            for name in ("messages", "conversations", "instances", "system", "id", "source", "dataset"):
                r.pop(name, None)
        write(file, *(json.dumps(r).encode() for r in rows))
        assert originals(Local(path=file)) == rows

    same()


def test_originals_are_json_for_any_reader(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def strict(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    columns = {"rating": [1.0, float("nan")], "votes": [None, [float("inf"), 2.0]], "raw": [b"\xff", None]}
    pq.write_table(pa.table({"prompt": ["a", "b"], "completion": ["c", "d"], **columns}), tmp_path / "a.parquet")
    pool = Local(path=tmp_path / "a.parquet").load()
    found = [json.loads(text, parse_constant=strict) for text in pool.originals["json"]]
    assert [(o["rating"], o["votes"]) for o in found] == [(1.0, None), (None, [None, 2.0])]


def test_originals_keep_the_columns_names_of_the_file(tmp_path: Path) -> None:
    rows = [{"q": f"q{i}", "a": f"a{i}", "completion": "not this", "n": i} for i in range(2)]
    local = Local(path=write(tmp_path / "a.jsonl", *rows), columns={"prompt": "q", "completion": "a"})
    assert local.load().texts == ["q0\na0", "q1\na1"]
    assert [set(o) for o in originals(local)] == [{"q", "a", "completion", "n"}] * 2


def test_a_column_mapping_must_fit_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"q": "a", "a": "b"})
    refused(Local(path=file), str(file), "a, q", "data.columns")
    refused(Local(path=file, columns={"prompt": "quest", "completion": "a"}), "quest", "a, q")
    refused(Local(path=file, columns={"promt": "q"}), "promt", "prompt")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"path": None}, "data.path"),
        ({"path": "missing.jsonl"}, "data.path=missing.jsonl"),
        ({"path": {"chat": "missing.jsonl"}}, "data.path.chat=missing.jsonl"),
        ({"limit": 0}, "data.limit=0"),
        ({"limit": 1.5}, "data.limit=1.5"),
        ({"on_bad_row": "ignore"}, "data.on_bad_row=ignore"),
    ],
)
def test_impossible_options_are_refused_before_reading(tmp_path: Path, options: dict[str, Any], word: str) -> None:
    file = write(tmp_path / "a.jsonl", row(0))
    with pytest.raises(ConfigError) as caught:
        checked(Local(**{"path": file, **options}), "data")
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_the_same_files_give_the_same_pool(tmp_path: Path) -> None:
    rows = [row(i, quality=i) for i in range(5)]
    one, two = (Local(path=write(tmp_path / name / "a.jsonl", *rows)).load() for name in ("here", "there"))
    assert one.fingerprint == two.fingerprint
    changed = Local(path=write(tmp_path / "else" / "a.jsonl", *rows[:4], row(5, quality=4))).load()
    assert changed.fingerprint != one.fingerprint


# --- the real files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "usable", "skipped"),
    [
        ("alpaca_cherry_3111.json", 3111, {}),
        ("alpaca_gpt4_999.json", 999, {}),
        ("codealpaca_2k.json", 2015, {"empty response": 2}),
        ("gsm8k_train.jsonl", 7473, {}),
        ("gsm8k_test.jsonl", 1319, {}),
        ("self_instruct_seed_175.jsonl", 175, {}),
    ],
)
def test_real_pools_load(name: str, usable: int, skipped: dict[str, int]) -> None:
    local = Local(path=shared(f"data/{name}"))
    local.check()
    pool = local.load()
    assert len(pool) == len(set(pool.ids)) == usable
    assert pool.skipped == skipped
    assert set(pool.sources) == {name.split(".")[0]}


def test_real_prompts_are_those_of_the_published_code() -> None:
    pool = Local(path=shared("data/alpaca_cherry_3111.json")).load()
    assert pool.prompts[0][0]["content"].startswith("Design a wellness plan for the given audience\nInput: Expectant")
    rows = json.loads((shared("data/alpaca_cherry_3111.json")).read_text(encoding="utf-8"))
    assert [json.loads(text) for text in pool.originals["json"]] == rows


def test_p3_loads_with_its_data_sets_as_sources() -> None:
    pool = Local(path=shared("data/p3_55k.parquet")).load()
    assert len(pool) + sum(pool.skipped.values()) == 55_185
    assert len(pool) == 55_185  # none is empty
    assert len(set(pool.sources)) == 34


def test_humaneval_is_no_instruction_pool_until_its_columns_are_named() -> None:
    file = shared("data/humaneval.jsonl.gz")
    refused(Local(path=file), str(file), "canonical_solution, entry_point, prompt, task_id, test")
    local = Local(path=file, columns={"completion": "canonical_solution", "id": "task_id"})
    local.check()
    pool = local.load()
    assert len(pool) == 164
    assert pool.ids[0] == "HumanEval/0"
