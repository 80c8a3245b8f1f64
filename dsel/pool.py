"""The pool: the examples to choose from, in one normal form."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.component import digest
from dsel.errors import need
from dsel.progress import progress, tracked

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

Message = dict[str, Any]
"""One turn: `role` (system, user, assistant or tool), `content` (text), and what a chat template knows besides.

That is `reasoning_content` (text), `tool_calls` (a list), `name` and `tool_call_id`; on the first turn of a
conversation `tools`, the schemas of the tools it may call; and `train: False` on an assistant turn without loss.
"""

RESERVED = ("id", "messages", "source")
"""The columns of every pool; a score has another name."""


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
    selector, scorer or embedder sees the pool. `fingerprint` is a digest of the content, in order. Lists of what is in
    the rows (`ids`, `messages`, …) are made once, when they are first asked for, and are not to be changed.
    """

    name: str
    rows: Dataset
    originals: Dataset
    fingerprint: str
    truth: Dataset | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def build(name: str, examples: Iterable[Example], *, skipped: Mapping[str, int] | None = None) -> Pool:
        """A pool of `examples`, in their order. Ids that occur twice are made distinct with a suffix."""
        from datasets import Dataset

        examples = list(examples)
        ids = _distinct([e.id for e in examples])
        columns: dict[str, list[Any]] = {
            "id": ids,
            "messages": _stored(e.messages for e in examples),
            "source": [e.source for e in examples],
        }
        for score in sorted({s for e in examples for s in e.scores}):
            columns[score] = [e.scores.get(score, float("nan")) for e in examples]
        sha = hashlib.sha256()
        for row in tracked(zip(*columns.values(), strict=True), "knowing the pool", total=len(ids), unit="examples"):
            sha.update(json.dumps(row, ensure_ascii=True).encode())
        truth = sorted({t for e in examples for t in e.truth})
        with progress("keeping the pool", total=None, unit=""):
            return Pool(
                name=name,
                rows=Dataset.from_dict(columns),
                originals=Dataset.from_dict({"json": [_json(e.original) for e in examples]}),
                fingerprint=sha.hexdigest()[:24],
                truth=Dataset.from_dict({t: [e.truth.get(t) for e in examples] for t in truth}) if truth else None,
                skipped=dict(skipped or {}),
            )

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def ids(self) -> list[str]:
        return list(self.rows["id"])

    @cached_property
    def messages(self) -> list[list[Message]]:
        """Each example's turns, n lists of messages."""
        return [[_message(m) for m in turns] for turns in self.rows["messages"]]

    @cached_property
    def sources(self) -> list[str]:
        return list(self.rows["source"])

    @cached_property
    def texts(self) -> list[str]:
        """What an embedder reads: all turns of an example, prompt and response together, joined by newlines."""
        return ["\n".join(text_of(m) for m in messages) for messages in self.messages]

    @property
    def prompts(self) -> list[list[Message]]:
        """Each example's turns before its last assistant turn."""
        return [messages[:-1] for messages in self.messages]

    @property
    def responses(self) -> list[str]:
        """Each example's last assistant turn."""
        return [text_of(messages[-1]) for messages in self.messages]

    @property
    def score_columns(self) -> list[str]:
        return [c for c in self.rows.column_names if c not in RESERVED]

    def turn(self, which: str) -> Pool:
        """Each example cut to what is asked before its `first` or `last` response that is trained on, and that one."""
        if which == "last":
            return self
        conversations = self.messages
        firsts = [next(i for i, m in enumerate(messages) if is_trained(m)) for messages in conversations]
        if all(len(messages) == i + 1 for messages, i in zip(conversations, firsts, strict=True)):
            return self
        return self._with([messages[: i + 1] for messages, i in zip(conversations, firsts, strict=True)], which)

    def answered(self, responses: Sequence[str]) -> Pool:
        """The same examples with `responses`, one each, in place of their last assistant turns."""
        answers = [{"role": "assistant", "content": text} for text in responses]
        return self._with(
            [[*m[:-1], answer] for m, answer in zip(self.messages, answers, strict=True)], list(responses)
        )

    @property
    def verifier(self) -> Callable[[npt.NDArray[np.int64], Sequence[str]], npt.NDArray[np.bool_]] | None:
        """`verify(indices, responses) -> bool[m]`: is each response the true answer? None where none is known."""
        if self.truth is None or "answer" not in self.truth.column_names:
            return None
        answers = list(self.truth["answer"])
        return lambda indices, responses: np.array(
            [is_answer(answers[i], response) for i, response in zip(indices, responses, strict=True)], dtype=bool
        )

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Pool:
        """The examples at `indices`, in that order."""
        chosen = [int(i) for i in indices]
        return replace(
            self,
            rows=self.rows.select(chosen),
            originals=self.originals.select(chosen),
            fingerprint=digest([self.fingerprint, chosen]),
            truth=None if self.truth is None else self.truth.select(chosen),
        )

    def _with(self, messages: list[list[Message]], change: Any) -> Pool:
        """The same examples with other `messages`; `change` tells them from others made of this pool."""
        rows = self.rows.remove_columns("messages").add_column("messages", _stored(messages))
        return replace(self, rows=rows, fingerprint=digest([self.fingerprint, change]))

    def blind(self) -> Pool:
        """The same pool without the truth: what selectors are given."""
        return replace(self, truth=None)

    def hold_out(self, share: float) -> tuple[Pool, Pool]:
        """This pool without a held-out part, and that part: a fraction when `share` < 1, else a count.

        Which examples are held out depends on their content alone, not on their order, the seed or the rest of
        the pool, so that runs over differently mixed pools are measured on the same examples. Examples with the
        same content go to the same side: where such a group would go beyond the number asked for, the next that does
        not is taken, and the log says what could not be made up.
        """
        wanted = share if not 0 <= share < 1 else round(share * len(self))
        whole = math.isfinite(wanted) and float(wanted).is_integer()
        need(whole and 0 <= wanted < len(self), _holdout_message(share, len(self)))
        if wanted == 0:
            return self, self.take([])
        rows = tracked(self.messages, "holding out", total=len(self), unit="examples")
        keys = [hashlib.sha256(json.dumps(m).encode()).hexdigest() for m in rows]
        groups, out, count = Counter(keys), set(), 0
        for key in sorted(groups):
            if count + groups[key] <= wanted:
                out.add(key)
                count += groups[key]
        if count < wanted:
            log.warning("data.holdout=%g: %d rows are held out, as equal ones stay together", share, count)
        held = [i for i, key in enumerate(keys) if key in out]
        kept = [i for i, key in enumerate(keys) if key not in out]
        return self.take(kept), self.take(held)


