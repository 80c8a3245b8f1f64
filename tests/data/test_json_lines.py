"""Lines that Arrow's reader takes are what `json.loads` makes of them, and all others are left for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.data import units
from dsel.data.json_lines import columns_of, groups_of, standing
from dsel.data.local import Local

SIGNS = ["{", "}", "\\", '"', "\ud800", "2020-01-01", "NaN", "\0", "\x7f"]
NAMES = ["prompt", "completion", "Prompt", "template", "a\0b", "", "\ud800", "id"]
texts = st.one_of(st.text(max_size=12), st.sampled_from(SIGNS))
plain = st.lists(st.fixed_dictionaries({"prompt": texts, "completion": texts, "id": texts}), min_size=1, max_size=6)
values = st.one_of(texts, st.none(), st.integers(), st.floats())
others = st.lists(st.dictionaries(st.sampled_from(NAMES), values), min_size=1, max_size=4)
odd = st.sampled_from([
    '{"prompt": "a"}{"prompt": "b"}', '{"prompt":', '"a"}', "[]", "{broken", "", " ", '{"prompt": "a"} ', "\ufeff{}",
    '{"prompt": "a", "prompt": "b"}', '{"prompt": "tab\there"}', '{"prompt": "\\ud800"}', '{"prompt": "\\udc00x"}',
    '{"prompt": "\\x"}', '{"prompt": "a"}\r', '{"prompt": "a",}', "{'prompt': 'a'}", '{"prompt": "a"} // b',
    '{"completion": "a"}',
])  # fmt: skip


def lines_of(rows: list[Any], ascii: bool, compact: bool) -> list[str]:
    return [json.dumps(row, ensure_ascii=ascii, separators=(",", ":") if compact else None) for row in rows]


@settings(deadline=None)
@given(st.one_of(plain, others), st.booleans(), st.booleans(), st.lists(st.tuples(st.integers(0, 5), odd), max_size=1))
def test_what_is_taken_is_what_python_reads(
    rows: list[Any], ascii: bool, compact: bool, more: list[tuple[int, str]]
) -> None:
    lines = lines_of(rows, ascii, compact)
    for at, line in more:
        lines.insert(at, line)
    content = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    found = columns_of(content)
    if found is not None:
        taken, stood = found
        assert stood.to_pylist() == content.decode().split("\n")[:-1]
        assert taken.to_pylist() == [json.loads(line) for line in stood.to_pylist()]
        assert [standing(line, json.loads(line)) for line in stood.to_pylist()] == stood.to_pylist()


def test_plain_lines_are_taken() -> None:
    rows = [{"prompt": f"q é \n {i}", "completion": "NaN 2020-01-01"} for i in range(3)]
    for ascii in (True, False):
        content = "\n".join(lines_of(rows, ascii, False)).encode()
        assert columns_of(content) is not None and columns_of(content + b"\n") is not None


@pytest.mark.parametrize("last", [b"", b"\n"])
def test_lines_are_cut_by_their_number_and_by_their_bytes(last: bytes) -> None:
    content = b"\n".join(b"x" * size for size in (1, 1, 1, 50, 1, 1, 0, 0)) + last
    for rows, size, count in ((100, 1000, 1), (3, 1000, 3), (100, 10, 2), (1, 1, 7)):
        found = list(groups_of(content, rows, size))
        assert b"".join(found) == content and len(found) >= count and all(f.endswith(b"\n") for f in found[:-1])
        assert all(f.count(b"\n") <= rows for f in found)


@pytest.mark.parametrize("value", ["1" * 5000, "1e5", "NaN", "[1, Infinity]", '"a"', "null"])
def test_a_line_stands_where_every_reader_can_read_it(value: str) -> None:
    line = f'{{"prompt": "q", "value":  {value}}}'
    wanted = None if value in ("1" * 5000, "NaN", "[1, Infinity]") else line
    assert standing(line + "\n", json.loads(line, parse_int=str)) == wanted
    assert standing('[{"role": "user"}]', {"messages": []}) is None


def test_a_pool_is_the_same_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"q {i}", "completion": f"a {i}" if i % 9 else " ", "hint": f"é {i}"} for i in range(200)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows)))
    fast = Local(path=path).load()
    with monkeypatch.context() as patch:
        patch.setattr(units, "columns_of", lambda content: None)
        slow = Local(path=path).load()
        patch.setattr(units, "WHOLE_LINES", 0)
        lazily = Local(path=path).load()
    for other in (slow, lazily):
        assert other.fingerprint == fast.fingerprint and other.skipped == fast.skipped
        assert list(other.originals["json"]) == list(fast.originals["json"])
    assert fast.originals["json"][0] == path.read_text().splitlines()[1]
