"""Rows of JSON: an array, objects in a row, a container with a list of rows, or a table column by column."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from dsel.data.raw import DECOMPRESSORS, PIECE, Row, Unreadable, lines_of, opened, whole
from dsel.errors import ConfigError, need

log = logging.getLogger(__name__)

# Columns of which one at least is in any row that is an example: an object that has one is no container of rows.
TEXTS = frozenset(
    "messages conversations conversation turns dialog dialogue instruction prompt question query input inputs output "
    "response answer completion target targets text chosen rejected context".split()
)


LONG = 2**26  # bytes of a file that is not held in memory, where that can be
SPACE = " \t\r\n"  # between JSON's signs
BETWEEN = re.compile(f"[{SPACE}]*")


def read_json(path: Path, split: str | None) -> Iterator[Row | Unreadable]:
    """The rows of a JSON file: one value, a value a line, or several one after the other.

    An array, or lines, of many megabytes are gone through twice, first to see that they are that to their end, and not
    held in memory; one object is.
    """
    if path.stat().st_size > (LONG // 8 if path.suffix.lower() in DECOMPRESSORS else LONG):
        if (turns := _array_of_turns(path)) is False:
            with opened(path) as file:
                yield from map(_row, _elements(file))
            return
        if turns is None and _are_lines(path):
            with opened(path) as file:
                yield from rows_of_lines(lines_of(file))
            return
    with opened(path) as file:
        text = whole(file)
    try:
        content = loads(text)
    except (ValueError, RecursionError) as error:
        lines = list(rows_of_lines(text.split("\n")))
        if _mostly_rows(lines):  # many files called .json are JSON lines
            yield from lines
        elif (values := _one_after_the_other(text)) is not None:
            yield from map(_row, values)
        else:
            raise ConfigError(f"{path}: not JSON ({_fault(error)})") from error
        return
    need(isinstance(content, (list, dict)), f"{path}: expected objects, found a {type(content).__name__}")
    yield from map(_row, [content] if is_turns(content) else _rows(content, path, split))


def _array_of_turns(path: Path) -> bool | None:
    """Whether a file is one array of nothing but turns; None for what is no array."""
    count, turns = 0, True
    try:
        with opened(path) as file:
            for element in _elements(file):
                count, turns = count + 1, turns and is_turns([element])
    except (ValueError, RecursionError):
        return None
    return turns and count > 0


def _are_lines(path: Path) -> bool:
    """Whether a file has an object in its first line and in most others."""
    count = objects = 0
    with opened(path) as file:
        for row in rows_of_lines(lines_of(file)):
            count, objects = count + 1, objects + isinstance(row, dict)
            if not objects:
                return False
    return count > 1 and 2 * objects > count


def _elements(text: TextIO) -> Iterator[Any]:
    """The elements of a text that is one array, one after the other. Raises ValueError where it is anything else."""
    buffer = text.read(PIECE).removeprefix("\ufeff").lstrip(SPACE)
    if not buffer.startswith("["):
        raise ValueError("no array")
    at, more, comma = 1, PIECE, False
    while True:
        at = BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]
        if buffer[at : at + 1] == "]":
            if comma:
                raise ValueError("a comma before the end of the array")
            break
        try:
            value, end = _decoded(buffer, at)
            after = BETWEEN.match(buffer, end).end()  # type: ignore[union-attr]
            if after < len(buffer):  # what follows says that a number is not cut
                if buffer[after] not in ",]":
                    raise ValueError("neither a comma nor the end of the array")
                yield value
                comma = buffer[after] == ","
                at, more = after + comma, PIECE
                continue
        except json.JSONDecodeError as error:
            fault: Exception = error
        else:
            fault = ValueError("it ends in the middle")
        piece = text.read(more)
        if not piece:
            raise fault
        buffer, at, more = buffer[at:] + piece, 0, 2 * more
    if (buffer[at + 1 :] + whole_rest(text)).strip(SPACE):
        raise ValueError("something after the array")


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins in a text, and where it ends, as `loads` reads it."""
    try:
        return PLAIN.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return LARGE_NUMBERS.raw_decode(text, at)


def whole_rest(text: TextIO) -> str:
    """What is left of a text, but for white space."""
    return "".join(piece for piece in iter(lambda: text.read(PIECE), "") if piece.strip(SPACE))


def read_json_lines(path: Path, split: str | None) -> Iterator[Row | Unreadable]:
    """The rows of a file of JSON lines; where its lines are no rows it may still be JSON over many lines."""
    with opened(path) as file:
        rows = rows_of_lines(lines_of(file))
        first = next(rows, None)
        if isinstance(first, dict):
            yield first
            yield from rows
            return
        lines = [] if first is None else [first, *rows]
    if lines and not _mostly_rows(lines):
        with suppress(ConfigError):  # neither: the lines are reported as they are
            lines = list(read_json(path, split))
    yield from lines


