"""OpenAssistant's trees of messages (Köpf et al. 2023) as conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dsel.constraints import Text
from dsel.data.hub import Hub
from dsel.data.parts import Part
from dsel.data.raw import Unreadable
from dsel.data.reader import read_rows
from dsel.data.units import listed, rows_in

Tree = Mapping[str | None, Sequence[dict[str, Any]]]
"""The replies to each message, by its id; None: the first messages of trees."""


@dataclass
class Oasst1(Hub):
    """Each row is a message that names the one it replies to; what is read are the paths from a tree's root.

    replies: `best` goes on with the reply that people ranked first, so that a tree is one conversation; `all` makes one
    of each path to a last message. A path ends with its last answer. languages: of the conversations that are kept; the
    source of each is its language.
    """

    replies: Literal["best", "all"] = "best"
    languages: Sequence[Text] | None = None

    def _sources(self) -> Iterator[Part]:
        for part in super()._sources():
            messages = rows_in(part.batches) if part.file is None else read_rows(part.file, part.split)
            yield replace(part, file=None, files=(), batches=listed(self._conversations(messages)))

    def _conversations(self, rows: Iterable[dict[str, Any] | Unreadable]) -> Iterator[dict[str, Any] | Unreadable]:
        """A row for each conversation; what is no message of a tree is passed on as it is."""
        replies: dict[str | None, list[dict[str, Any]]] = {}
        for row in rows:
            if isinstance(row, Unreadable) or "message_id" not in row:
                yield row
            else:
                replies.setdefault(row.get("parent_id"), []).append(row)
        for root in replies.get(None, []):
            if self.languages is None or root.get("lang") in self.languages:
                for path in paths(root, replies, best=self.replies == "best"):
                    yield conversation(path)


def paths(root: dict[str, Any], replies: Tree, *, best: bool) -> Iterator[list[dict[str, Any]]]:
    """The paths from a tree's first message to its last answers, or the one of the best replies."""
    seen: set[tuple[str, ...]] = set()
    open_ = [[root]]
    while open_:
        path = open_.pop()
        following = sorted(replies.get(path[-1]["message_id"], []), key=_rank)
        if following:
            open_ += [[*path, reply] for reply in (following[:1] if best else following[::-1])]
            continue
        while path and path[-1]["role"] != "assistant":
            path = path[:-1]
        names = tuple(message["message_id"] for message in path)
        if names and names not in seen:  # two questions that nobody answered end the same path
            seen.add(names)
            yield path


def conversation(path: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A path as a row of the usual kind."""
    messages = [{"role": message["role"], "content": message["text"]} for message in path]
    return {"id": path[-1]["message_id"], "messages": messages, "source": path[0].get("lang")}


def _rank(message: Mapping[str, Any]) -> float:
    """People's order of the replies to one message, 0 for the best; those without a rank come last, as they stand."""
    rank = message.get("rank")
    return float("inf") if rank is None else float(rank)
