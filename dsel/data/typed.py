"""Columns of a batch of raw rows, by what they hold, whether they came as Arrow or as Python's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dsel.data.native import decoder
from dsel.data.reading import is_deep, is_nothing
from dsel.data.unread import carries_text
from dsel.json_columns import texts_of

if TYPE_CHECKING:
    from pyarrow import Array

Mask = npt.NDArray[np.bool_]
Kind = Literal["text", "number", "flag", "turns", "other"]

VISIBLE = (0x21, 0x7E)  # ASCII signs that are no white space


@dataclass(frozen=True)
class Column:
    """n values of one kind.

    array: strings, integers or floats, booleans, or lists of structs; of `other` kinds there are only `values`.
    broken_rows: where there is a text that is not UTF-8, which the array does not have.
    """

    kind: Kind
    array: Any
    values: Sequence[Any] | None = None
    broken_rows: Mask | None = None

    def __len__(self) -> int:
        return len(self.array) if self.values is None else len(self.values)

    def take(self, rows: npt.NDArray[np.int64]) -> Column:
        """Those of some rows."""
        if self.values is not None:
            return Column(self.kind, None, [self.values[i] for i in rows])
        return Column(self.kind, self.array.take(_indices(rows)))

    def value(self, row: int) -> Any:
        """One of them, as Python has it."""
        return self.array[row].as_py() if self.values is None else self.values[row]

    @property
    def broken(self) -> Mask:
        """bool[n]: where there is a text that is not UTF-8."""
        return np.zeros(len(self), bool) if self.broken_rows is None else self.broken_rows

    @cached_property
    def valid(self) -> Mask:
        """bool[n]: where there is a value."""
        if self.values is not None:
            return np.fromiter((value is not None for value in self.values), bool, len(self.values))
        if not self.array.null_count:
            return np.ones(len(self.array), bool)
        return np.asarray(self.array.is_valid().to_numpy(zero_copy_only=False), bool)

    @cached_property
    def nothing(self) -> Mask:
        """bool[n]: where `is_nothing` of the value."""
        if self.kind == "text":
            return self.leads == 0
        if self.kind == "number":
            return np.isnan(self.floats)
        if self.kind == "flag":
            return ~self.valid
        if self.kind == "turns":
            return self.lengths == 0
        return np.fromiter(map(is_nothing, self.values or ()), bool, len(self))

    @cached_property
    def floats(self) -> npt.NDArray[np.float64]:
        """float64[n] of numbers, NaN where there is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_integer(self.array.type):
            whole = pc.fill_null(self.array, 0).to_numpy(zero_copy_only=False)
            return np.where(self.valid, whole.astype(np.float64), np.nan)
        return np.asarray(self.array.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[n]: how many items each list has, 0 where there is none."""
        import pyarrow.compute as pc

        return pc.fill_null(pc.list_value_length(self.array), 0).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """int64[n]: bytes of each text, 0 where there is none."""
        return np.where(self.valid, np.diff(texts_of(self.array)[0]), 0)

    @cached_property
    def leads(self) -> npt.NDArray[np.uint8]:
        """uint8[n]: the first byte of each text that is no white space; 0 where there is none."""
        first, _ = self._ends
        odd = np.flatnonzero((self.sizes > 0) & ~_visible(first))
        if len(odd):
            import pyarrow.compute as pc

            trimmed = Column("text", pc.utf8_ltrim_whitespace(self.array.take(_indices(odd))))
            first = first.copy()
            first[odd] = trimmed._ends[0]
            first[odd[(trimmed.sizes > 0) & (first[odd] == 0)]] = 1  # a NUL is something
        return first

    @cached_property
    def trimmed(self) -> Array:
        """The texts without the white space around them."""
        import pyarrow.compute as pc

        first, last = self._ends
        plain = (self.sizes == 0) | (_visible(first) & _visible(last))
        return self.array if plain.all() else pc.utf8_trim_whitespace(self.array)

    @cached_property
    def _ends(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The first and the last byte of each text, 0 where there is none."""
        ends, data = texts_of(self.array)
        there = self.sizes > 0
        found = np.zeros((2, len(there)), np.uint8)
        found[0, there], found[1, there] = data[ends[:-1][there]], data[ends[1:][there] - 1]
        return found[0], found[1]


def _visible(signs: npt.NDArray[np.uint8]) -> Mask:
    return (signs >= VISIBLE[0]) & (signs <= VISIBLE[1])


def _indices(rows: npt.NDArray[np.int64]) -> Array:
    import pyarrow as pa

    return pa.array(rows, pa.int64())


def of_array(array: Array) -> Column | None:
    """The column that an array is; None where Python does not have its values as they are.

    Raises what pyarrow does where it has no values of some.
    """
    import pyarrow as pa

    types, kind = pa.types, array.type
    if types.is_null(kind):
        return Column("text", pa.nulls(len(array), pa.string()))
    if types.is_string(kind) or types.is_large_string(kind):
        return _sound(array.cast(pa.string()))
    if types.is_integer(kind) or (types.is_floating(kind) and not types.is_float16(kind)):
        return Column("number", array)
    if types.is_boolean(kind):
        return Column("flag", array)
    if decoder(kind) is not None:
        return None
    lists = types.is_list(kind) or types.is_large_list(kind)
    if lists and types.is_struct(kind.value_type):
        array.validate(full=True)
        return Column("turns", array)
    return Column("other", None, array.to_pylist())


def _sound(array: Array) -> Column:
    """A column of texts, null where they are not UTF-8."""
    import pyarrow as pa

    try:
        array.validate(full=True)
        return Column("text", array)
    except pa.ArrowInvalid:
        values = array.view(pa.binary()).to_pylist()
        broken = np.fromiter((value is not None and not _is_utf8(value) for value in values), bool, len(values))
        sound = [None if bad else value for value, bad in zip(values, broken, strict=True)]
        return Column("text", pa.array(sound, pa.binary()).cast(pa.string()), broken_rows=broken)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def of_values(values: Sequence[Any]) -> Column:
    """The column that Python's values are."""
    import pyarrow as pa

    kinds = set(map(type, values)) - {type(None)}
    try:
        if not kinds:
            return Column("text", pa.nulls(len(values), pa.string()))
        if kinds == {str}:
            return _of_texts(values)
        if kinds == {int}:
            return Column("number", pa.array(values, pa.int64()))
        if kinds <= {int, float}:
            return Column("number", pa.array([None if v is None else float(v) for v in values], pa.float64()))
        if kinds == {bool}:
            return Column("flag", pa.array(values, pa.bool_()))
    except OverflowError:  # whole numbers of more than 64 bits
        pass
    return Column("other", None, values)


def _of_texts(values: Sequence[str | None]) -> Column:
    import pyarrow as pa

    try:
        return Column("text", pa.array(values, pa.string()))
    except UnicodeEncodeError:
        raw = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        return _sound(pa.array(raw, pa.binary()).view(pa.string()))


def deep(column: Column) -> Mask:
    """bool[n]: where lists and maps are nested deeper than they can be kept."""
    if column.kind != "other":
        return np.zeros(len(column), bool)
    nested = (isinstance(value, (list, dict)) and is_deep(value) for value in column.values or ())
    return np.fromiter(nested, bool, len(column))


def carries(name: str, column: Column) -> Mask:
    """bool[n]: where a value that is not read holds text or meaning (`carries_text`)."""
    if column.kind == "number":
        return np.zeros(len(column), bool)
    if column.kind == "flag":
        return column.valid & carries_text(name, True)
    if column.kind == "text":
        coded = column.array.dictionary_encode()
        found = np.array([carries_text(name, text) for text in coded.dictionary.to_pylist()] or [False], bool)
        return ~column.nothing & found[codes_of(coded)]
    values = column.array.to_pylist() if column.values is None else column.values
    return ~column.nothing & np.fromiter((carries_text(name, value) for value in values), bool, len(column))


def codes_of(coded: Any) -> npt.NDArray[np.int64]:
    """int64[n]: where in its dictionary each value of an encoded array is; 0 where there is none."""
    import pyarrow.compute as pc

    return pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
