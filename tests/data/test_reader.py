"""Rows out of every kind of file."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.data.reader import Unreadable, files_of, read_rows
from dsel.errors import ConfigError

ROWS: list[dict[str, Any]] = [
    {"prompt": "naïve 😀 question", "completion": "first line\nsecond line"},
    {"prompt": 'with "quotes", commas\tand tabs', "completion": "a\u2028b\u0085c\u2029d"},
    {"prompt": " padded ", "completion": ""},
]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
tables = st.lists(st.fixed_dictionaries({"prompt": texts, "completion": texts}), min_size=1, max_size=5)


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_arrow(rows: list[dict[str, Any]], *, stream: bool) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


WRITERS = {
    "array.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "array-bom.json": lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode(),
    "data.json": lambda rows: json.dumps({"version": "1.0", "data": rows}).encode(),
    "lines.json": as_json_lines,
    "lines.jsonl": as_json_lines,
    "LINES.JSONL": as_json_lines,
    "lines.ndjson": as_json_lines,
    "crlf.jsonl": lambda rows: as_json_lines(rows).replace(b"\n", b"\r\n") + b"\r\n",
    "lines.jsonl.gz": lambda rows: gzip.compress(as_json_lines(rows)),
    "members.jsonl.gz": lambda rows: b"".join(gzip.compress(as_json_lines([row])) for row in rows),
    "lines.jsonl.zst": lambda rows: zstandard.compress(as_json_lines(rows)),
    "frames.jsonl.zst": lambda rows: b"".join(zstandard.compress(as_json_lines([row])) for row in rows),
    "table.csv": as_csv,
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows),
    "table.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "table.tsv": lambda rows: as_csv(rows, "\t"),
    "table.parquet": as_parquet,
    "stream.arrow": lambda rows: as_arrow(rows, stream=True),
    "file.arrow": lambda rows: as_arrow(rows, stream=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_its_rows_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(WRITERS[name](ROWS))
    assert files_of(path) == [path]
    assert list(read_rows(path)) == ROWS


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.json", "array.json", "table.csv", "table.tsv"])
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.mktemp("any") / name

    @settings(deadline=None)
    @given(tables)
    def survives(rows: list[dict[str, Any]]) -> None:
        path.write_bytes(WRITERS[name](rows))
        assert list(read_rows(path)) == rows

    survives()


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '"text"', "null", "{}{}", "[" * 100_000, "1" * 5_000])
def test_a_broken_json_line_costs_only_itself(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_json_lines(ROWS[:1]) + line.encode() + b"\n\n" + as_json_lines(ROWS[1:]))
    first, bad, *rest = read_rows(path)
    assert isinstance(bad, Unreadable) and bad.reason in ("not JSON", "not an object")
    assert [first, *rest] == ROWS


def test_something_else_in_a_json_array_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ROWS[0], "text", ROWS[1]]))
    assert list(read_rows(path)) == [ROWS[0], Unreadable("not an object"), ROWS[1]]


@pytest.mark.parametrize("line", ["only one", "one,two,three"])
def test_a_csv_row_of_the_wrong_width_costs_only_itself(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"prompt,completion\na,b\n{line}\nc,d\n")
    first, bad, last = read_rows(path)
    assert bad == Unreadable("wrong number of columns")
    assert [first, last] == [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]


def broken_table() -> pa.Table:
    """Three rows, the middle one with a byte that is not UTF-8, which Arrow does not check."""
    values, offsets = b"good" + b"b\xffd" + b"fine", pa.array([0, 4, 7, 11], pa.int32()).buffers()[1]
    strings = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(values)])
    return pa.table({"prompt": strings, "n": [1, 2, 3]})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_column_with_broken_utf8_costs_only_that_row(tmp_path: Path, name: str) -> None:
    path, table = tmp_path / name, broken_table()
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    good, bad, fine = read_rows(path)
    assert bad == Unreadable("broken UTF-8")
    assert [good, fine] == [{"prompt": "good", "n": 1}, {"prompt": "fine", "n": 3}]


def test_a_saved_dataset_is_read_as_one(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    assert files_of(tmp_path / "saved") == [tmp_path / "saved"]
    assert list(read_rows(tmp_path / "saved")) == ROWS


def test_a_saved_dataset_below_a_folder_is_read_as_one(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "all" / "saved")
    rows = [row for file in files_of(tmp_path / "all") for row in read_rows(file)]
    assert rows == ROWS


@pytest.mark.parametrize("splits", [["train", "test"], ["only"]])
def test_of_a_saved_dict_the_train_split_is_read(tmp_path: Path, splits: list[str]) -> None:
    from datasets import Dataset, DatasetDict

    parts = {name: Dataset.from_list(ROWS if i == 0 else ROWS[:1]) for i, name in enumerate(splits)}
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert list(read_rows(tmp_path / "saved")) == ROWS


def test_a_saved_dict_without_train_asks_for_one_split(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict({name: Dataset.from_list(ROWS) for name in ("one", "two")}).save_to_disk(tmp_path / "saved")
    refused(tmp_path / "saved", "one, two")


def test_a_folder_stands_for_the_files_in_it_and_below(tmp_path: Path) -> None:
    names = ["b.jsonl", "a/z.csv", "a/deep/y.json", "c.jsonl.zst"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {".csv": "table.csv", ".json": "array.json", ".jsonl": "lines.jsonl", ".zst": "lines.jsonl.zst"}
        (tmp_path / name).write_bytes(WRITERS[kind[Path(name).suffix]](ROWS))
    (tmp_path / "README.md").write_text("not data")
    found = files_of(tmp_path)
    assert found == sorted(tmp_path / name for name in names)
    assert [row for file in found for row in read_rows(file)] == ROWS * 4


def test_what_describes_a_data_set_is_not_its_data(tmp_path: Path) -> None:
    names = ["dataset_infos.json", "dataset_info.json", ".ipynb_checkpoints/train.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"default": {"features": {}}}\n')
    (tmp_path / "train.jsonl").write_bytes(as_json_lines(ROWS))
    assert files_of(tmp_path) == [tmp_path / "train.jsonl"]


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        for file in files_of(path):
            list(read_rows(file))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), *words))


def test_unknown_suffixes_and_empty_folders_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, ".jsonl")
    (tmp_path / "notes.txt").write_text("{}")
    refused(tmp_path, ".jsonl")
    refused(tmp_path / "notes.txt", ".jsonl", ".zst")


@pytest.mark.parametrize("name", ["lines.jsonl.gz", "lines.jsonl.zst"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_compressed_file_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    whole = WRITERS[name]([{"prompt": str(i), "completion": str(i * i)} for i in range(2000)])
    (tmp_path / name).write_bytes(whole[: int(len(whole) * keep)])
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["lines.jsonl.gz", "lines.jsonl.zst", "table.parquet", "stream.arrow", "array.json"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"certainly something else")
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["table.parquet", "file.arrow", "array.json"])
def test_an_empty_file_of_a_kind_that_is_never_empty_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    refused(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("table.parquet", damage) for damage in ("start", "middle", "end", "half")),
        *(("stream.arrow", damage) for damage in ("start", "half")),
        *(("file.arrow", damage) for damage in ("end", "half")),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    rows = [{"prompt": f"{i * 7919 % 1009}", "completion": f"{i * 104729 % 10007}"} for i in range(2000)]
    whole, junk = WRITERS[name](rows), b"\xff" * 64
    place = {"start": 4, "middle": len(whole) // 2, "end": len(whole) - 100}.get(damage)
    spoilt = whole[: len(whole) // 2] if place is None else whole[:place] + junk + whole[place + len(junk) :]
    (tmp_path / name).write_bytes(spoilt)
    refused(tmp_path / name)


def test_a_damaged_saved_dataset_is_refused(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    shard = next((tmp_path / "saved").glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:100])
    refused(tmp_path / "saved")
