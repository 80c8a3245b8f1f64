"""The chosen rows as a file, in the form that they had."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsel.data.folder import SUFFIXES
from dsel.data.raw import COMPRESSED
from dsel.errors import ConfigError, need, need_path
from dsel.files import replacing


def beside(first: Path) -> Path:
    """Where the subset of a file or folder goes when nobody says: `my.jsonl.gz` → `my.selected.jsonl`."""
    name = Path(first.name)
    for endings in () if first.is_dir() else (COMPRESSED, SUFFIXES):
        name = name.with_suffix("") if name.suffix.lower() in endings else name
    return first.with_name(f"{name}.selected.jsonl")


def check(out: Path, files: Sequence[str]) -> None:
    """Raise `ConfigError` for a file that cannot be written, or that would be written over what is read."""
    need(out.suffix.lower() in WRITERS, f"--out {out}: give a name that ends in {', '.join(WRITERS)}")
    need(not out.is_dir(), f"--out {out}: a folder is in the way")
    for file in files:
        same = need_path(file, option="FILE").resolve() == out.resolve()
        need(not same, f"--out {out}: that is the file that is read")


def write(rows: Sequence[str], out: Path) -> None:
    """Write rows, each as JSON, in the format that the name says."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        WRITERS[out.suffix.lower()](rows, temporary)


def _lines(rows: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{row}\n" for row in rows)


def _list(rows: Sequence[str], path: Path) -> None:
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def _csv(rows: Sequence[str], path: Path) -> None:
    found = _loaded(rows)
    nested = next((name for row in found for name, value in row.items() if isinstance(value, (list, dict))), None)
    if nested is not None:
        raise ConfigError(f"--out: its column {nested} has lists or mappings, which CSV cannot hold: write .jsonl")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in found for name in row)))
        writer.writeheader()
        writer.writerows(found)


def _parquet(rows: Sequence[str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = _loaded(rows)
    names = list(dict.fromkeys(name for row in found for name in row))
    try:
        columns = {name: pa.array([row.get(name) for row in found]) for name in names}
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--out: the rows have values of several types, write .jsonl ({reason})") from error
    pq.write_table(pa.table(columns), path)


def _loaded(rows: Sequence[str]) -> list[dict[str, Any]]:
    return [json.loads(row) for row in rows]


WRITERS: dict[str, Callable[[Sequence[str], Path], None]] = {
    ".jsonl": _lines,
    ".json": _list,
    ".csv": _csv,
    ".parquet": _parquet,
}
