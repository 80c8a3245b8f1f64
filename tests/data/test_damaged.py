"""Damaged files, and texts that are none: each ends in examples and counts, or in one line."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from dsel import guard
from dsel.checked import _dense
from dsel.data import delimited, raw
from dsel.data.folder import not_read
from dsel.data.local import Local
from dsel.data.raw import Unreadable
from dsel.data.reader import read_rows
from dsel.errors import ConfigError
from tests.conftest import ROOT, offline
from tests.data.made import CHATS, DAMAGES, KINDS, ROWS, as_arrow, as_lines, as_parquet, as_table, flipped, outcome

CASES = [(kind, damage) for kind in KINDS for damage in DAMAGES]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lambda content: b"",  # only of .json here, whose rows are not counted
    ".zst": lambda content: (
        zstandard.ZstdDecompressor().stream_reader(content.rstrip(b"\0"), read_across_frames=True).read()
    ),
}


def rows_in(path: Path) -> int | None:
    """How many rows a file has, counted without our readers; None where only they could say."""
    if path.suffix == ".parquet":
        return pq.ParquetFile(path).metadata.num_rows
    content = path.read_bytes()
    if path.suffix in UNPACKED:
        content = UNPACKED[path.suffix](content)
    if ".jsonl" in path.suffixes and not content.startswith((b"\xff\xfe", b"\0")):
        return sum(bool(line.strip()) for line in content.decode("utf-8", "surrogateescape").split("\n"))
    if ".csv" in path.suffixes or ".tsv" in path.suffixes:
        lines = re.split(r"\r\n|\r|\n", content.decode("utf-8", "surrogateescape"))
        return sum(map(bool, lines)) - 1
    return None


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 135


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_all_rows_are_kept(tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).write_bytes(KINDS[kind]())
    found = outcome(tmp_path / kind)
    assert (found.kept, found.skipped, found.line) == (60, {}, "")


@pytest.mark.parametrize(("kind", "damage"), CASES)
def test_a_damaged_file_is_examples_and_counts_or_one_line(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / kind
    path.write_bytes(DAMAGES[damage](KINDS[kind]()))
    found = outcome(path)
    assert found.seconds < 5
    if found.line:
        assert str(path) in found.line
    elif (rows := rows_in(path)) is not None:
        assert found.rows == rows
    else:
        assert 0 < found.kept <= found.rows <= 2 * 60


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_more_bits_flipped(tmp_path: Path, kind: str) -> None:
    content = KINDS[kind]()
    for seed in range(300):
        (tmp_path / kind).write_bytes(flipped(content, seed, bits=1 + seed % 3))
        found = outcome(tmp_path / kind)
        assert found.seconds < 5 and (found.line or found.rows)


def test_memory_stays_where_it_was() -> None:
    """After all the files above: neither this process nor one that it started to read has grown large."""
    unit = 1 if sys.platform == "darwin" else 2**10
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit < guard.MEMORY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < 2 * 2**30


GOOD = as_lines(ROWS[:3])
DEEP = '{"prompt": "p", "completion": "c", "extra": %s}\n'

TEXTS: dict[str, tuple[str, bytes, int | str, int]] = {
    # name: (file, content, rows kept or words of the line, rows reported)
    "a lone surrogate in a turn": ("a.jsonl", GOOD + b'{"prompt": "\\ud800", "completion": "c"}\n', 3, 1),
    "a lone surrogate in a column": ("a.jsonl", GOOD + b'{"prompt": "p", "completion": "c", "\\udfff": 1}', 4, 0),
    "a lone surrogate in a name that is read": ("a.jsonl", GOOD + b'{"prompt\\ud800": "p", "completion": "c"}', 3, 1),
    "a lone surrogate in an id": ("a.jsonl", GOOD + b'{"prompt": "p", "completion": "c", "id": "\\ud800"}', 3, 1),
    "a lone surrogate in a source": ("a.jsonl", GOOD + b'{"prompt": "p", "output": "c", "source": "\\udc00"}', 3, 1),
    "bytes that are not UTF-8": ("a.jsonl", GOOD + b'{"prompt": "\xff\xfe", "completion": "c"}\n', 3, 1),
    "bytes that are not UTF-8 in a name": ("a.jsonl", GOOD + b'{"prompt": "p", "completion": "c", "\xe9": 2}\n', 4, 0),
    "1,000 lists deep": ("a.jsonl", GOOD + (DEEP % ("[" * 1000 + "]" * 1000)).encode(), 3, 1),
    "100,000 lists deep": ("a.jsonl", GOOD + (DEEP % ("[" * 100_000 + "]" * 100_000)).encode(), 3, 1),
    "100,000 maps deep": ("a.jsonl", GOOD + (DEEP % ('{"a":' * 100_000 + "1" + "}" * 100_000)).encode(), 3, 1),
    "1,000 lists deep in a .json": ("a.json", b"[" + (DEEP % ("[" * 1000 + "]" * 1000)).encode() + b"]", "too deep", 1),
    "100,000 lists deep in a .json": ("a.json", b"[" * 100_000 + b"]" * 100_000, "too deep", 0),
    "100,000 lists opened in a .json": ("a.json", b"[" * 100_000, "not JSON", 0),
    "a number of 5,000 digits": ("a.jsonl", GOOD + (DEEP % ("1" * 5000)).encode(), 4, 0),
    "a number of 5,000 digits in a .json": ("a.json", ("[" + DEEP % ("1" * 5000) + "]").encode(), 1, 0),
    "a number of 5,000 digits for an answer": ("a.jsonl", b'{"prompt": "p", "completion": %s}' % (b"7" * 5000), 1, 0),
    "1e999, NaN and infinity": ("a.jsonl", b'{"prompt": "p", "completion": "c", "x": [1e999, NaN, -Infinity]}', 1, 0),
    "a later number called messages": ("a.jsonl", GOOD + b'{"prompt": "p", "output": "c", "messages": 3.5}\n', 4, 0),
    "a stray quote": ("a.csv", b'prompt,completion\np0,c0\np1,"c1\np2,c2\np3,c3\n', 3, 1),
    "a stray quote closed two lines on": ("a.csv", b'prompt,completion\np0,"c0\np1,c1\np2,c2",x\np3,c3\n', 2, 2),
    "two stray quotes": ("a.csv", b'prompt,completion\n"p0,c0\np1,c1\n"p2,c2\np3,c3\n', 2, 2),
    "a quote at the very end": ("a.csv", b'prompt,completion\np0,c0\np1,c1\n"', 2, 1),
    "a field over several lines": ("a.csv", b'prompt,completion\np0,"c\n0, and\nmore"\np1,c1\n', 2, 0),
    "too few and too many columns": ("a.csv", b"prompt,completion\np0\np1,c1,x\np2,c2\n", 1, 2),
    "NULs in a table": ("a.csv", b"prompt,completion\np0,c\x000\np1,c1\n", 2 if sys.version_info >= (3, 11) else 1,
                        0 if sys.version_info >= (3, 11) else 1),
    "NULs in a line": ("a.jsonl", GOOD + b'{"prompt": "\0", "completion": "c"}\n', 3, 1),
    "NULs as text": ("a.jsonl", GOOD + b'{"prompt": "a\\u0000", "completion": "c"}\n', 4, 0),
    "UTF-16 with a mark": ("a.csv", "prompt,completion\nπ,c\n".encode("utf-16"), 1, 0),
    "UTF-16 without one": ("a.csv", "prompt,completion\np,ç\n".encode("utf-16-le"), 1, 0),
    "UTF-16 of odd length": ("a.csv", "prompt,completion\np,c\n".encode("utf-16")[:-1], "is not", 0),
    "UTF-16 lone surrogates": ("a.jsonl", '{"prompt": "'.encode("utf-16") + b"\x00\xd8" + b"x\0\n\0", "is not", 0),
    "UTF-32": ("a.jsonl", as_lines(ROWS[:2]).decode().encode("utf-32"), 2, 0),
    "a BOM before JSON": ("a.json", b'\xef\xbb\xbf[{"prompt": "p", "completion": "c"}]', 1, 0),
    "two BOMs": ("a.jsonl", b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD, 3, 0),
    "cp1252": ("a.csv", "prompt,completion\nä,ö\n".encode("cp1252"), 1, 0),
    "cp1252 with bytes it does not have": ("a.csv", b"prompt,completion\n\xe4\x81,\xf6\np,c\n", 1, 1),
    "only line ends": ("a.jsonl", b"\n\r\n\n", "empty", 0),
    "only a header": ("a.csv", b"prompt,completion\n", "empty", 0),
    "only a mark": ("a.jsonl", b"\xef\xbb\xbf", "empty", 0),
    "an empty list": ("a.json", b"[]", "empty", 0),
    "an empty object": ("a.json", b"{}", "no instruction format", 1),
    "a string": ("a.json", b'"text"', "expected objects", 0),
    "lines of all kinds": ("a.jsonl", GOOD + b'1\n"x"\nnull\n[]\n[1, [2]]\n{}\n', 3, 6),
    "columns that are no list": ("a.json", b'{"columns": {"a": 1}, "data": 7, "prompt": "p", "completion": "c"}', 1, 0),
    "a grid whose names are lists": ("a.json", b'{"columns": [["a"]], "data": [[1]]}', "no usable", 0),
    "a grid whose data are no rows": ("a.json", b'{"columns": ["prompt"], "data": null}', "no usable", 0),
    "two columns of one name": ("a.csv", b"prompt,completion,prompt\np,c,q\n", "two columns are called prompt", 0),
    "a byte beyond the dates": ("a.jsonl", b'{"prompt": "p", "completion": "c", "date": 9e18}\n', 1, 0),
    "a zip": ("a.json", b"PK\x03\x04" + bytes(range(256)), "not JSON", 0),
    "one talk": ("a.json", b'{"messages": [{"from": "user", "value": "q"}, {"from": "gpt", "value": "a"}]}', 1, 0),
    "roles that are lists": ("a.jsonl", GOOD + b'{"messages": [{"role": ["user"], "content": {"a": [1]}}]}\n', 3, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_not_text(tmp_path: Path, name: str) -> None:
    file, content, wanted, reported = TEXTS[name]
    (tmp_path / file).write_bytes(content)
    found = outcome(tmp_path / file)
    assert found.seconds < 5
    if isinstance(wanted, str):
        assert wanted in found.line
    else:
        assert (found.kept, sum(found.skipped.values()), found.line) == (wanted, reported, "")


def test_stray_quotes_cost_only_their_rows_wherever_they_stand(tmp_path: Path) -> None:
    """One more quote at any place of a table without any: all other rows are kept, and all are counted."""
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "note": f"n{i}"} for i in range(6)]
    plain = as_table(rows).decode().replace("\r\n", "\n")
    for place in range(len("prompt,completion,note\n"), len(plain) + 1):
        found = read_table(tmp_path, plain[:place] + '"' + plain[place:])
        assert sum(row in rows for row in found) >= 5 and len(found) == len(rows) + (place == len(plain))


def read_table(folder: Path, text: str) -> list[Any]:
    (folder / "a.csv").write_bytes(text.encode())
    return list(read_rows(folder / "a.csv"))


def test_a_table_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that is never closed is given up where a field would be too long, and the rest is read."""
    monkeypatch.setattr(delimited, "LONGEST_FIELD", 1000)
    table = "prompt,completion\n" + 'a,"stray\n' + "p,c\n" * 1000
    first, *rest = read_table(tmp_path, table)
    assert first == Unreadable("a stray quote") and rest == [{"prompt": "p", "completion": "c"}] * 1000


