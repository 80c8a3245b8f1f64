"""Rows of Arrow's record batches in Python's types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dsel.data.json_text import loads
from dsel.data.raw import Row, Unreadable

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch


def rows_of(batch: RecordBatch) -> Iterator[Row | Unreadable]:
    """Rows of a batch, or of its halves; one that Python has no values for is `Unreadable`, the others are kept."""
    import pyarrow as pa

    try:
        yield from _values(batch)
    except (ValueError, OverflowError, ArithmeticError, LookupError, RecursionError, pa.ArrowException) as error:
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            yield from rows_of(batch.slice(0, half))
            yield from rows_of(batch.slice(half))
        elif isinstance(error, UnicodeDecodeError):
            yield Unreadable("broken UTF-8")
        else:
            yield Unreadable(f"a value that cannot be read: {type(error).__name__}")


def _values(batch: RecordBatch) -> list[Any]:
    """The rows of a batch in Python's types; what is JSON by its type (`datasets.Json`) is read as such."""
    rows = batch.to_pylist()
    for field in batch.schema:
        if (decode := decoder(field.type)) is not None:
            for row in rows:
                row[field.name] = decode(row[field.name])
    return rows


def decoder(kind: DataType) -> Callable[[Any], Any] | None:
    """What makes values of a type out of those that Arrow has; None where they are the same."""
    import pyarrow as pa

    if isinstance(kind, getattr(pa, "JsonType", ())):
        return lambda value: None if value is None else loads(value)
    if pa.types.is_struct(kind):
        inner = {f.name: decode for f in kind if (decode := decoder(f.type)) is not None}
        return (lambda value: value and {**value, **{n: d(value[n]) for n, d in inner.items()}}) if inner else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        decode = decoder(kind.value_type)
        return None if decode is None else lambda value: value and [decode(each) for each in value]
    return None
