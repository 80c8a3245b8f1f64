"""From a row of any of the field's formats to messages. A format is known by its columns, never by a file's name."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dsel.data.calls import TOOLS, tools_of
from dsel.data.reading import BadRow, Reading, Row, check_text, is_nothing, printable
from dsel.data.turns import (
    ANSWERS,
    GIVEN,
    PROMPTS,
    REASONING,
    SYSTEM,
    check_media,
    has_turns,
    is_side,
    pair,
    side,
    transcript,
    turns_of,
    with_system,
)
from dsel.errors import ConfigError, need
from dsel.pool import Message

CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog")
LOOSE_CHATS = ("contents", "chat", "turns", "data")
"""Columns that hold turns in some data sets and other things in many."""

UNWANTED = ("label", "kto_tag", "desirable", "is_desirable")
"""Columns that say of an answer whether it is wanted (KTO). A number is a verdict in all but `label`."""

VERDICTS = {"true": True, "false": False, "1": 1, "0": 0}


@dataclass(frozen=True)
class Format:
    """The columns that make a format recognisable, those it also reads, and its converter to messages.

    `holds(value)` says whether a required column holds what the format is made of.
    """

    required: tuple[str, ...]
    convert: Callable[[Row, Reading], list[Message]]
    optional: tuple[str, ...] = (*SYSTEM, *TOOLS)
    holds: Callable[[Any], bool] = is_side

    @property
    def name(self) -> str:
        """What `data.format` calls it."""
        return "/".join(self.required)

    def fits(self, row: Row) -> bool:
        """Whether each of the row's columns holds something, and what this format is made of."""
        return all(not is_nothing(row[c]) and self.holds(row[c]) for c in self.required)


def chat(column: str) -> Format:
    """A list of turns in one column (OpenAI, ShareGPT, LIMA, Capybara), sometimes with `system` and `tools` beside it.

    A conversation that ends with a question is answered by `chosen` (preference pairs in ShareGPT's form).
    """

    def convert(row: Row, reading: Reading) -> list[Message]:
        messages = turns_of(reading.take(row, column), column, reading, strings=column != "turns")
        if messages and messages[-1]["role"] == "user" and not is_nothing(row.get("chosen")):
            messages += side(reading.take(row, "chosen"), "chosen", "assistant", reading)
        return with_system(row, messages, reading)

    return Format((column,), convert, (*SYSTEM, *TOOLS, "chosen"), has_turns)


def question_and_answer(ask: str, answer: str) -> Format:
    """A question and an answer in two columns, each text or messages."""
    optional = tuple(c for c in (*GIVEN, "history", *REASONING, *SYSTEM, *TOOLS) if c not in (ask, answer))
    return Format((ask, answer), lambda row, reading: pair(row, ask, answer, reading), optional)


def from_self_instruct(row: Row, reading: Reading) -> list[Message]:
    """Self-Instruct seed tasks: `instruction` and `instances`, of which the first is used."""
    instances = reading.take(row, "instances")
    first = instances[0] if isinstance(instances, list) and instances else {}
    if not isinstance(first, Mapping):
        raise BadRow("`instances` is no list of maps")
    if isinstance(instances, list) and len(instances) > 1:
        reading.repairs["instances of an instruction beyond the first, left out"] += len(instances) - 1
    alpaca = {"instruction": reading.take(row, "instruction"), "input": first.get("input")}
    return pair({**alpaca, "output": first.get("output")}, "instruction", "output", reading)


FORMATS = (
    *(chat(column) for column in CHATS),
    Format(("instruction", "instances"), from_self_instruct, (), lambda value: isinstance(value, (str, list))),
    *(question_and_answer(ask, answer) for ask in PROMPTS for answer in ANSWERS),
    Format(("chosen", "rejected"), transcript, SYSTEM, has_turns),
    *(chat(column) for column in LOOSE_CHATS),
)
"""In order of precedence: a row that fits several is read as the first."""

KNOWN_AS = {
    "openai": "messages",
    "sharegpt": "conversations",
    "alpaca": "instruction/output",
    "hh_rlhf": "chosen/rejected",
}
"""Other names of formats for `data.format`."""

NAMES = tuple(sorted({c for f in FORMATS for c in (*f.required, *f.optional)} | {"id", "source"}))
"""The column names that `data.columns` can map a file's own columns to."""

KNOWN = (
    f"a list of turns ({', '.join((*CHATS, *LOOSE_CHATS))}), or a question ({', '.join(PROMPTS)}) "
    f"with an answer ({', '.join(ANSWERS)})"
)


def recognise(row: Row, where: str, named: str | None = None, mapped: Collection[str] = ()) -> Format:
    """The format of a row: the first whose columns are there and hold what it reads, else the first whose columns are.

    named: a format by name (`data.format`). mapped: our names of columns that `data.columns` names: a format that
    reads them comes first. Raises `ConfigError` naming the columns found at `where` when there is none.
    """
    known = candidates(tuple(row), named, frozenset(mapped))
    if known:
        return next((form for form in known if form.fits(row)), known[0])
    has = ", ".join(sorted(map(printable, row))) or "(none)"
    if named is not None:
        lacks = [c for c in format_named(named).required if c not in row]
        example = ", ".join(f"{c}: …" for c in lacks)
        raise ConfigError(
            f"{where}: data.format={named} needs {' and '.join(lacks)}, but the columns are {has}; "
            f"name them with data.columns={{{example}}}"
        )
    lists = [name for name, value in row.items() if isinstance(value, list) and value and has_turns(value)]
    example = f"{{messages: {printable(lists[0])}}}" if lists else "{prompt: …, completion: …}"
    raise ConfigError(
        f"{where}: no instruction format has the columns {has}; "
        f"name yours with data.columns={example} or --columns; known are {KNOWN}"
    )