def test_a_line_that_is_too_long_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "LONGEST", 1000)
    path = tmp_path / "a.jsonl"
    for end in (b"\n", b""):
        path.write_bytes(
            as_lines(ROWS[:2]) + b'{"prompt": "' + b"x" * 5000 + b'"}' + end + as_lines(ROWS[2:3]) * bool(end)
        )
        first, second, bad, *rest = read_rows(path)
        assert [first, second, *rest] == ROWS[: 3 if end else 2]
        assert bad == Unreadable("a line of more than 1,000 characters")
    (tmp_path / "a.csv").write_bytes(b"prompt,completion\np,c\n" + b"x" * 5000)
    assert "from line 3 on" in outcome(tmp_path / "a.csv").line


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_a_bomb_is_one_line(tmp_path: Path, suffix: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "LARGE", 2**23)
    pack = PACKED[suffix]
    path = tmp_path / f"a{kind}{suffix}"
    path.write_bytes(pack(b'{"prompt": "p", "completion": "' + b" " * 2**25))
    found = outcome(path)
    assert "decompress it first" in found.line and found.seconds < 5


def test_a_compressed_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    """Of 200 MB no more than some pieces are in memory."""
    path, line = tmp_path / "a.jsonl.gz", as_lines([{"prompt": "p" * 1000, "completion": "c"}])
    noise = [line.replace(b"p" * 40, b"%040x" % (i * 7919**9)) for i in range(1000)]
    path.write_bytes(gzip.compress(b"".join(noise), 1) * 100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(isinstance(row, dict) for row in read_rows(path)) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 2**10


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_of_several_is_read_to_its_end_or_refused(tmp_path: Path, suffix: str) -> None:
    pack = PACKED[suffix]
    one, two = pack(as_lines(ROWS[:30])), pack(as_lines(ROWS[30:]))
    path = tmp_path / f"a.jsonl{suffix}"
    for between in (b"", bytes(8)):
        path.write_bytes(one + between + two)
        assert list(read_rows(path)) == ROWS
    for broken in (one + b"garbage", one + b"\1" + two[1:], one + two[:-9]):
        path.write_bytes(broken)
        assert "cannot be decompressed" in outcome(path).line


def test_pipes_sockets_and_devices_are_named_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s.json"))
    (tmp_path / "null.csv").symlink_to("/dev/null")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    assert not_read(tmp_path) == {
        "links to nothing": [tmp_path / "gone.csv"],
        "pipes, sockets and devices": [tmp_path / n for n in ("null.csv", "pipe.jsonl", "s.json")],
    }
    assert outcome(tmp_path).kept == 3
    for name in ("pipe.jsonl", "s.json", "null.csv"):
        assert "neither a file nor a folder" in outcome(tmp_path / name).line
        with pytest.raises(ConfigError, match="not a file"):
            list(read_rows(tmp_path / name))


def test_links_in_a_circle_are_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    for each in (folder / "a", folder / "b", outside):
        each.mkdir(parents=True)
    (folder / "a" / "x.jsonl").write_bytes(as_lines(ROWS[:2]))
    (outside / "y.jsonl").write_bytes(as_lines(ROWS[2:3]))
    (folder / "loop").symlink_to(folder)
    (folder / "a" / "up").symlink_to("..")
    (folder / "b" / "to_a").symlink_to(folder / "a")
    (folder / "out").symlink_to(outside)
    (outside / "back").symlink_to(folder)
    (folder / "self.jsonl").symlink_to(folder / "self.jsonl")
    (folder / "again.jsonl").symlink_to(folder / "a" / "x.jsonl")
    with caplog.at_level(logging.INFO):
        assert outcome(folder).kept == 3
    assert "links in a circle" in caplog.text and "links to nothing (self.jsonl)" in caplog.text
    assert "read once" in caplog.text and "again.jsonl" in caplog.text


def test_a_folder_called_like_a_file_is_a_folder(tmp_path: Path) -> None:
    for name in ("x.jsonl", "y.parquet", "z.csv.gz"):
        (tmp_path / name).mkdir()
    (tmp_path / "x.jsonl" / "part-0.jsonl").write_bytes(GOOD)
    assert outcome(tmp_path).kept == outcome(tmp_path / "x.jsonl").kept == 3
    assert "no data file in this folder" in outcome(tmp_path / "y.parquet").line


@pytest.mark.parametrize("at", ["open", "iterdir", "stat"])
def test_what_may_not_be_looked_at_is_one_line(tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    plain = getattr(Path, at)

    def denied(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "a.jsonl" or at == "iterdir":
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(Path, at, denied)
    assert "Permission denied" in outcome(tmp_path).line or "no data file" in outcome(tmp_path).line


def test_a_file_that_changes_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", as_lines(ROWS)), ("a.parquet", as_parquet(ROWS)), ("a.csv", as_table(ROWS))):
        path = tmp_path / name
        path.write_bytes(content)
        rows = read_rows(path)
        next(rows)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ConfigError, match=r"changed while it was read|not a readable"):
            list(rows)
        path.write_bytes(content)
        rows = read_rows(path)
        next(rows)
        path.unlink()
        with pytest.raises(ConfigError, match="No such file"):
            list(rows)


def test_a_file_that_vanishes_before_it_is_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    data = Local(path=tmp_path / "a.jsonl")
    data.check()
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        data.load()


# native formats


def arrow_of(*columns: pa.Array, stream: bool = True) -> bytes:
    batch, sink = (
        pa.RecordBatch.from_arrays(list(columns), [f"c{i}" for i in range(len(columns))]),
        pa.BufferOutputStream(),
    )
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def int32(*numbers: int) -> bytes:
    return np.array(numbers, np.int32).tobytes()


def int64(*numbers: int) -> bytes:
    return np.array(numbers, np.int64).tobytes()


def views(each: int, count: int) -> pa.Array:
    """A text of `each` bytes, `count` times, in no more room than once."""
    one = pa.array(["x" * each], pa.string_view())
    _, view, text = one.buffers()
    return pa.Array.from_buffers(pa.string_view(), count, [None, pa.py_buffer(view.to_pybytes()[:16] * count), text])


WORDS = pa.array(["abc", "def"])
CODES = pa.array(["a", "b", "a", "b"]).dictionary_encode()
LONG = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2**16, np.int32)), pa.array(["x" * 2**22]))

