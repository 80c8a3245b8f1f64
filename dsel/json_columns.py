"""The rows of a record batch as JSON text, column by column: what `json.dumps` makes of each, without its objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pyarrow import Array, DataType, RecordBatch, Schema, StringArray

SHORT = {'"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
BACKSLASH, QUOTE, SPACE = 0x5C, 0x22, 0x20


def json_of(batch: RecordBatch) -> StringArray | None:
    """The text of each row, as `dsel.batches.as_json` has it; None where a column is of a type it does not know.

    Texts are to be sound UTF-8. Time grows with their bytes, at a few passes over them.
    """
    return _object(batch.schema.names, batch.columns, batch.num_rows) if is_known(batch.schema) else None


def is_known(schema: Schema) -> bool:
    """Whether `json_of` knows the types of all columns."""
    kinds = [field.type for field in schema]
    return all(map(_is_known, kinds)) and len(set(schema.names)) == len(kinds)


def _is_known(kind: DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind):
        names = [field.name for field in kind]
        return bool(names) and len(set(names)) == len(names) and all(_is_known(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_known(kind.value_type)
    plain = _is_text(kind) or types.is_integer(kind) or types.is_boolean(kind)
    return bool(plain or types.is_floating(kind) or types.is_null(kind))


def _object(names: list[str], columns: list[Array], n: int) -> StringArray:
    import json

    import pyarrow as pa
    import pyarrow.compute as pc

    if not n or not names:
        return pa.array(["{}"] * n, pa.string())
    parts: list[Any] = []
    before = "{"
    for name, column in zip(names, columns, strict=True):
        text = f"{before}{json.dumps(name, ensure_ascii=False)}: "
        if _is_text(column.type) and not column.null_count:  # quoted here, as that is a copy less
            parts += [f'{text}"', escaped(column.cast(pa.string()))]
            before = '", '
        else:
            parts += [text, _values(column)]
            before = ", "
    return pc.binary_join_element_wise(*parts, f"{before.removesuffix(', ')}}}", "")


def _is_text(kind: DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _values(column: Array) -> StringArray:
    """Each value as JSON, `null` where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind = pa.types, column.type
    if types.is_null(kind):
        return pa.array(["null"] * len(column), pa.string())
    if _is_text(kind):
        found = pc.binary_join_element_wise('"', escaped(column.cast(pa.string())), '"', "")
    elif types.is_floating(kind):
        found = pa.array(map(_number, column.to_pylist()), pa.string())
    elif types.is_struct(kind):
        found = _object([field.name for field in kind], column.flatten(), len(column))
        found = pc.if_else(column.is_valid(), found, pa.scalar(None, pa.string()))
    elif types.is_list(kind) or types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        inner = pa.ListArray.from_arrays(ends, _values(column.flatten()))
        found = pc.binary_join_element_wise("[", pc.binary_join(inner, ", "), "]", "")
        found = pc.if_else(column.is_valid(), found, pa.scalar(None, pa.string()))
    else:
        found = pc.cast(column, pa.string())
    return pc.fill_null(found, "null") if found.null_count else found


def _number(value: float | None) -> str:
    return "null" if value is None or value != value or value in (np.inf, -np.inf) else repr(value)


def escaped(texts: StringArray) -> StringArray:
    """The texts with all signs escaped that JSON does not have in one: quotes, backslashes, controls."""
    import pyarrow as pa

    ends, data = texts_of(texts)
    if not len(data):
        return texts
    odd = (data < SPACE) | (data == QUOTE) | (data == BACKSLASH)
    places = np.flatnonzero(odd)
    if not len(places):
        return texts
    signs = data[places]
    content = data.tobytes().replace(b"\\", b"\\\\")
    growth = np.ones(256, np.int64)
    for sign in np.unique(signs).tolist():
        if sign != BACKSLASH:
            replaced = SHORT.get(chr(sign), f"\\u{sign:04x}").encode()
            content = content.replace(bytes([sign]), replaced)
            growth[sign] = len(replaced) - 1
    grown = np.concatenate([[0], np.cumsum(growth[signs])])
    moved = (ends + grown[np.searchsorted(places, ends)]).astype(np.int32)
    valid = texts.is_valid().buffers()[1] if texts.null_count else None
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(moved), pa.py_buffer(content), valid)


def texts_of(texts: StringArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """int64[n + 1], where each text begins and the last one ends, and the bytes of all of them.

    A text that is null may have some there.
    """
    _, offsets, content = texts.buffers()
    if not len(texts) or offsets is None:
        return np.zeros(len(texts) + 1, np.int64), np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.empty(0, np.uint8) if content is None else np.frombuffer(content, np.uint8)[ends[0] : ends[-1]]
    return ends - ends[0], data
