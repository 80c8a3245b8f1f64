"""Components as plain JSON, so that another process can make them again: what is sent to workers, and nothing else.

A description says of a dataclass its class and its fields, at any depth. Only dataclasses are made from it; a record, a
configuration or a cache is never read this way.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASS, FIELDS, REST = "class", "fields", "rest"  # rest: fields that are not given when the object is made


class Indescribable(Exception):
    """A value that plain JSON cannot hold, or a class that another process cannot find."""


def describe(value: Any) -> Any:
    """`value` as plain JSON, from which `make` makes an equal one.

    Args:
        value: numbers, texts, paths, arrays of indices, lists, tuples, mappings with texts as keys, and dataclasses of
            these.

    Raises:
        Indescribable: for anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.int64:
        return {"indices": value.tolist()}
    if isinstance(value, list):
        return [describe(each) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [describe(each) for each in value]}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: describe(each) for key, each in value.items()}}
    if is_dataclass(value) and not isinstance(value, type):
        return _dataclass(value)
    raise Indescribable(f"{type(value).__module__}.{type(value).__qualname__} is no plain data")


def make(described: Any) -> Any:
    """What was described. Raises ValueError for a description that names no dataclass."""
    if isinstance(described, list):
        return [make(each) for each in described]
    if not isinstance(described, dict):
        return described
    if CLASS in described:
        value = _known(described[CLASS])(**{name: make(each) for name, each in described[FIELDS].items()})
        for name, each in described[REST].items():
            object.__setattr__(value, name, make(each))  # also of a frozen one
        return value
    ((kind, content),) = described.items()
    if kind == "tuple":
        return tuple(make(each) for each in content)
    if kind == "indices":
        return np.array(content, dtype=np.int64)
    if kind == "path":
        return Path(content)
    return {key: make(each) for key, each in content.items()}


def _dataclass(value: Any) -> dict[str, Any]:
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        known = _class(name) is kind
    except (ImportError, AttributeError):  # of a function, or of a notebook
        known = False
    if not known or kind.__module__ == "__main__":
        raise Indescribable(f"{name} cannot be imported by another process")
    given, rest = (
        {f.name: describe(getattr(value, f.name)) for f in fields(value) if f.init is init} for init in (True, False)
    )
    return {CLASS: name, FIELDS: given, REST: rest}


def _known(name: str) -> Any:
    found = _class(name)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ValueError(f"{name} is no dataclass")
    return found


def _class(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
