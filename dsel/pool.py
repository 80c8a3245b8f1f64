"""The pool: the examples to choose from, in one normal form."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.batches import RESERVED as RESERVED
from dsel.batches import ROWS, Distinct, Fingerprint, row_schema
from dsel.columns import Columns
from dsel.component import digest
from dsel.errors import need
from dsel.lazy import Conversations, blocks, mapped
from dsel.messages import Message as Message
from dsel.messages import (
    cut_to_first,
    first_turns,
    from_column,
    last_of,
    response_lengths,
    text_lengths,
    texts_of,
    to_column,
    turn_counts,
)
from dsel.messages import is_trained as is_trained
from dsel.messages import text_of as text_of
from dsel.originals import Originals, original_schema
from dsel.progress import tracked

if TYPE_CHECKING:
    from pyarrow import ListArray, RecordBatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One usable row of a file, as the readers hand it over."""

    id: str
    messages: list[Message]
    source: str
    original: Mapping[str, Any]
    scores: Mapping[str, float] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """n examples with the columns `id`, `messages`, `source` and one column for each score they came with.

    `originals[i]` is example i as it stood in its file, as JSON. `truth` holds what a generated pool knows about
    its examples (kind, is_noise, answer): it is for judging a selection, and `blind()` takes it away before a
    selector, scorer or embedder sees the pool. `fingerprint` is a digest of the content, in order. found: whether it
    was read before, and is in the cache.

    What is in the rows (`ids`, `messages`, …) is read when it is asked for, and is not kept: sequences that decode a
    block of rows at a time for who goes through them. `take` is a view; `batches` has many rows as Arrow has them.
    """

    name: str
    rows: Columns
    originals: Columns
    fingerprint: str
    truth: Columns | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    found: bool = False

    @staticmethod
    def build(name: str, examples: Iterable[Example], *, skipped: Mapping[str, int] | None = None) -> Pool:
        """A pool in memory of `examples`, in their order. Ids that occur twice are made distinct with a suffix."""
        from pyarrow import RecordBatch, array, float64, record_batch, schema, string, table

        examples = list(examples)
        scores = sorted({score for e in examples for score in e.scores})
        rows = schema([*row_schema(), *((score, float64()) for score in scores)])
        distinct, digests = Distinct(), Fingerprint()
        batches, originals = list[RecordBatch](), list[Any]()
        for part in blocks(len(examples), ROWS):
            some = examples[part.start : part.stop]
            fixed = [array([e.id for e in some], string()), to_column(e.messages for e in some)]
            fixed[0] = distinct(fixed[0])
            numbers = [array([e.scores.get(score, math.nan) for e in some], float64()) for score in scores]
            columns = [*fixed, array([e.source for e in some], string()), *numbers]
            batches.append(record_batch(columns, schema=rows))
            digests.add(batches[-1])
            originals.append(Originals.of_rows(e.original for e in some))
        known = sorted({fact for e in examples for fact in e.truth})
        truth = table({fact: [e.truth.get(fact) for e in examples] for fact in known})
        return Pool(
            name=name,
            rows=Columns(batches, rows),
            originals=Columns(originals, original_schema()),
            fingerprint=digests.hexdigest(),
            truth=Columns(truth.to_batches(), truth.schema) if known else None,
            skipped=dict(skipped or {}),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, columns: Sequence[str] | None = None, size: int | None = None) -> Iterator[RecordBatch]:
        """The rows in order, as record batches of at most `size`: those columns of them, by default all."""
        return self.rows.iterate(columns, size)

    @property
    def ids(self) -> Sequence[str]:
        return self.rows["id"]

    @property
    def messages(self) -> Sequence[list[Message]]:
        """Each example's turns, n lists of messages."""
        return Conversations(self.rows.lazy("messages", from_column), self.texts)

    @property
    def sources(self) -> Sequence[str]:
        return self.rows["source"]

    @property
    def texts(self) -> Sequence[str]:
        """What an embedder reads: all turns of an example, prompt and response together, joined by newlines."""
        return self.rows.lazy("messages", lambda column: texts_of(column).to_pylist())

    @property
    def prompts(self) -> Sequence[list[Message]]:
        """Each example's turns before its last assistant turn."""
        return mapped(lambda messages: messages[:-1], self.messages)

    @property
    def responses(self) -> Sequence[str]:
        """Each example's last assistant turn."""
        return self.rows.lazy("messages", lambda column: last_of(column).to_pylist())

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many characters each of `texts` has."""
        return self._counted(text_lengths)

    @cached_property
    def response_lengths(self) -> npt.NDArray[np.int64]:
        """How many characters all responses of each example have."""
        return self._counted(response_lengths)

    def _counted(self, count: Callable[[ListArray], npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        parts = [count(batch.column(0)) for batch in self.batches(["messages"])]
        return np.concatenate([np.empty(0, np.int64), *parts])

    @property
    def score_columns(self) -> list[str]:
        return [c for c in self.rows.column_names if c not in RESERVED]

    def turn(self, which: str) -> Pool:
        """Each example cut to what is asked before its `first` or `last` response that is trained on, and that one."""
        if which == "last":
            return self
        columns = (batch.column(0) for batch in self.batches(["messages"]))
        if all((first_turns(column) == turn_counts(column)).all() for column in columns):
            return self
        return replace(
            self, rows=replace(self.rows, change=cut_to_first), fingerprint=digest([self.fingerprint, which])
        )

    def answered(self, responses: Sequence[str]) -> Pool:
        """The same examples with `responses`, one each, in place of their last assistant turns: a pool in memory."""
        if len(responses) != len(self):
            raise ValueError(f"{len(responses)} responses for {len(self)} examples")
        batches, start = [], 0
        for batch in self.batches():
            answers = responses[start : start + batch.num_rows]
            start += batch.num_rows
            messages = [
                [*m[:-1], {"role": "assistant", "content": text}]
                for m, text in zip(from_column(batch.column("messages")), answers, strict=True)
            ]
            number = batch.schema.names.index("messages")
            batches.append(batch.set_column(number, batch.schema.field(number), to_column(messages)))
        rows = Columns(batches, self.rows.schema)
        return replace(self, rows=rows, fingerprint=digest([self.fingerprint, list(responses)]))

    @property
    def verifier(self) -> Callable[[npt.NDArray[np.int64], Sequence[str]], npt.NDArray[np.bool_]] | None:
        """`verify(indices, responses) -> bool[m]`: is each response the true answer? None where none is known."""
        if self.truth is None or "answer" not in self.truth.column_names:
            return None
        answers = self.truth["answer"]
        return lambda indices, responses: np.array(
            [is_answer(a, r) for a, r in zip(answers.fetch(np.asarray(indices)), responses, strict=True)], dtype=bool
        )

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Pool:
        """The examples at `indices`, in that order: a view."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            rows=self.rows.take(chosen),
            originals=self.originals.take(chosen),
            fingerprint=digest([self.fingerprint, hashlib.sha256(chosen.tobytes()).hexdigest()]),
            truth=None if self.truth is None else self.truth.take(chosen),
        )

    def blind(self) -> Pool:
        """The same pool without the truth: what selectors are given."""
        return replace(self, truth=None)

    def hold_out(self, share: float) -> tuple[Pool, Pool]:
        """This pool without a held-out part, and that part: a fraction when `share` < 1, else a count.

        Which examples are held out depends on their content alone, not on their order, the seed or the rest of
        the pool, so that runs over differently mixed pools are measured on the same examples. Examples with the
        same content go to the same side: where such a group would go beyond the number asked for, the next that does
        not is taken, and the log says what could not be made up. Time is that of reading all messages, memory 24 bytes
        an example.
        """
        wanted = share if not 0 <= share < 1 else round(share * len(self))
        whole = math.isfinite(wanted) and float(wanted).is_integer()
        need(whole and 0 <= wanted < len(self), _holdout_message(share, len(self)))
        if wanted == 0:
            return self, self.take([])
        rows = tracked(self.messages, "holding out", total=len(self), unit="examples")
        keys = np.fromiter((_content_key(m) for m in rows), np.uint64, len(self))
        groups, sizes = np.unique(keys, return_counts=True)
        out, count = list[np.uint64](), 0
        for key, size in zip(groups, sizes.tolist(), strict=True):
            if count + size <= wanted:
                out.append(key)
                count += size
            if count == wanted:
                break
        if count < wanted:
            log.warning("data.holdout=%g: %d rows are held out, as equal ones stay together", share, count)
        held = np.isin(keys, np.array(out, np.uint64))
        return self.take(np.flatnonzero(~held)), self.take(np.flatnonzero(held))


