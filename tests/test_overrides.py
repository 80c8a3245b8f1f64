"""Overrides with signs that Hydra's grammar does not know, or has for its own."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from dsel.errors import ConfigError
from dsel.overrides import multirun_first, readable

PARSER = OverridesParser.create()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.path=~/a.jsonl", "~/a.jsonl"),
        ("data.path=数据/中文.jsonl", "数据/中文.jsonl"),
        ("data.path=my données/é à.jsonl", "my données/é à.jsonl"),
        ("data.path=😀", "😀"),
        ("data.path=[数据/a.jsonl, ~/b, c d]", ["数据/a.jsonl", "~/b", "c d"]),
        ("data.path={chat: ~/a, code: [~/b,é], x: y}", {"chat": "~/a", "code": ["~/b", "é"], "x": "y"}),
        ("data.path='a, b(1)'", "a, b(1)"),
        ("data.path=a b.jsonl", "a b.jsonl"),
        ("budget=0.5", 0.5),
        ("+data.path=~", "~"),
    ],
)
def test_ordinary_paths_are_read_as_they_are(argument: str, value: object) -> None:
    assert PARSER.parse_override(readable(argument)).value() == value


@pytest.mark.parametrize(
    "value", ["lr=1e-4, v(2)/part #1.jsonl", "v(2)", "a[1].json", "it's", 'a"b', "a&b", "~/x=1", "c{", "a$b`(c)"]
)
def test_what_hydra_has_for_its_own_is_named_with_the_quotes_it_needs(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        readable(f"data.path={value}")
    message = str(caught.value)
    assert message.startswith(f"data.path={value}: ") and "\n" not in message
    advised = message.rpartition('for it: "')[2][:-1]
    for sign in '"$`\\':
        advised = advised.replace(f"\\{sign}", sign)  # what a shell makes of it between double quotes
    assert PARSER.parse_override(advised).value() == value


@pytest.mark.parametrize(
    ("value", "signs", "advised"),
    [
        ("a(1)=2.jsonl", "( ) =", "'a(1)=2.jsonl'"),
        ("数据/it's #1~", "' #", r"'数据/it\\'s #1~'"),
        ("a[1].json", "[ ]", "'a[1].json'"),
        ("[a(1).json,数据]", "( )", "['a(1).json','数据']"),
        ("{chat: ~/v=2, code: b}", "=", "{chat: '~/v=2', code: 'b'}"),
    ],
)
def test_the_hint_names_the_signs_and_leaves_lists_lists(value: str, signs: str, advised: str) -> None:
    with pytest.raises(ConfigError) as caught:
        readable(f"data.path={value}")
    assert f"wants text with {signs} in quotes; " in str(caught.value)
    assert str(caught.value).endswith(f': "data.path={advised}"')


def test_choices_of_a_sweep_stay_choices() -> None:
    assert PARSER.parse_override(readable("data.path=~/a,~/b")).is_sweep_override()


@pytest.mark.parametrize("argument", ["-m", "--cfg=job", "~data.path", "键=1", "data", "a=${b}"])
def test_everything_else_is_left_to_hydra(argument: str) -> None:
    assert readable(argument) == argument


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_any_text_is_read_or_named(value: str) -> None:
    try:
        PARSER.parse_override(readable(f"data.path={value}"))
    except ConfigError as error:
        assert "quote the value" in str(error)


def test_overrides_may_stand_on_both_sides_of_multirun() -> None:
    given = ["experiments=laptop", "-m", "seed=0,1", "--cfg", "job"]
    assert multirun_first(given) == ["-m", "experiments=laptop", "seed=0,1", "--cfg", "job"]