HOSTILE: dict[str, Callable[[], bytes]] = {
    "offsets beyond the text": lambda: arrow_of(WORDS).replace(int32(0, 3, 6), int32(0, 2**30, 6)),
    "offsets below 0": lambda: arrow_of(WORDS).replace(int32(0, 3, 6), int32(0, -(2**30), 6)),
    "offsets of a list": lambda: arrow_of(pa.array([[5], [6]])).replace(int32(0, 1, 2), int32(0, 2**30, 2)),
    "codes beyond the dictionary": lambda: arrow_of(CODES).replace(int32(0, 1, 0, 1), int32(0, 2**30, -5, 1)),
    "2**40 nulls": lambda: arrow_of(pa.nulls(74565)).replace(int64(74565), int64(2**40)),
    "2**32 nulls in lists": lambda: (
        arrow_of(pa.nulls(4, pa.list_(pa.null(), 74565)))
        .replace(int32(74565), int32(2**30))
        .replace(int64(4 * 74565), int64(2**32))
    ),
    "half a terabyte in views": lambda: arrow_of(views(2**23, 2**16)),
    "a quarter of it in a dictionary": lambda: arrow_of(LONG),
    "and within a list": lambda: arrow_of(pa.ListArray.from_arrays(pa.array([0, 2**16], pa.int32()), LONG)),
    "runs": lambda: arrow_of(pa.RunEndEncodedArray.from_arrays(pa.array([2**30], pa.int32()), pa.array(["x" * 1000]))),
    "list views": lambda: arrow_of(pa.array([["a"]], pa.list_view(pa.string()))),
    "a union": lambda: arrow_of(pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrow_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.arrow").write_bytes(HOSTILE[name]())
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="not a readable Arrow file"):
        for _ in read_rows(tmp_path / "a.arrow"):
            pass
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("cut", ["end", "batch"])
def test_a_stream_that_was_cut_between_batches_is_told(
    tmp_path: Path, cut: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = as_arrow(ROWS, stream=True)
    without = content.removesuffix(b"\xff\xff\xff\xff\0\0\0\0")
    assert without != content
    if cut == "batch":
        sizes = [m.start() for m in re.finditer(rb"\xff\xff\xff\xff", without)]
        without = without[: sizes[-1]]
    (tmp_path / "a.arrow").write_bytes(without)
    found = outcome(tmp_path / "a.arrow")
    assert found.kept == (60 if cut == "end" else 50) and "no mark at its end" in caplog.text


def test_plain_columns_have_the_values_of_dense_ones() -> None:
    words = pa.array(["a", "b", None, "a"]).dictionary_encode()
    columns = {
        "dictionary": words,
        "list": pa.ListArray.from_arrays([0, 2, 3, 3, 4], words),
        "struct": pa.StructArray.from_arrays([words], ["x"]),
        "view": pa.array(["a" * 20, None, "b", "c"], pa.string_view()),
        "views": pa.array([["a" * 20], None, [], ["c"]], pa.list_(pa.string_view())),
        "bytes": pa.array([b"a", b"", None, b"c"], pa.binary_view()),
        "map": pa.MapArray.from_arrays([0, 1, 1, 1, 2], pa.array(["k", "l"]).dictionary_encode(), pa.array([1, 2])),
        "nulls": pa.nulls(4),
        "fixed": pa.array([[1, 2]] * 4, pa.list_(pa.int8(), 2)),
        "uuid": pa.array([b"1" * 16] * 4, pa.uuid()),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    for part in (batch, batch.slice(1, 2), batch.slice(4)):
        dense = _dense(part)
        dense.validate(full=True)
        assert dense.to_pylist() == part.to_pylist()


def test_dates_that_python_does_not_have_cost_only_their_rows(tmp_path: Path) -> None:
    when = pa.array([0, 2**62, 1], pa.timestamp("us"))
    table = pa.table({"prompt": ["p", "q", "r"], "completion": ["c", "d", "e"], "when": when})
    pq.write_table(table, tmp_path / "a.parquet")
    found = outcome(tmp_path / "a.parquet")
    assert (found.kept, sum(found.skipped.values())) == (2, 1)


def test_json_columns_are_read_as_what_they_hold(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Json, List, Value

    rows: list[Any] = [{"prompt": "p", "completion": "c", "extra": {"a": [1, None]}, "list": [{"b": 0}, {"c": 1}]}]
    rows += [{"prompt": "q", "completion": "d", "extra": None, "list": []}]
    text = Value("string")
    features = Features({"prompt": text, "completion": text, "extra": Json(), "list": List(Json())})
    Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    assert list(read_rows(tmp_path / "saved")) == rows


SAVED: dict[str, tuple[str, str, str]] = {
    "a state that is no JSON": ("state.json", "{", "state.json"),
    "a state that lists nothing": ("state.json", "{}", "lists no _data_files"),
    "a state that is a list": ("state.json", "[]", "lists no _data_files"),
    "a file elsewhere": ("state.json", '{"_data_files": [{"filename": "../../etc/passwd"}]}', "it names"),
    "a file that is a number": ("state.json", '{"_data_files": [{"filename": 3}, 7]}', "it names"),
    "a file that is not there": ("state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow"),
    "splits that are no list": ("dataset_dict.json", '{"splits": 3}', "lists no splits"),
    "splits elsewhere": ("dataset_dict.json", '{"splits": [".."]}', "it names"),
    "splits that are not there": ("dataset_dict.json", '{"splits": ["train"]}', "train"),
    "splits nested too deep": ("dataset_dict.json", "[" * 100_000, "dataset_dict.json"),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_damaged_saved_data_set_is_one_line(tmp_path: Path, name: str) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    file, content, words = SAVED[name]
    (tmp_path / "saved" / file).write_text(content)
    assert words in outcome(tmp_path / "saved").line


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_of_a_saved_data_set(tmp_path: Path, damage: str) -> None:
    from datasets import Dataset

    Dataset.from_list(CHATS).save_to_disk(tmp_path / "saved", num_shards=2)
    shard = tmp_path / "saved" / "data-00001-of-00002.arrow"
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    found = outcome(tmp_path / "saved")
    assert "not a readable Arrow file" in found.line or found.rows in (60, 90)


# the child that reads


def test_who_reads_in_part_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(as_parquet(ROWS))
    for _ in range(3):
        rows = read_rows(tmp_path / "a.parquet")
        assert next(rows) == ROWS[0]
    both = zip(read_rows(tmp_path / "a.parquet"), read_rows(tmp_path / "a.parquet"), strict=True)
    assert [one for one, two in both if one == two] == ROWS


@pytest.mark.parametrize("end", ["crash", "loop", "memory"])
def test_a_reader_that_crashes_loops_or_asks_for_all_memory_is_one_line(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is told to do so by a stand-in for the module that reads."""
    acts = {
        "crash": "import ctypes; ctypes.string_at(0)",
        "loop": "import re; re.match(r'(a*)*$', 'a' * 40 + 'b')",
        "memory": "bytearray(2**40)",
    }
    (tmp_path / "stand_in.py").write_text(
        "import dsel.guard, dsel.checked\n"
        "dsel.guard.SECONDS = 1\n"
        f"def checked(*_):\n    {acts[end]}\n    yield ''\n"
        "dsel.checked.checked = checked\n"
        "dsel.guard.serve()\n"
    )
    (tmp_path / "a.parquet").write_bytes(as_parquet(ROWS))
    plain = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return plain([sys.executable, str(tmp_path / "stand_in.py")], **options)

    guard._stop_all()
    monkeypatch.setattr(subprocess, "Popen", start)
    found = outcome(tmp_path / "a.parquet")
    guard._stop_all()
    assert {"crash": "signal 11", "loop": "nothing comes of it", "memory": "MemoryError"}[end] in found.line


def test_a_child_that_died_meanwhile_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(as_parquet(ROWS))
    assert list(read_rows(tmp_path / "a.parquet")) == ROWS
    for child in guard._idle:
        child.kill()
        child.wait()
    assert list(read_rows(tmp_path / "a.parquet")) == ROWS


RUNS = ["stream.arrow", "plain.parquet", "lines.jsonl.gz", "table.csv"]


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_with_a_damaged_file_ends_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    content = KINDS[kind]()
    path.write_bytes(b'"' + content[:40] if kind == "table.csv" else content[: len(content) // 2])
    command = [sys.executable, "-m", "dsel.run", "experiments=quickstart", "data=local", f"data.path={path}"]
    done = subprocess.run(command, cwd=ROOT, env=offline(tmp_path), capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert str(path) in done.stderr.strip().splitlines()[-1]