def _content_key(messages: Sequence[Message]) -> int:
    """The first 64 bits of a digest of what an example says."""
    return int.from_bytes(hashlib.sha256(json.dumps(messages).encode()).digest()[:8], "big")


def asked(pool: Pool) -> list[str]:
    """What is asked in each example: the user's turns."""
    return ["\n".join(text_of(m) for m in chat if m["role"] == "user") for chat in pool.messages]


def excerpt(messages: Sequence[Message], length: int = 300) -> str:
    """What a reader sees of an example: its turns, an arrow before each response, cut to so many characters."""
    text = "\n".join(f"→ {text_of(m)}" if m["role"] == "assistant" else text_of(m) for m in messages)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def is_answer(answer: str, response: str) -> bool:
    """Whether a response is the answer: equal but for case, white space and one final full stop."""
    return _normalise(answer) == _normalise(response)


def _normalise(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()


def resolve_budget(budget: float, n: int) -> int:
    """Number of examples to choose out of n: `budget` is a fraction when ≤ 1, else a count."""
    whole = isinstance(budget, (int, float)) and not isinstance(budget, bool) and budget == budget
    need(whole and budget > 0, f"budget={budget}: give a fraction of the pool (0 < budget ≤ 1) or a count (2, 3, …)")
    if budget <= 1:
        return max(1, round(budget * n))
    need(float(budget).is_integer(), f"budget={budget}: above 1 a budget is a count, so it must be a whole number")
    need(budget <= n, f"budget={int(budget)} is larger than the pool: it has {n} usable examples")
    return int(budget)


def _holdout_message(share: float, n: int) -> str:
    return f"data.holdout={share}: give a fraction below 1 or a whole number of examples below the pool's {n}"
