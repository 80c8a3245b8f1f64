"""Calls of tools and the schemas of tools, in the one form that chat templates know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsel.data.reading import Reading, Row, bare, parsed

TOOLS = ("tools", "functions")


def call_of(call: Any) -> dict[str, Any] | None:
    """A call as {type: function, function: {name, arguments}}, with its id; None when it is none.

    Reads OpenAI's form, the bare {name, arguments} of ShareGPT and of `function_call`, and Anthropic's {name, input}.
    Arguments in JSON text become the map they are, which is what templates print.
    """
    if not isinstance(call, Mapping):
        return None
    inner = call["function"] if isinstance(call.get("function"), Mapping) else call
    if not isinstance(inner.get("name"), str):
        return None
    given: Any = next((inner[k] for k in ("arguments", "parameters", "input") if inner.get(k) is not None), {})
    if isinstance(given, str):
        read = parsed(given)
        given = read if isinstance(read, dict) else given
    identity = {"id": str(call["id"])} if call.get("id") is not None else {}
    return {**identity, "type": "function", "function": {"name": inner["name"], "arguments": bare(given)}}


def calls_in(item: Mapping[str, Any]) -> list[Any]:
    """The calls that a turn makes beside its content: `tool_calls`, or `function_call`, which came before it."""
    found = item.get("tool_calls") or item.get("function_call")
    if isinstance(found, str):
        found = parsed(found) or found
    if not found:
        return []
    calls = found if isinstance(found, list) else [found]
    return [call_of(call) or bare(call) for call in calls]


def tools_of(row: Row, reading: Reading) -> list[Any]:
    """The schemas of the tools a row's conversation may call: its column's, or those found in its turns.

    A column that holds neither a list nor JSON text of one is left unread. {name, parameters} alone becomes
    {type: function, function: …}, the form that templates expect.
    """
    for column in TOOLS:
        value = row.get(column)
        found = parsed(value) if isinstance(value, str) else value
        if isinstance(found, Mapping):
            found = [found]
        if isinstance(found, list) and all(isinstance(tool, Mapping) for tool in found):
            reading.read.add(column)
            reading.tools += found
    return [_schema(tool) for tool in reading.tools]


def _schema(tool: Any) -> Any:
    plain = bare(tool)
    if not isinstance(plain, dict) or "function" in plain or "name" not in plain:
        return plain
    return {"type": "function", "function": {k: v for k, v in plain.items() if k != "type"}}
