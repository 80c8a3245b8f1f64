"""Conversations: as Python has them, and as the column `messages` of Arrow holds them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pyarrow import ListArray, ListType, RecordBatch, StringArray

Message = dict[str, Any]
"""One turn: `role` (system, user, assistant or tool), `content` (text), and what a chat template knows besides.

That is `reasoning_content` (text), `tool_calls` (a list), `name` and `tool_call_id`; on the first turn of a
conversation `tools`, the schemas of the tools it may call; and `train: False` on an assistant turn without loss.
"""


def is_trained(message: Message) -> bool:
    """Whether a turn is a response that carries loss."""
    return message["role"] == "assistant" and message.get("train") is not False


def text_of(message: Message) -> str:
    """All that a turn says: its reasoning, its content and its tool calls (as JSON), joined by newlines."""
    parts = [message.get("reasoning_content"), message["content"]]
    calls = [json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return "\n".join(part for part in [*parts, *calls] if part)


@cache
def message_type() -> ListType:
    """What a turn has beyond `role` and `content` is JSON in `more`, as its types differ from row to row; else ''."""
    import pyarrow as pa

    return pa.list_(pa.struct([(name, pa.string()) for name in ("role", "content", "more")]))


def to_column(conversations: Iterable[Sequence[Message]]) -> ListArray:
    """Conversations as a column."""
    import pyarrow as pa

    turns: list[Message] = []
    ends = [0]
    for messages in conversations:
        turns += messages
        ends.append(len(turns))
    columns = [[m["role"] for m in turns], [m["content"] for m in turns], [_more(m) for m in turns]]
    struct = message_type().value_type
    texts = [pa.array(column, pa.string()) for column in columns]
    flat = pa.StructArray.from_arrays(texts, fields=list(struct))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat, type=message_type())


def _more(message: Message) -> str:
    return json.dumps(more) if (more := {k: message[k] for k in message if k not in ("role", "content")}) else ""


def from_column(column: ListArray) -> list[list[Message]]:
    """The conversations of a column."""
    ends = _ends(column).tolist()
    turns = _turns(column)
    return [turns[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _turns(column: ListArray) -> list[Message]:
    roles, contents, mores = (part.to_pylist() for part in column.flatten().flatten())
    return [
        {"role": role, "content": content, **json.loads(more)} if more else {"role": role, "content": content}
        for role, content, more in zip(roles, contents, mores, strict=True)
    ]


def texts_of(column: ListArray) -> StringArray:
    """All turns of each conversation, joined by newlines."""
    import pyarrow as pa
    import pyarrow.compute as pc

    starts = pa.array(np.concatenate([[0], _ends(column)]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(starts, said(column)), "\n")


def turns_of(column: ListArray) -> list[list[str]]:
    """What each turn of each conversation says (`text_of`)."""
    turns, ends = said(column).to_pylist(), _ends(column).tolist()
    return [turns[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def text_lengths(column: ListArray) -> npt.NDArray[np.int64]:
    """How many characters each of `texts_of` has."""
    import pyarrow.compute as pc

    return np.asarray(pc.utf8_length(texts_of(column)).to_numpy(), dtype=np.int64)


def response_lengths(column: ListArray) -> npt.NDArray[np.int64]:
    """How many characters the responses of each conversation have, together."""
    import pyarrow.compute as pc

    responses = pc.equal(column.flatten().field("role"), "assistant").to_numpy(zero_copy_only=False)
    sizes = np.concatenate([[0], np.cumsum(pc.utf8_length(said(column)).to_numpy() * responses)]).astype(np.int64)
    ends = _ends(column)
    return np.diff(sizes[np.concatenate([[0], ends])])


def last_of(column: ListArray) -> StringArray:
    """The last turn of each conversation."""
    import pyarrow as pa

    return said(column).take(pa.array(_ends(column) - 1))


def said(column: ListArray) -> StringArray:
    """`text_of` of each turn, all conversations' in a row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    turns = column.flatten()
    _, contents, mores = turns.flatten()
    special = pc.not_equal(mores, "")
    if not pc.any(special).as_py():
        return contents
    some = turns.filter(special)
    ones = pa.ListArray.from_arrays(pa.array([0, len(some)], pa.int32()), some)
    return pc.replace_with_mask(contents, special, pa.array([text_of(m) for m in _turns(ones)], pa.string()))


def cut_to_first(batch: RecordBatch) -> RecordBatch:
    """The batch with each conversation cut after its first response that is trained on."""
    import pyarrow as pa

    if "messages" not in batch.schema.names:
        return batch
    number = batch.schema.names.index("messages")
    column = batch.column(number)
    ends, kept = _ends(column), first_turns(column)
    starts = np.concatenate([[0], ends[:-1]])
    inside = np.arange(ends[-1] if len(ends) else 0) - np.repeat(starts, ends - starts)
    flat = column.flatten().filter(pa.array(inside < np.repeat(kept, ends - starts)))
    offsets = pa.array(np.concatenate([[0], np.cumsum(kept)]), pa.int32())
    cut = pa.ListArray.from_arrays(offsets, flat, type=message_type())
    return batch.set_column(number, batch.schema.field(number), cut)


def first_turns(column: ListArray) -> npt.NDArray[np.int64]:
    """How many turns each conversation has up to its first response that is trained on, with that one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    turns, ends = column.flatten(), _ends(column)
    roles, _, mores = turns.flatten()
    responses = pc.equal(roles, "assistant").to_numpy(zero_copy_only=False)
    told = np.flatnonzero(pc.match_substring(mores, '"train"').to_numpy(zero_copy_only=False) & responses)
    trained = responses.copy()
    trained[told] = [json.loads(more).get("train") is not False for more in mores.take(pa.array(told)).to_pylist()]
    at = np.flatnonzero(trained)
    starts = np.concatenate([[0], ends[:-1]])
    return at[np.searchsorted(at, starts)] - starts + 1


def turn_counts(column: ListArray) -> npt.NDArray[np.int64]:
    """How many turns each conversation has."""
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(column).to_numpy(zero_copy_only=False), dtype=np.int64)


def _ends(column: ListArray) -> npt.NDArray[np.int64]:
    """Where each conversation ends among the turns of all."""
    return np.cumsum(turn_counts(column))
