"""Recorded settings beside ours: what differs, what of it can be set, and how it is written."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from dsel.record.settings import differences, is_setting, literal


def test_differences_are_of_what_both_have() -> None:
    one = {"a": {"b": 1, "c": None, "only": 2}, "d": [1, 2], "e": 1.0}
    other = {"a": {"b": 2, "c": {"rank": 8}}, "d": [1, 3], "e": 1, "more": 0}
    assert list(differences(one, other)) == [
        ("a.b", 2, 1), ("a.c", {"rank": 8}, None), ("d", [1, 3], [1, 2]),
    ]  # fmt: skip
    assert list(differences(one, one)) == []


@pytest.mark.parametrize(
    ("path", "value", "ours"),
    [
        ("a._target_", "os.system", "dsel.data.local.Local"), ("a", {"_target_": "os.system"}, None),
        ("a", "${oc.env:HOME}", "x"), ("a", ["${oc.env:HOME}"], None), ("a", "two\nlines", "x"), ("a", "???", None),
        ("a", {"b": 1}, "x"), ("a", 1, {"b": 1}), ("a", [[1]], None), ("a", {"b c": 1}, None), ("a", "x" * 5000, None),
    ],
)  # fmt: skip
def test_what_is_no_plain_value_is_no_setting(path: str, value: Any, ours: Any) -> None:
    assert not is_setting(path, value, ours)
    assert is_setting("a.b", "plain", "ours") and is_setting("a", {"web": "a.jsonl"}, None) and is_setting("a", [1], 2)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6).map(lambda v: round(v, 6))
    | st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex("[a-z_]{1,6}", fullmatch=True)
                                                                .filter(lambda k: k not in ("null", "true", "false",
                                                                                            "inf", "nan")),
                                                                inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(JSON)
def test_a_value_is_written_as_hydra_reads_it(value: Any) -> None:
    parsed = OverridesParser.create().parse_override(f"key={literal(value)}").value()
    assert plain(parsed) == value


def plain(value: Any) -> Any:
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
