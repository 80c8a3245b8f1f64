"""Who speaks in a turn: the names that data sets have for the four roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsel.data.reading import BadRow, printable
from dsel.errors import need

KNOWN = ("system", "user", "assistant", "tool")

NAMES = {
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt chatgpt bing bard model bot chatbot ai claude function_call tool_call",
    "tool": "tool function ipython observation function_response tool_response function_result tool_result",
}
ROLES = {name: role for role, names in NAMES.items() for name in names.split()}

CALLS = ("function_call", "tool_call")
"""Names of assistant turns whose text is a call, or several, in JSON."""


def role_of(name: Any, roles: Mapping[str, str]) -> str:
    """The role that a turn's `name` stands for. Raises `BadRow` when nobody knows it."""
    role = known_role(name, roles)
    if role is None:
        shown = printable(str(name)[:20])
        raise BadRow(f"unknown role {shown!r}", f"data.roles={{{shown}: …}} makes it one of {', '.join(KNOWN)}")
    return role


def known_role(name: Any, roles: Mapping[str, str]) -> str | None:
    """The role of a name in any case: by `roles`, else by what everybody knows; None for any other name."""
    plain = folded(name)
    return ({folded(k): v for k, v in roles.items()}.get(plain) if roles else None) or ROLES.get(plain)


def folded(name: Any) -> str:
    """A role's name as it is looked up."""
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")


def check_roles(roles: Any) -> None:
    """Raise `ConfigError` when `data.roles` is not a mapping from names to roles."""
    example = "give {name in the file: role}, e.g. data.roles={observation: tool}"
    need(roles is None or isinstance(roles, Mapping), f"data.roles={roles}: {example}")
    for name, role in (roles or {}).items():
        need(role in KNOWN, f"data.roles: {name} is to be {role!r}, which is none of {', '.join(KNOWN)}; {example}")
