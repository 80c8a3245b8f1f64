"""From a row of any of the field's formats to messages. A format is known by its columns, never by a file's name."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dsel.errors import ConfigError, need
from dsel.pool import Message

Row = Mapping[str, Any]


class BadRow(Exception):
    """A row that cannot be used; the message is the reason, in a few words that group well."""


ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}


def from_messages(row: Row) -> list[Message]:
    """OpenAI chat format: `messages`, a list of {role, content}."""
    return _turns(row["messages"], role="role", content="content")


def from_sharegpt(row: Row) -> list[Message]:
    """ShareGPT: `conversations`, a list of {from, value}, sometimes with `system` beside it."""
    turns = row["conversations"]
    openai = isinstance(turns, list) and turns and isinstance(turns[0], Mapping) and "role" in turns[0]
    messages = _turns(turns, role="role", content="content") if openai else _turns(turns, role="from", content="value")
    return _with_system(row, messages)


def from_alpaca(row: Row) -> list[Message]:
    """Alpaca: `instruction`, `input` (may be missing or empty) and `output`.

    The input is appended as "\\nInput: " + input, which is how the published IterIT code and both papers'
    reference embeddings join the two (method.md §4 and §7).
    """
    prompt, given = _text(row["instruction"]), _text(row.get("input"))
    return _with_system(row, _pair(f"{prompt}\nInput: {given}" if prompt and given else prompt or given, row["output"]))


def from_self_instruct(row: Row) -> list[Message]:
    """Self-Instruct seed tasks: `instruction` and `instances`, of which the first is used."""
    instances = row["instances"]
    first = instances[0] if isinstance(instances, list) and instances else {}
    if not isinstance(first, Mapping):
        raise BadRow("not text")
    return from_alpaca({"instruction": row["instruction"], "input": first.get("input"), "output": first.get("output")})


def from_prompt_completion(row: Row) -> list[Message]:
    """`prompt` and `completion`, each a string or a list of {role, content}."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _turns([*prompt, *completion], role="role", content="content")
    return _with_system(row, _pair(prompt, completion))


def renamed(prompt: str, completion: str) -> Callable[[Row], list[Message]]:
    """A prompt/completion format whose two columns are called otherwise."""

    def convert(row: Row) -> list[Message]:
        return from_prompt_completion({**row, "prompt": row[prompt], "completion": row[completion]})

    convert.__doc__ = f"`{prompt}` and `{completion}`, read as prompt and completion."
    return convert


@dataclass(frozen=True)
class Format:
    """The columns that make a format recognisable, those it also reads, and its converter to messages."""

    required: tuple[str, ...]
    convert: Callable[[Row], list[Message]]
    optional: tuple[str, ...] = ("system",)


FORMATS = (
    Format(("messages",), from_messages, ()),
    Format(("conversations",), from_sharegpt),
    Format(("instruction", "instances"), from_self_instruct, ()),
    Format(("instruction", "output"), from_alpaca, ("input", "system")),
    Format(("prompt", "completion"), from_prompt_completion),
    Format(("prompt", "response"), renamed("prompt", "response")),
    Format(("instruction", "response"), renamed("instruction", "response")),
    Format(("question", "answer"), renamed("question", "answer")),
    Format(("inputs_pretokenized", "targets_pretokenized"), renamed("inputs_pretokenized", "targets_pretokenized")),
)
"""In order of precedence: a row that fits several is read as the first."""

NAMES = tuple(sorted({c for f in FORMATS for c in (*f.required, *f.optional)} | {"id", "source"}))
"""The column names that `data.columns` can map a file's own columns to."""


def recognise(columns: Collection[str], where: str) -> Format:
    """The format that has all its required columns among `columns`.

    Raises `ConfigError` naming the columns found at `where` when there is none.
    """
    for candidate in FORMATS:
        if set(candidate.required) <= set(columns):
            return candidate
    known = "; ".join("/".join(f.required) for f in FORMATS)
    raise ConfigError(
        f"{where}: no instruction format has the columns {', '.join(sorted(columns)) or '(none)'}; known are {known}; "
        "name yours with e.g. data.columns={prompt: …, completion: …}"
    )


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise `ConfigError` when a `data.columns` mapping has a name no format knows."""
    unknown = sorted(set(columns) - set(NAMES))
    need(not unknown, f"data.columns: {', '.join(unknown)} is none of {', '.join(NAMES)}")


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """`row` with the columns of a `data.columns` mapping (our name → the file's name) under our names."""
    if not columns:
        return row
    taken = set(columns.values())
    kept = {k: v for k, v in row.items() if k not in taken}
    return kept | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def to_messages(row: Row, form: Format, repairs: Counter[str]) -> list[Message]:
    """The row's turns: optional system, then user and assistant turns ending with a non-empty response.

    Turns before the first user turn (except system) and after the last response are cut, and counted in `repairs`.
    Raises `BadRow` when the row cannot be used.
    """
    try:
        messages = form.convert(row)
    except KeyError as error:
        raise BadRow(f"no column {error.args[0]!r}") from error
    for message in messages:
        check_text(message["content"])
    system = [m for m in messages if m["role"] == "system"]
    turns = [m for m in messages if m["role"] != "system"]
    while turns and turns[0]["role"] != "user":
        turns.pop(0)
        repairs["leading assistant turns cut"] += 1
    if not any(m["content"].strip() for m in turns if m["role"] == "user"):
        raise BadRow("no user turn")
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
        repairs["unanswered last turns cut"] += 1
    if not turns or any(not m["content"].strip() for m in turns if m["role"] == "assistant"):
        raise BadRow("empty response")
    return [*[m for m in system if m["content"].strip()], *turns]


def check_text(text: str) -> None:
    """Raise `BadRow` when `text` holds bytes that were not UTF-8 (they arrive as lone surrogates)."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRow("broken UTF-8") from error


def scores_of(row: Row, form: Format) -> dict[str, float]:
    """The row's numeric columns that are not part of its format: scores it came with."""
    used = {*form.required, *form.optional, "id", "source"}
    return {
        name: float(value)
        for name, value in row.items()
        if name not in used and isinstance(value, (int, float)) and not isinstance(value, bool)
        if abs(value) <= sys.float_info.max  # isfinite() raises on integers beyond it; NaN compares false
    }


def _turns(turns: Any, *, role: str, content: str) -> list[Message]:
    if not isinstance(turns, list):
        raise BadRow("not text" if turns else "no user turn")
    messages = []
    for turn in turns:
        if not isinstance(turn, Mapping) or content not in turn or role not in turn:
            raise BadRow(f"a turn without {role!r} and {content!r}")
        name = ROLES.get(str(turn[role]).lower())
        if name is None:
            raise BadRow(f"unknown role {str(turn[role])[:20]!r}")
        messages.append({"role": name, "content": _text(turn[content])})
    return messages


def _pair(prompt: Any, response: Any) -> list[Message]:
    return [{"role": "user", "content": _text(prompt)}, {"role": "assistant", "content": _text(response)}]


def _with_system(row: Row, messages: list[Message]) -> list[Message]:
    system = _text(row.get("system"))
    return [{"role": "system", "content": system}, *messages] if system else messages


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow("not text")
    return value
