"""A column of conversations whose turns are plain: a role and a text each, all turns of a batch in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.data.roles import CALLS, KNOWN, folded, known_role
from dsel.data.turns import LOSS_KEYS, MEDIA, REASONING, ROLE_KEYS, TEXT_KEYS
from dsel.data.typed import Column, Mask, carries, codes_of, of_array, of_values
from dsel.data.unread import says_of_loss
from dsel.messages import message_type

if TYPE_CHECKING:
    from pyarrow import Array, ListArray, StringArray

Indices = npt.NDArray[np.int64]

USER, ASSISTANT, SYSTEM_TURN = (KNOWN.index(role) for role in ("user", "assistant", "system"))
NOTHING = frozenset(
    (*REASONING, *LOSS_KEYS, *MEDIA, "name", "tool_call_id", "tool_calls", "function_call", "tools", "messages")
)
"""Keys of turns that are not plain where they hold something."""


@dataclass(frozen=True)
class Talk:
    """n conversations.

    lengths: int64[n]. roles: int64[turns], each turn's number in `KNOWN`. contents: their texts. plain: bool[n], which
    conversations are; of others the roles and contents mean nothing.
    """

    lengths: Indices
    roles: Indices
    contents: Column
    plain: Mask

    @property
    def starts(self) -> Indices:
        """int64[n]: where each conversation begins."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def has_system(self) -> Mask:
        """bool[n]: where the first turn is a system prompt."""
        found = np.zeros(len(self.lengths), bool)
        there = self.lengths > 0
        found[there] = self.roles[self.starts[there]] == SYSTEM_TURN
        return found

    def take(self, rows: Indices) -> Talk:
        """Some of the conversations."""
        lengths, starts = self.lengths[rows], self.starts[rows]
        turns = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        return Talk(lengths, self.roles[turns], self.contents.take(turns), self.plain[rows])

    def messages(self, system: StringArray | None) -> ListArray:
        """The column `messages`, each conversation after its `system` prompt where there is one."""
        import pyarrow as pa

        if system is None:
            return conversations(self.contents.array, self.roles, self.lengths)
        there = np.asarray(system.is_valid().to_numpy(zero_copy_only=False), bool)
        before, count = self.starts[there], len(self.roles)
        order = np.insert(np.arange(count), before, count + np.arange(len(before)))
        contents = pa.concat_arrays([self.contents.array, system.drop_null()]).take(pa.array(order))
        return conversations(contents, np.insert(self.roles, before, SYSTEM_TURN), self.lengths + there)

    def longest(self) -> Indices:
        """int64[n]: bytes of the longest text of each."""
        return np.maximum.reduceat(Column("text", self.contents.trimmed).sizes, self.starts)

    def any_equal(self, texts: Array) -> Mask:
        """bool[n]: where a text is that of a turn."""
        import pyarrow as pa
        import pyarrow.compute as pc

        repeated = texts.take(pa.array(np.repeat(np.arange(len(self.lengths)), self.lengths)))
        equal = pc.fill_null(pc.equal(repeated, self.contents.trimmed), False).to_numpy(zero_copy_only=False)
        return np.logical_or.reduceat(equal.astype(bool), self.starts)

    def contents_of(self, row: int) -> list[str]:
        """The texts of one conversation."""
        start = int(self.starts[row])
        return [str(self.contents.value(turn)) for turn in range(start, start + int(self.lengths[row]))]