def loads(text: str) -> Any:
    """The value of a JSON text. A number of more digits than Python takes stays the text it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_number)


def _number(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


PLAIN, LARGE_NUMBERS = json.JSONDecoder(), json.JSONDecoder(parse_int=_number)


def first_row(path: Path) -> Row | Unreadable | None:
    """What is in the first line of a text that is not empty."""
    with opened(path) as file:
        return next(rows_of_lines(lines_of(file)), None)


def rows_of_lines(lines: Iterable[str | Unreadable], *, first: bool = True) -> Iterator[Row | Unreadable]:
    """A row from each line that is not empty. They end with \\n: U+2028 and friends are legal inside JSON strings.

    first: whether the first of them is the text's first, before which there may be a mark.
    """
    for line in lines:
        if isinstance(line, Unreadable):
            yield line
            continue
        if first:
            line, first = line.removeprefix("\ufeff"), False
        if not line.strip():
            continue
        try:
            row = loads(line)
        except ValueError:
            yield Unreadable("not JSON")
            continue
        except RecursionError:
            yield Unreadable("lists within lists, too deep to be kept")
            continue
        yield _row(row)


def _fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    return "lists within lists, too deep to be read" if isinstance(error, RecursionError) else str(error)


def is_turns(value: Any) -> bool:
    """Whether a value is a conversation: a list of objects that each say who speaks."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
        and all({"content", "value", "tool_calls", "parts"} & set(turn) for turn in value)
    )


def _mostly_rows(lines: list[Row | Unreadable]) -> bool:
    return 2 * sum(isinstance(row, dict) for row in lines) > len(lines)


def _one_after_the_other(text: str) -> list[Any] | None:
    """The values of a text that is nothing but JSON values, with white space or commas between them."""
    decoder, between, values = json.JSONDecoder(), re.compile(r"[\s,]*"), []
    at = 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.append(value)
        at = between.match(text, at).end()  # type: ignore[union-attr]
    return values or None


def _row(value: Any) -> Row | Unreadable:
    """An object is a row; so is a conversation without one, in the column that its form has."""
    if isinstance(value, dict):
        return value
    if is_turns(value):
        return {"messages" if "role" in value[0] else "conversations": value}
    return Unreadable("not an object")


def _rows(content: Any, path: Path, split: str | None) -> list[Any]:
    """What the rows of a file's one value are: an object may be a row itself, hold them, or be a table of them."""
    if isinstance(content, list):
        return content
    if TEXTS & set(content):
        return _table(content) or [content]
    if _is_grid(content):  # pandas, orient="split"
        return [dict(zip(content["columns"], row, strict=False)) for row in content["data"]]
    values = list(content.values())
    if values and all(map(is_turns, values)):  # a conversation for each name
        return [{"id": name, "messages" if "role" in v[0] else "conversations": v} for name, v in content.items()]
    if values and all(isinstance(v, dict) and TEXTS & set(v) for v in values):  # a row for each name
        return [{"id": name, **row} for name, row in content.items()]
    lists = {k: v for k, v in content.items() if isinstance(v, list) and v and _holds_rows(v)}
    if len(lists) <= 1:
        return next(iter(lists.values()), [content])
    if split is None:
        return [row for rows in lists.values() for row in rows]
    listed = ", ".join(f"{name} ({len(rows)})" for name, rows in lists.items() if name != split)
    need(
        split in lists,
        f"{path}: holds several lists of rows, {listed}; set data.split to one of them, or to null for all",
    )
    log.info("%s: read is %s (%d rows); left out: %s", path, split, len(lists[split]), listed)
    return lists[split]


def _holds_rows(values: list[Any]) -> bool:
    return (isinstance(values[0], dict) and not is_turns(values)) or is_turns(values[0])


def _is_grid(content: Mapping[str, Any]) -> bool:
    names, rows = content.get("columns"), content.get("data")
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return named and isinstance(rows, list) and all(isinstance(row, list) for row in rows)


def _table(columns: Mapping[str, Any]) -> list[Row] | None:
    """The rows of a table given by its columns, each a list or an object by index; None where it is none."""
    values = list(columns.values())
    if len(values) > 1 and all(isinstance(v, list) and not is_turns(v) and len(v) == len(values[0]) for v in values):
        return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(v, dict) and v.keys() == values[0].keys() for v in values) and not TEXTS & set(values[0]):
        return [{name: v[index] for name, v in columns.items()} for index in values[0]]
    return None