@functools.lru_cache(maxsize=1024)
def candidates(columns: tuple[str, ...], named: str | None, mapped: frozenset[str]) -> list[Format]:
    """The formats whose columns are all there, in order of precedence."""
    formats = FORMATS if named is None else (format_named(named),)
    there = [form for form in formats if set(form.required) <= set(columns)]
    wanted = (mapped & set(columns)) - {"id", "source"}
    return [form for form in there if wanted <= {*form.required, *form.optional}] or there


def format_named(name: str) -> Format:
    """The format that `data.format` names. Raises `ConfigError` naming the known ones."""
    plain = KNOWN_AS.get(name, name)
    found = next((form for form in FORMATS if form.name == plain), None)
    if found is None:
        raise ConfigError(
            f"data.format={name}: give one of {', '.join([*KNOWN_AS, *CHATS, *LOOSE_CHATS])}, or question/answer with "
            f"one of {', '.join(PROMPTS)} and one of {', '.join(ANSWERS)}"
        )
    return found


def check_columns(columns: Any) -> None:
    """Raise `ConfigError` when a `data.columns` mapping has a name no format knows, or names no column."""
    example = "give {our name: the file's}, e.g. data.columns={prompt: my_question, completion: my_answer}"
    need(columns is None or isinstance(columns, Mapping), f"data.columns={columns}: {example}")
    for ours, theirs in (columns or {}).items():
        need(isinstance(theirs, str), f"data.columns: {ours} is to be {theirs!r}, which is no column's name; {example}")
    unknown = sorted(str(c) for c in set(columns or ()) - set(NAMES))
    need(not unknown, f"data.columns: {', '.join(unknown)} is none of {', '.join(NAMES)}")


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """`row` under our names: those of a `data.columns` mapping (ours → the file's), and known ones in any case."""
    if columns:
        taken = set(columns.values())
        kept = {k: v for k, v in row.items() if k not in taken}
        row = kept | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    folded = _folded(tuple(row))
    return {folded.get(k, k): v for k, v in row.items()} if folded else row


@functools.lru_cache(maxsize=1024)
def _folded(columns: tuple[str, ...]) -> dict[str, str]:
    """Columns that are a known name but for capitals and spaces (`Question`) → that name."""
    folded: dict[str, str] = {}
    for column in columns:
        plain = column.strip().lower()
        if column not in NAMES and plain in NAMES and plain not in columns and plain not in folded.values():
            folded[column] = plain
    return folded


def to_messages(row: Row, form: Format, reading: Reading | None = None) -> list[Message]:
    """The row's turns: they begin with a system or a user turn and end with a response that is trained on.

    Turns before the first user turn (except system) and after the last such response are cut, and counted in
    `reading.repairs`. Raises `BadRow` when the row cannot be used.
    """
    reading = Reading() if reading is None else reading
    for name, value in row.items():
        check_media(name, value)
    _check_wanted(row, reading)
    lacks = next((c for c in form.required if c not in row), None)
    if lacks is not None:
        raise BadRow(f"no column `{lacks}`")
    try:
        messages = form.convert(row, reading)
    except (AttributeError, TypeError, LookupError) as odd:  # a format's code took a value for what it is not
        raise BadRow(f"not as the format {form.name} has it ({type(odd).__name__}: {odd})") from odd
    tools = tools_of(row, reading)
    for message in messages:
        for value in message.values():
            check_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    messages = _cut(messages, reading)
    if tools:
        check_text(json.dumps(tools, ensure_ascii=False))
        messages[0] = {**messages[0], "tools": tools}
    return messages


def _cut(messages: list[Message], reading: Reading) -> list[Message]:
    """`messages` from the first question to the last response that is trained on."""
    turns = [m for m in messages if m["role"] != "system" or m["content"].strip()]
    first = next((i for i, m in enumerate(turns) if m["role"] == "user"), len(turns))
    leading = [m for m in turns[:first] if m["role"] != "system"]
    if leading:
        reading.repairs["leading assistant turns cut"] += len(leading)
    turns = [m for i, m in enumerate(turns) if i >= first or m["role"] == "system"]
    if not any(m["content"].strip() for m in turns if m["role"] == "user"):
        raise BadRow("no user turn")
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
        reading.repairs["unanswered last turns cut"] += 1
    if not turns or any(not _says(m) for m in turns if m["role"] == "assistant"):
        raise BadRow("empty response")
    if all("train" in m for m in turns if m["role"] == "assistant"):
        raise BadRow("no response to train: each has weight 0 or train false")
    while "train" in turns[-1] or turns[-1]["role"] != "assistant":
        turns.pop()
        reading.repairs["last turns without loss cut"] += 1
    return turns


def _says(message: Message) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))


def _check_wanted(row: Row, reading: Reading) -> None:
    """Raise `BadRow` for an answer that a column of KTO says is a bad one."""
    for column in UNWANTED:
        value = row.get(column)
        said = VERDICTS.get(value.strip().lower()) if isinstance(value, str) else value
        if column != "label" and said in (0, 1):
            said = bool(said)
        if isinstance(said, bool):
            reading.read.add(column)
            if not said:
                raise BadRow(f"`{column}` is false: a response that is not wanted")
        elif said in (0, 1):
            reading.repairs[f"rows with a number as `{column}`, trained whatever it says"] += 1
