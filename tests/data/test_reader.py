"""Rows out of every kind of file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.data import json_text
from dsel.data.folder import files_of
from dsel.data.raw import Unreadable
from dsel.data.reader import read_rows
from dsel.errors import ConfigError

ROWS: list[dict[str, Any]] = [
    {"prompt": "naïve 😀 question", "completion": "first line\nsecond line"},
    {"prompt": 'with "quotes", commas\tand tabs', "completion": "a\u2028b\u0085c\u2029d"},
    {"prompt": " padded ", "completion": ""},
]

TOO_DEEP = "lists within lists, too deep to be kept"

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
    "lines.jsonl.bz2": lambda rows: bz2.compress(as_json_lines(rows)),
    "lines.jsonl.xz": lambda rows: lzma.compress(as_json_lines(rows)),
    "utf16.jsonl": lambda rows: as_json_lines(rows).decode().encode("utf-16"),
    "array.jsonl": lambda rows: json.dumps(rows, indent=1).encode(),
    "one-line-array.jsonl": lambda rows: json.dumps(rows).encode(),
    "pretty.jsonl": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows).encode(),
    "pretty.json": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows).encode(),
    "commas.json": lambda rows: ",\n".join(json.dumps(row) for row in rows).encode(),
    "columns.json": lambda rows: json.dumps({c: [row[c] for row in rows] for c in rows[0]}).encode(),
    "pandas.json": lambda rows: json.dumps({c: {str(i): r[c] for i, r in enumerate(rows)} for c in rows[0]}).encode(),
    "grid.json": lambda rows: json.dumps(
        {"columns": list(rows[0]), "index": [0, 1, 2], "data": [list(row.values()) for row in rows]}
    ).encode(),
    "splits.json": lambda rows: json.dumps({"train": rows, "test": [{"prompt": "not this"}]}).encode(),
    "lmflow.json": lambda rows: json.dumps({"type": "text2text", "instances": rows}).encode(),
    "semicolons.csv": lambda rows: as_csv(rows, ";"),
    "bars.csv": lambda rows: as_csv(rows, "|"),
    "tabs.csv": lambda rows: as_csv(rows, "\t"),
    "commas.tsv": as_csv,
    "utf16.csv": lambda rows: as_csv(rows).decode().encode("utf-16"),
    "excel.csv": lambda rows: b"sep=;\r\n" + as_csv(rows, ";"),
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
    assert isinstance(bad, Unreadable) and bad.reason in ("not JSON", "not an object", TOO_DEEP)
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


CSV = "prompt,completion\nq0,a0\n{}\nq2,a2\nq3,a3\nq4,a4\n"


@pytest.mark.parametrize("line", ['q1,"a1', '"q1,a1', 'q1,"a1" said he', 'q1,"a1"x"'])
def test_a_stray_quote_costs_only_its_row(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV.format(line))
    rows = list(read_rows(path))
    assert [row["completion"] if isinstance(row, dict) else row.reason for row in rows] == [
        "a0", "a stray quote", "a2", "a3", "a4",
    ]  # fmt: skip


def test_a_quote_inside_a_field_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV.format('a 5" pipe,"so ""quoted"", and\nover lines"'))
    assert list(read_rows(path))[1] == {"prompt": 'a 5" pipe', "completion": 'so "quoted", and\nover lines'}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_a_spreadsheets_csv_is_read(tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("Anweisung; Antwort\r\nÜbersetze „Vogel“;bird\r\nName;Ärger\r\n".encode(encoding))
    with caplog.at_level(logging.INFO, "dsel"):
        rows = list(read_rows(path))
    assert rows == [
        {"Anweisung": "Übersetze „Vogel“", "Antwort": "bird"},
        {"Anweisung": "Name", "Antwort": "Ärger"},
    ]
    assert f"{path}: its columns are separated by ';'" in caplog.text
    assert ("cp1252" in caplog.text) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("gb18030", "哪一种鸟是灰色的,苍鹭"), ("shift_jis", "こんにちは,げんき"), ("cp1251", "Какая птица,Цапля")],
)
def test_text_that_is_not_western_is_not_read_as_if_it_were(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"prompt,completion\n{text}\n".encode(encoding))
    with pytest.raises(ConfigError, match="neither UTF-8 nor Western text"):
        list(read_rows(path))


def test_one_broken_byte_makes_no_file_cp1252(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("prompt,completion\nä,ö\nü,ß\n".encode() + b"a\xffb,c\n")
    assert [row["prompt"] for row in read_rows(path) if isinstance(row, dict)] == ["ä", "ü", "a\udcffb"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id,text\na,1,b\n")
    refused(tmp_path / "a.csv", "two columns are called text")


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"messages": TURNS}, [{"messages": TURNS}]),
        ({"conversations": SHAREGPT, "id": "x"}, [{"conversations": SHAREGPT, "id": "x"}]),
        ({"id": 1, "thread": TURNS}, [{"id": 1, "thread": TURNS}]),
        (TURNS, [{"messages": TURNS}]),
        (SHAREGPT, [{"conversations": SHAREGPT}]),
        ([TURNS, TURNS[:2]], [{"messages": TURNS}] * 2),
        ({"a": TURNS, "b": SHAREGPT}, [{"id": "a", "messages": TURNS}, {"id": "b", "conversations": SHAREGPT}]),
        ({"prompt": TURNS[:1], "chosen": TURNS[1:]}, [{"prompt": TURNS[:1], "chosen": TURNS[1:]}]),
        ({"messages": TURNS, "tools": [{"type": "function"}]}, [{"messages": TURNS, "tools": [{"type": "function"}]}]),
        ({"instruction": "i", "instances": [{"input": ""}]}, [{"instruction": "i", "instances": [{"input": ""}]}]),
        ({"data": [{"prompt": "p"}], "meta": {"n": 1}}, [{"prompt": "p"}]),
        ({"7": {"prompt": "p"}, "8": {"prompt": "q"}}, [{"id": "7", "prompt": "p"}, {"id": "8", "prompt": "q"}]),
        ({"id": "0", "data": ["q", "a"]}, [{"id": "0", "data": ["q", "a"]}]),
        ({"conversations": ["q", "a"]}, [{"conversations": ["q", "a"]}]),
    ],
)
def test_what_the_rows_of_a_json_file_are(tmp_path: Path, content: Any, rows: list[Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
    assert list(read_rows(tmp_path / "a.json")) == rows


def test_of_several_lists_the_split_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": ROWS, "test": ROWS[:1], "version": 1}))
    with caplog.at_level(logging.INFO, "dsel"):
        assert list(read_rows(path)) == ROWS
    assert "read is train (3 rows); left out: test (1)" in caplog.text
    assert list(read_rows(path, "test")) == ROWS[:1]
    assert len(list(read_rows(path, None))) == 4
    path.write_text(json.dumps({"chat": ROWS, "code": ROWS[:1]}))
    refused(path, "chat (3), code (1)", "data.split")


def test_a_conversation_a_line_needs_no_object(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(TURNS)}\n{json.dumps(SHAREGPT)}\n[1]\n")
    rows = list(read_rows(tmp_path / "a.jsonl"))
    assert rows == [{"messages": TURNS}, {"conversations": SHAREGPT}, Unreadable("not an object")]


def test_a_cut_array_is_refused_not_read_in_part(tmp_path: Path) -> None:
    text = json.dumps([{"messages": TURNS}] * 3, indent=1)
    (tmp_path / "a.json").write_text(text[:-20])
    refused(tmp_path / "a.json", "not JSON (line")


@pytest.mark.parametrize("kind", ["nested", "dictionary"])
def test_columns_of_any_type_are_read(tmp_path: Path, kind: str) -> None:
    nested = pa.table({"messages": [TURNS], "scores": [[1.0, 2.0]]})
    names = pa.table({"prompt": pa.array(["p"]).dictionary_encode(), "completion": ["c"]})
    table = nested if kind == "nested" else names
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet")) == table.to_pylist()


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("{}")

    def denied(path: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(tmp_path / "a.jsonl", "cannot be read (Permission denied)")


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


LARGE: dict[str, str] = {
    "an array": json.dumps(ROWS),
    "with space": json.dumps(ROWS, indent=3).replace(",", " ,\n"),
    "with other things": json.dumps([*ROWS, 3, "text", [1], 10**30, 1.5, TURNS, None]),
    "an empty one": "[ ]",
    "turns": json.dumps(TURNS),
    "lines": "\n".join(map(json.dumps, ROWS)) + "\n\n{broken\n",
    "lines of turns": f"{json.dumps(TURNS)}\n{json.dumps(SHAREGPT)}",
    "one after the other": ",".join(map(json.dumps, ROWS)),
    "an object": json.dumps({"data": ROWS}),
    "a number too long": json.dumps(ROWS)[:-1] + f', {{"prompt": {"1" * 5000}}}]',
    "cut": json.dumps(ROWS)[:-9],
    "cut after a comma": json.dumps(ROWS)[:-1] + ",",
    "a comma too many": json.dumps(ROWS)[:-1] + ",]",
    "two arrays": json.dumps(ROWS) * 2,
    "no comma": json.dumps(ROWS).replace(", {", " {"),
    "deep": "[" * 100_000,
    "nothing": "",
}


@pytest.mark.parametrize("piece", [7, 2**20])
@pytest.mark.parametrize("name", LARGE)
def test_large_json_is_read_like_small(tmp_path: Path, name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> Any:
        try:
            return list(read_rows(tmp_path / "a.json"))
        except ConfigError as error:
            return str(error)

    (tmp_path / "a.json").write_text(LARGE[name])
    small = outcome()
    monkeypatch.setattr(json_text, "LONG", -1)
    monkeypatch.setattr(json_text, "PIECE", piece)
    assert outcome() == small


def test_a_large_array_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS * 50))
    monkeypatch.setattr(json_text, "LONG", 100)
    monkeypatch.setattr(json_text, "whole", None)  # which reads all
    assert list(read_rows(tmp_path / "a.json")) == ROWS * 50