def is_trained(message: Message) -> bool:
    """Whether a turn is a response that carries loss."""
    return message["role"] == "assistant" and message.get("train") is not False


def text_of(message: Message) -> str:
    """All that a turn says: its reasoning, its content and its tool calls (as JSON), joined by newlines."""
    parts = [message.get("reasoning_content"), message["content"]]
    calls = [json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return "\n".join(part for part in [*parts, *calls] if part)


def excerpt(messages: Sequence[Message], length: int = 300) -> str:
    """What a reader sees of an example: its turns, an arrow before each response, cut to so many characters."""
    text = "\n".join(f"→ {text_of(m)}" if m["role"] == "assistant" else text_of(m) for m in messages)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _stored(conversations: Iterable[Sequence[Message]]) -> list[list[dict[str, str]]]:
    """Messages as Arrow holds them: what goes beyond role and content is JSON, as its types differ from row to row."""
    return [
        [
            {
                "role": m["role"],
                "content": m["content"],
                "more": json.dumps(more) if (more := {k: m[k] for k in m if k not in ("role", "content")}) else "",
            }
            for m in turns
        ]
        for turns in conversations
    ]


def _message(stored: Mapping[str, str]) -> Message:
    return {"role": stored["role"], "content": stored["content"], **(json.loads(stored["more"] or "{}"))}


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


def _json(row: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN and infinity are not JSON
        row = _finite(row)
        text = json.dumps(row, ensure_ascii=False, default=str)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a column no format reads may still hold broken bytes: keep them, escaped
        text = json.dumps(row, default=str)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distinct(ids: list[str]) -> list[str]:
    seen: set[str] = set()
    counts: dict[str, int] = {}
    out = []
    for name in ids:
        unique = name
        while unique in seen:
            counts[name] = counts.get(name, 1) + 1
            unique = f"{name}#{counts[name]}"
        seen.add(unique)
        out.append(unique)
    return out


def _holdout_message(share: float, n: int) -> str:
    return f"data.holdout={share}: give a fraction below 1 or a whole number of examples below the pool's {n}"
