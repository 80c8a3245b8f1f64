"""Embeddings from OpenAI's API or any server that speaks it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from dsel.component import knob
from dsel.constraints import Address, Count, Text
from dsel.embedder.base import Limited, Vectors, means, nothing_cut
from dsel.errors import ConfigError, need_env, need_package
from dsel.pool import Message
from dsel.reading import Counts, joined, shorten, windows

MAX_REQUEST = 300_000  # tokens that the API takes in one request; a text has no more of them than bytes
TOO_LONG = (400, 413, 422)  # how servers answer to that
LIMIT = re.compile(r"(?:max|less than)[a-z' ]*?(\d+)(?: tokens)?", re.I)
ASKED = re.compile(r"(?:requested|given:?|prefill|received)[a-z ]*?(\d+)", re.I)


class TooLong(Exception):
    """A server's refusal of a request with too many tokens. limit, asked: how many, where it says so of a text."""

    def __init__(self, message: str):
        super().__init__(message)
        limit, asked = (pattern.search(message) for pattern in (LIMIT, ASKED))
        self.limit = int(limit[1]) if limit else None
        self.asked = int(asked[1]) if asked else None


@dataclass
class OpenAI(Limited):
    """text-embedding-3 and compatible models. The key comes from the environment variable OPENAI_API_KEY.

    Requests that fail for a passing reason (429, 5xx, time-outs) are retried by the client with growing pauses. Only
    the server knows how many tokens a text has: one that it refuses for its length is sent again, less of it at a time
    or in more windows, until it is taken.
    """

    in_process: ClassVar[bool] = True  # it waits for the server

    model: Text = "text-embedding-3-small"
    dimensions: Count | None = None
    base_url: Address | None = None
    batch_size: Count = knob(256)
    concurrency: Count = knob(4)
    max_retries: int = knob(8)

    def check(self) -> None:
        super().check()
        need_package("openai", install="dsel[api]", why="embedder=openai")
        need_env("OPENAI_API_KEY", why="embedder=openai")

    @cached_property
    def _client(self) -> Any:
        from openai import OpenAI as Client

        return Client(base_url=self.base_url, max_retries=self.max_retries)

    def encode(self, texts: list[str]) -> Vectors:
        return self.read([[{"role": "user", "content": t}] for t in texts])[0]

    def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        longest = max(len(joined(c).encode()) for c in conversations)
        size = max(1, min(self.batch_size, MAX_REQUEST // max(1, longest)))
        batches = [conversations[i : i + size] for i in range(0, len(conversations), size)]
        with ThreadPoolExecutor(self.concurrency) as pool:
            vectors, counts = zip(*pool.map(self._batch, batches), strict=True)
        return np.concatenate(vectors), np.concatenate(counts)

    def _batch(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        """What `read` says of a batch, which is halved until the texts that are too long stand alone."""
        try:
            return self._request([joined(c) for c in conversations])[0], nothing_cut(len(conversations))
        except TooLong as error:
            if len(conversations) == 1:
                return self._long(conversations[0], error)
            half = len(conversations) // 2
        parts = [self._batch(some) for some in (conversations[:half], conversations[half:])]
        return np.concatenate([v for v, _ in parts]), np.concatenate([c for _, c in parts])

    def _long(self, conversation: list[Message], error: TooLong) -> tuple[Vectors, Counts]:
        """The same of a conversation that was refused, in one smaller text or in several windows."""
        whole, asked = joined(conversation), error.asked
        room = len(whole)  # in characters, of which each refusal leaves fewer
        while room > 1:
            fits = 0.97 * error.limit / error.asked if error.limit and error.asked else 0.5
            room = max(1, math.floor(room * min(fits, 0.9)))
            if self.long == "mean":
                texts = windows(whole, room, len, _characters)
            else:
                texts = [joined(shorten(conversation, room, lambda chat: len(joined(chat)), _characters))]
            try:
                answers = [self._request([text]) for text in texts]
            except TooLong as again:
                error = again
                continue
            used = sum(tokens for _, tokens in answers)
            kept = sum(map(len, texts)) / len(whole)
            tokens = asked or round(used / kept)  # of what the server has not counted, the characters' share
            read = tokens if self.long == "mean" else round(tokens * kept)
            counts = np.array([[tokens, read, error.limit or used]], dtype=np.int64)
            return means(np.concatenate([vectors for vectors, _ in answers]), [len(answers)]), counts
        raise ConfigError(f"embedder=openai: the server finds every text too long ({error})")

    def _request(self, texts: list[str]) -> tuple[Vectors, int]:
        """The vectors of `texts`, and their tokens in all as the server counts them."""
        options: dict[str, Any] = {} if self.dimensions is None else {"dimensions": self.dimensions}
        from openai import APIStatusError, AuthenticationError

        try:
            answer = self._client.embeddings.create(model=self.model, input=texts, encoding_format="float", **options)
        except AuthenticationError as error:
            raise ConfigError("embedder=openai: the server refused the key in OPENAI_API_KEY") from error
        except APIStatusError as error:
            if error.status_code in TOO_LONG and re.search(r"token|too long|too large|length", error.message, re.I):
                raise TooLong(error.message) from error
            raise
        vectors = sorted(answer.data, key=lambda d: d.index)
        tokens = getattr(answer.usage, "prompt_tokens", 0)
        return np.array([v.embedding for v in vectors], dtype=np.float32), tokens


def _characters(text: str) -> Sequence[tuple[int, int]]:
    return [(i, i + 1) for i in range(len(text))]
