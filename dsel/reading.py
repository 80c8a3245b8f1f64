"""What a model reads of a text that is longer than it takes, and the count of what it does not read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.files import write_json
from dsel.pool import Message, text_of

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""Where each token of a text begins and ends, in characters."""

Counts = npt.NDArray[np.int64]
"""[n, 3]: of each of n texts its tokens, how many are read, and the limit: 0 for one read in full, or UNKNOWN."""

UNKNOWN = -1  # the limit of a reader that cuts texts itself and does not say which

FILE = "cut.json"


def joined(messages: Sequence[Message]) -> str:
    """All that the turns say, one after the other."""
    return "\n".join(text_of(m) for m in messages)


def shorten(
    messages: Sequence[Message], limit: int, size: Callable[[Sequence[Message]], int], spans: Spans
) -> list[Message]:
    """The turns cut to `limit` tokens, as `size` counts them; untouched where that is not needed.

    First the system prompts are left out, whole, as they say the same of many examples; then earlier exchanges, the
    first one first; then the turns of the last exchange share what room there is: all may be as long as the longest
    that is cut. Of a response the beginning is kept, of other turns the beginning and the end, as what is asked may
    stand at either.
    """
    kept = list(messages)
    if size(kept) <= limit:
        return kept
    kept = [m for m in kept if m["role"] != "system"] or kept
    starts = [i for i, m in enumerate(kept) if m["role"] == "user" and (i == 0 or kept[i - 1]["role"] != "user")]
    while size(kept) > limit and len(starts) > 1:  # the next exchange becomes the first
        kept, starts = kept[starts[1] :], [start - starts[1] for start in starts[1:]]
    whole, tokens = kept, [spans(m["content"]) for m in kept]
    longest = max(map(len, tokens), default=0)
    while (excess := size(kept) - limit) > 0 and longest > 0:
        # No more than what is too much, shared by the turns that are cut, so that little room is left over.
        cut = sum(len(t) >= longest for t in tokens)
        below = max((len(t) for t in tokens if len(t) < longest), default=0)
        longest = max(below, longest - max(1, excess // cut))
        kept = [_within(m, t, longest) for m, t in zip(whole, tokens, strict=True)]
    return kept


def spans(tokenizer: Any, text: str) -> Sequence[tuple[int, int]]:
    """Where each token of `text` is, by a tokenizer of transformers."""
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "truncation": False, "verbose": False}
    return tokenizer(text, **options)["offset_mapping"]


def _within(message: Message, tokens: Sequence[tuple[int, int]], most: int) -> Message:
    """The turn with `most` of its tokens."""
    text = message["content"]
    if len(tokens) <= most:
        return message
    end = 0 if message["role"] == "assistant" else most // 2
    head = text[: tokens[most - end - 1][1]] if most > end else ""
    tail = text[tokens[len(tokens) - end][0] :] if end else ""
    return {**message, "content": f"{head} {tail}" if head and tail else head + tail}


def windows(text: str, limit: int, size: Callable[[str], int], spans: Spans) -> list[str]:
    """The whole text in as few parts as `limit` tokens for each allow, of the same number of tokens but for one."""
    tokens = spans(text)
    count = max(2, math.ceil(len(tokens) / limit))
    while count < len(tokens):
        each = math.ceil(len(tokens) / count)
        starts = range(0, len(tokens), each)
        parts = [text[tokens[i][0] : tokens[min(i + each, len(tokens)) - 1][1]] for i in starts]
        if all(size(part) <= limit for part in parts):
            return parts
        count += max(1, count // 16)
    return [text[start:end] for start, end in tokens] or [text]


def with_counts(values: npt.NDArray[Any], counts: npt.ArrayLike) -> npt.NDArray[np.void]:
    """A record for each of n texts: its `value`, of `values` [n, …], and what was `read` for it, of `Counts`."""
    kind = np.dtype([("value", values.dtype, values.shape[1:]), ("read", np.int64, 3)])
    records = np.empty(len(values), dtype=kind)
    records["value"], records["read"] = values, counts
    return records


@dataclass(frozen=True)
class Tally:
    """What a reader has read of some texts: `Counts`, added up.

    of: how many texts there are. texts: how many are cut, `unread` of whose `tokens` are not read. limit: the largest.
    unknown: whether there are some of which that is not known.
    """

    of: int = 0
    texts: int = 0
    unread: int = 0
    tokens: int = 0
    limit: int = 0
    unknown: bool = False

    def __add__(self, other: Tally) -> Tally:
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("of", "texts", "unread", "tokens")}
        return Tally(**sums, limit=max(self.limit, other.limit), unknown=self.unknown or other.unknown)


def tally(counts: Counts) -> Tally:
    """The sum of `counts`."""
    whole, read, limit = counts.T
    cut = (limit > 0) & (whole > read)
    return Tally(
        of=len(counts),
        texts=int(cut.sum()),
        unread=int((whole - read)[cut].sum()),
        tokens=int(whole[cut].sum()),
        limit=int(limit[cut].max(initial=0)),
        unknown=bool((limit == UNKNOWN).any()),
    )


def parted(found: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Tally]:
    """The values of the records `found`, and the sum of their counts; values without counts are read in full."""
    if found.dtype.names is None:
        return found, Tally(len(found))
    return found["value"], tally(found["read"])


def note_cut(scratch: Path, reader: str, counts: Counts | Tally, advice: str, *, unit: str = "tokens") -> None:
    """Leave in the artifact's folder what its `reader` did not read; nothing where it has read all.

    That is how many texts are cut (`texts` of `of`), and how many of their tokens, or of what else is counted, are not
    read (`tokens` of `of_tokens`). advice: how more can be read.
    """
    cut = counts if isinstance(counts, Tally) else tally(np.asarray(counts, dtype=np.int64))
    if not cut.texts and not cut.unknown:
        return
    found = {"reader": reader, "of": cut.of, "advice": advice}
    if cut.unknown:
        found |= {"limit": None, "texts": None, unit: None, f"of_{unit}": None}
    else:
        found |= {"limit": cut.limit, "texts": cut.texts, unit: cut.unread, f"of_{unit}": cut.tokens}
    write_json(scratch / FILE, [*(f for f in cuts(scratch) if f["reader"] != reader), found])


def noted(
    found: npt.NDArray[Any], scratch: Path, reader: str, advice: str, *, unit: str = "tokens"
) -> npt.NDArray[Any]:
    """The values of the records `found`, after `note_cut`; values without counts as they are."""
    values, read = parted(found)
    note_cut(scratch, reader, read, advice, unit=unit)
    return values


def cuts(folder: Path) -> list[dict[str, Any]]:
    """What `note_cut` has left in the folder of an artifact."""
    return json.loads((folder / FILE).read_text(encoding="utf-8")) if (folder / FILE).exists() else []


def sentence(cut: dict[str, Any]) -> str:
    """One line that says what is not read, and what would change that."""
    if cut["texts"] is None:
        unknown = "is not known: its server says neither its limit nor its tokenizer"
        return f"how many of {cut['of']} texts are longer than the {cut['reader']} reads {unknown}"
    unit = "tokens" if "tokens" in cut else "characters"
    share = 100 * cut[unit] / cut[f"of_{unit}"]
    limit = f"the {cut['limit']} {unit} that the {cut['reader']} reads"
    longer = f"{cut['texts']} of {cut['of']} texts are longer than {limit}"
    return f"{longer}: {share:.1f} % of their {unit} are not read; {cut['advice']}"
