"""What identifies a component's output: the key of everything that is cached.

Components are dataclasses. Their fields are their configuration; a field made with `knob` changes how fast
or where a thing is computed but not what comes out, and stays out of the key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dsel.files import content_digest
from dsel.hub import commit_of
from dsel.secrets import anonymous


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
    return content_digest(path)[:24]


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