def talk_of(column: Column, roles: Mapping[str, str]) -> Talk:
    """The conversations in a column of lists. roles: `data.roles`."""
    lengths, keys, plain = _turns_of_values(column.values) if column.values is not None else _turns(column)
    n, turns = len(lengths), int(lengths.sum())
    if not turns:
        return Talk(np.zeros(n, np.int64), np.empty(0, np.int64), of_values([]), np.zeros(n, bool))
    who, usual = _one_of(keys, ROLE_KEYS, turns)
    contents, also = _one_of(keys, TEXT_KEYS, turns)
    usual &= also
    for name, each in keys.items():
        if name in NOTHING:
            usual &= each.nothing
        elif name not in (*ROLE_KEYS, *TEXT_KEYS):
            usual &= each.nothing | ~carries(name, each)
            if says_of_loss(name, 0):
                usual &= ~each.valid
        usual &= ~each.broken
    coded = who.array.dictionary_encode()
    known = [_role(name, roles) for name in coded.dictionary.to_pylist()]
    codes = np.array(known or [-1], np.int64)[codes_of(coded)]
    usual &= codes >= 0
    there = lengths > 0
    starts = (np.cumsum(lengths) - lengths)[there]
    lasts = starts + lengths[there] - 1
    first = np.where(
        (codes[starts] == SYSTEM_TURN) & (lasts > starts), codes[np.minimum(starts + 1, turns - 1)], codes[starts]
    )
    plain[there] &= np.logical_and.reduceat(usual, starts) & (first == USER) & (codes[lasts] == ASSISTANT)
    return Talk(lengths, codes, contents, plain & there)


def conversations(contents: StringArray, roles: Indices, lengths: Indices) -> ListArray:
    """The column `messages` of turns that have a role (its number in `KNOWN`) and a text, and nothing else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pc.take(pa.array(KNOWN, pa.string()), pa.array(roles))
    nothing = pa.StringArray.from_buffers(len(contents), pa.py_buffer(bytes(4 * len(contents) + 4)), pa.py_buffer(b""))
    kind = message_type()
    turns = pa.StructArray.from_arrays([names, contents, nothing], fields=list(kind.value_type))
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(ends, turns, type=kind)


def _turns(column: Column) -> tuple[Indices, dict[str, Column], Mask]:
    """Lengths of the lists, the keys of all turns as columns, and which lists have no turn that is none."""
    flat = column.array.flatten()
    names = [field.name for field in flat.type]
    found = [of_array(array) for array in flat.flatten()]
    if len(set(names)) < len(names) or any(each is None for each in found):
        return np.zeros(len(column), np.int64), {}, np.zeros(len(column), bool)
    keys = {name: each for name, each in zip(names, found, strict=True) if each is not None}
    return column.lengths, keys, _all_valid(flat, column.lengths)


def _all_valid(flat: Array, lengths: Indices) -> Mask:
    plain = np.ones(len(lengths), bool)
    if flat.null_count:
        whole = np.asarray(flat.is_valid().to_numpy(zero_copy_only=False), bool)
        there = lengths > 0
        plain[there] = np.logical_and.reduceat(whole, (np.cumsum(lengths) - lengths)[there])
    return plain


def _turns_of_values(values: Sequence[Any]) -> tuple[Indices, dict[str, Column], Mask]:
    """The same of Python's values; lists of anything but maps are taken for empty."""
    lists = [value if type(value) is list and all(type(turn) is dict for turn in value) else [] for value in values]
    turns = [turn for value in lists for turn in value]
    names = dict.fromkeys(turns[0] if turns else ())
    for turn in turns:
        if turn.keys() != names.keys():
            names.update(dict.fromkeys(turn))
    keys = {str(name): of_values([turn.get(name) for turn in turns]) for name in names}
    return np.fromiter(map(len, lists), np.int64, len(lists)), keys, np.ones(len(values), bool)


def _one_of(keys: Mapping[str, Column], names: Sequence[str], turns: int) -> tuple[Column, Mask]:
    """The texts under the one of several keys that holds something; and where there is just one, which is a text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    there = [keys[name] for name in names if name in keys]
    held = [~column.nothing for column in there]
    usual = np.sum(held, axis=0) == 1 if held else np.zeros(turns, bool)
    texts = []
    for column, holds in zip(there, held, strict=True):
        if column.kind == "text":
            texts.append(pc.if_else(pa.array(holds), column.array, pa.scalar(None, pa.string())))
        else:
            usual &= ~holds
    found = texts[0] if len(texts) == 1 else pc.coalesce(*texts) if texts else pa.nulls(turns, pa.string())
    return Column("text", found), usual


def _role(name: str, roles: Mapping[str, str]) -> int:
    """The number of the role that a name stands for; -1 where nobody knows it, or its text is a call."""
    role = known_role(name, roles)
    return -1 if role is None or folded(name) in CALLS else KNOWN.index(role)
