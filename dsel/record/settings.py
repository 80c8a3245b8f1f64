"""Settings as a record has them, beside those of our own configuration: facts that are looked at, and never built."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

LONGEST = 4000  # characters of a setting in a command


def differences(wanted: Any, recorded: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, recorded value, ours) of each setting that both configurations have, with different values."""
    if isinstance(wanted, Mapping) and isinstance(recorded, Mapping):
        for key, value in wanted.items():
            if key in recorded:
                yield from differences(value, recorded[key], f"{path}.{key}" if path else str(key))
    elif wanted != recorded:
        yield path, recorded, wanted


def is_setting(path: str, value: Any, ours: Any) -> bool:
    """Whether a recorded value can stand where our configuration has `ours`: a plain one that Hydra reads as it is.

    A class (`_target_`) and an interpolation stand nowhere, a mapping only where ours has nothing.
    """
    names, parts = path.split("."), value if isinstance(value, list) else [value]
    if isinstance(value, Mapping):
        names, parts = [*names, *map(str, value)], list(value.values())
    if any(not re.fullmatch(r"[^\W_][\w@/-]*", name) for name in names):
        return False
    if isinstance(value, Mapping) and ours is not None or isinstance(ours, Mapping) and value is not None:
        return False
    texts = [part for part in parts if isinstance(part, str)]
    if any("${" in text or "\n" in text or text == "???" for text in texts):
        return False
    return not any(isinstance(part, (Mapping, list)) for part in parts) and len(literal(value)) <= LONGEST


def override(path: str, value: Any) -> str:
    """A setting as Hydra's command line reads it."""
    return f"{path}={literal(value)}"


def literal(value: Any) -> str:
    """`value` as Hydra's command line reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(literal, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    words = ("null", "true", "false", "nan", "inf")
    plain = re.fullmatch(r"[A-Za-z_./~][\w./~%+@:-]*", value) and value.lower() not in words
    return value if plain else QuotedString(value, Quote.single).with_quotes()
