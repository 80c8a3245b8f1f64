"""The Parquet tables of a run's folder: their columns, how they are written, and how they are read again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.errors import ConfigError, need
from dsel.files import replacing
from dsel.guard import read_parquet

if TYPE_CHECKING:
    from pyarrow import Table

    from dsel.pool import Pool
    from dsel.selector.base import Selection

SELECTION = {
    "round": "int64", "index": "int64", "id": "string", "source": "string", "cluster": "int64", "weight": "float64",
    "score": "float64",
}  # fmt: skip
"""The columns of `selection.parquet`, and the types they are read with."""

SCORES = {"id": "string", "score": "float64"}  # of `scores.parquet`
GROUP = 2**16  # rows written at once

CLUSTERS = {"cluster": "int64", "size": "int64"}  # of `clusters.parquet`, the plain ones
WEIGHTS = {"round": "int64", "cluster": "int64", "weight": "float64"}  # of `rounds/weights.parquet`
MAP = {"x": "float64", "y": "float64", "cluster": "int64", "chosen": "bool"}  # of `map.parquet`
MAP_EXAMPLES = {"index": "int64", "id": "string", "source": "string", "text": "string"}  # too; older ones have `index`


def write_table(path: Path, table: Table) -> None:
    """Write a table as Parquet, whole or not at all."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def write_selection(folder: Path, rounds: Sequence[Selection], pool: Pool) -> None:
    """Writes `selection.parquet` and `selected.jsonl`.

    The first has a row for each choice; the second each chosen example in its original form, once even where several
    rounds chose it (a method that wants it twice says so: `Selection.repeats`).
    """
    import pyarrow as pa

    indices = np.concatenate([s.indices for s in rounds])

    def column(name: str, dtype: Any) -> Any:
        parts = [getattr(s, name) for s in rounds]
        nothing = [p is None for p in parts]
        values = np.concatenate(
            [np.zeros(len(s.indices)) if p is None else np.asarray(p) for s, p in zip(rounds, parts, strict=True)]
        )
        mask = np.concatenate([np.full(len(s.indices), n) for s, n in zip(rounds, nothing, strict=True)])
        return pa.array(values, mask=mask).cast(dtype)

    taken = pool.take(indices)
    table = pa.table(
        {
            "round": np.concatenate([np.full(len(s.indices), i + 1) for i, s in enumerate(rounds)]),
            "index": indices,
            "id": taken.rows.arrow("id"),
            "source": taken.rows.arrow("source"),
            "cluster": column("clusters", pa.int64()),
            "weight": column("weights", pa.float64()),
            "score": column("scores", pa.float32()),
        }
    )
    write_table(folder / "selection.parquet", table)
    with replacing(folder / "selected.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in pool.take(once(rounds)).originals["json"])


def once(rounds: Sequence[Selection]) -> npt.NDArray[np.int64]:
    """What was chosen, as indices in the order chosen: once where several rounds chose it, as often as one wants it."""
    chosen = np.empty(0, dtype=np.int64)
    for selection in rounds:
        chosen = np.concatenate([chosen, selection.indices[~np.isin(selection.indices, chosen)]])
    return chosen


def write_scores(folder: Path, pool: Pool, quality: npt.NDArray[np.float32]) -> None:
    """Writes `scores.parquet`: id and quality of every example of the pool."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("score", pa.from_numpy_dtype(quality.dtype))])
    with replacing(folder / "scores.parquet") as temporary, pq.ParquetWriter(temporary, schema) as file:
        start = 0
        for batch in pool.batches(["id"], size=GROUP):
            scores = pa.array(quality[start : start + batch.num_rows])
            file.write_batch(pa.record_batch([batch.column(0), scores], schema=schema))
            start += batch.num_rows


def read_table(path: Path, kinds: Mapping[str, str], needed: Collection[str], others: Sequence[str] = ()) -> Table:
    """The columns `kinds` (name: type) and `others` of a table that a run wrote, anybody's.

    Args:
        path: the Parquet file.
        kinds: columns and the types they are cast to.
        needed: those of them that have no gaps.
        others: columns of a type that is the caller's to check.

    Raises:
        ConfigError: in one line, for a file that is not what a run writes.
    """
    import pyarrow as pa

    missing = sorted({*kinds, *others} - set(read_parquet(path, rows=False).column_names))
    need(not missing, f"{path}: not what a run writes, it has no column {', '.join(missing)}")
    table = read_parquet(path, [*kinds, *others])
    for name, kind in kinds.items():
        number = table.column_names.index(name)
        try:
            column = table.column(number).cast(kind)
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{path}: not what a run writes, its column {name} is no {kind} ({reason})") from error
        need(name not in needed or not column.null_count, f"{path}: its column {name} has gaps")
        table = table.set_column(number, name, column)
    return table
