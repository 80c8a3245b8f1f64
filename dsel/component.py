"""What identifies a component's output: the key of everything that is cached.

Components are dataclasses. Their fields are their configuration; a field made with `knob` changes how fast
or where a thing is computed but not what comes out, and stays out of the key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from dsel.errors import ConfigError
from dsel.files import hashed
from dsel.hub import commit_of
from dsel.secrets import anonymous

Count = Annotated[int, 1]
"""The type of a field that is a whole number above 0; `int` is one of 0 or above."""


def knob(default: Any) -> Any:
    """A dataclass field that does not change the result (batch size, device, concurrency)."""
    return dataclasses.field(default=default, metadata={"identity": False})


def identity(component: Any) -> dict[str, Any]:
    """Class and result-changing fields of a dataclass component, as plain JSON types.

    Its class may say more: `version`, a number that grows when the same fields come to give other results, and
    `libraries`, the packages whose versions do that too (`software`). A model or data set of the hub is known by the
    `commit` that its revision stands for. What depends on files (a local model folder) adds them by defining
    `extra_identity() -> dict`.
    """
    fields = {
        f.name: plain(getattr(component, f.name))
        for f in dataclasses.fields(component)
        if f.metadata.get("identity", True)
    }
    known: dict[str, Any] = {"class": f"{type(component).__module__}.{type(component).__qualname__}"}
    if hasattr(component, "version"):
        known["version"] = component.version
    if hasattr(component, "libraries"):
        known["software"] = {name: _installed(name) for name in component.libraries}
    if getattr(component, "hub", None) and getattr(component, "path", None) is None:
        kind = getattr(component, "repo_type", "model")
        known["commit"] = commit_of(component.hub, getattr(component, "revision", None), kind)
    extra = component.extra_identity() if hasattr(component, "extra_identity") else {}
    return {**known, **fields, **extra}


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def without_software(known: Any) -> Any:
    """A key without the versions of libraries, at any depth: what a finished run is known by after an upgrade."""
    if isinstance(known, Mapping):
        return {name: without_software(value) for name, value in known.items() if name != "software"}
    return [without_software(value) for value in known] if isinstance(known, list) else known


def plain(value: Any) -> Any:
    """`value` with containers and paths turned into plain JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return identity(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return [plain(v) for v in value]


def digest(key: Any) -> str:
    """24 hexadecimal digits of the SHA-256 of `key` as canonical JSON; a new password of a URL changes nothing."""
    text = json.dumps(anonymous(plain(key)), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def content_of(path: str | Path | None) -> Any:
    """What a data file is known by: a digest of its bytes; of a folder's, each with its name. None without a path.

    Neither where it is nor when it was written is part of it, so that what was computed from a copy holds for the file.
    """
    if path is None:
        return None
    found = Path(path).expanduser()
    if found.is_dir():
        files = sorted(p for p in found.rglob("*") if p.is_file() and not p.name.startswith((".", "cache-")))
        return [[p.relative_to(found).as_posix(), _digest(p)] for p in files]
    return _digest(found)


def _digest(path: Path) -> str:
    return hashed(path, hashlib.sha256())[:24]


def folder_state(folder: Path) -> list[list[Any]]:
    """Name, size and modification time of every file in `folder`, sorted: what a local model is known by.

    The folder's own place is left out, so moving a model keeps what was computed with it.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return [[p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def local_identity(path: str | None) -> dict[str, Any]:
    """The `extra_identity` of a component whose model is in the folder `path`: known by its files, not its names."""
    if path is None:
        return {}
    return {"hub": None, "path": None, "files": folder_state(Path(path).expanduser())}


def check_types(component: Any, option: str = "") -> None:
    """Raise `ConfigError` for the first field of a dataclass whose value is not of the type it is declared with.

    Whole numbers are counts, sizes and seeds: none is negative. A field that is a component is looked into. `option` is
    the component's own name in the configuration, the fields' are below it.
    """
    hints = get_type_hints(type(component), include_extras=True)
    for field in dataclasses.fields(component):
        if not field.init:
            continue
        value, hint, name = getattr(component, field.name), hints[field.name], f"{option}.{field.name}".lstrip(".")
        if not _fits(value, hint):
            quoted = f"; in quotes it is text: \"{name}='{value}'\"" if _fits(str(value), hint) else ""
            scalar = isinstance(value, (int, float))
            raise ConfigError(f"{name}={_shown(value)}: wants {_words(hint)}{quoted if scalar else ''}")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_types(value, name)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if hint is None or hint is type(None):
        return value is None
    if origin is Literal:
        return value in inner
    if origin is Annotated:
        return _fits(value, inner[0]) and value >= inner[1]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(_fits(each, inner[0]) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    return isinstance(value, origin or hint)


def _words(hint: Any, many: bool = False) -> str:
    """What a type is called in a message: `a whole number, or null`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        rest = [each for each in inner if each is not type(None)]
        words = ["paths" if many else "a path"] if {str, Path} <= set(rest) else []
        words += [_words(each, many) for each in rest if not words or each not in (str, Path)]
        words += ["null"] if type(None) in inner else []
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is Sequence:
        return f"{'lists' if many else 'a list'} of {_words(inner[0], many=True)}"
    if origin is Mapping:
        key, value = (_words(each, many=True) for each in inner)
        return f"{'mappings' if many else 'a mapping'} of {key} to {value}"
    one, several = {
        int: ("a whole number from 0", "whole numbers from 0"),
        Count: ("a whole number from 1", "whole numbers from 1"),
        float: ("a number", "numbers"),
        bool: ("true or false", "true or false"),
        str: ("text", "text"),
        Path: ("a path", "paths"),
        Any: ("anything", "anything"),
    }.get(hint, (f"a {getattr(hint, '__name__', hint)}",) * 2)
    return several if many else one


def _shown(value: Any) -> str:
    """A value as it is written on the command line, cut where it is long."""
    text = str(value)
    if value is None or isinstance(value, bool):
        text = "null" if value is None else text.lower()
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(map(_shown, value))}]"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    return text if len(text) <= 100 else f"{text[:97]}…"
