"""Embeddings from OpenAI's API or any server that speaks it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dsel.component import knob
from dsel.embedder.base import Embedder, Vectors
from dsel.errors import ConfigError, need_env, need_package

MAX_CHARACTERS = 24_000  # the API refuses texts above 8,191 tokens; English has about four characters a token
MAX_REQUEST = 900_000  # characters in all: the API refuses requests above 300,000 tokens


@dataclass
class OpenAI(Embedder):
    """text-embedding-3 and compatible models. The key comes from the environment variable OPENAI_API_KEY.

    Requests that fail for a passing reason (429, 5xx, time-outs) are retried by the client with growing pauses.
    """

    model: str = "text-embedding-3-small"
    dimensions: int | None = None
    base_url: str | None = None
    batch_size: int = knob(256)
    concurrency: int = knob(4)
    max_retries: int = knob(8)

    def check(self) -> None:
        need_package("openai", extra="api", why="embedder=openai")
        need_env("OPENAI_API_KEY", why="embedder=openai")

    @cached_property
    def _client(self) -> Any:
        from openai import OpenAI as Client

        return Client(base_url=self.base_url, max_retries=self.max_retries)

    def encode(self, texts: list[str]) -> Vectors:
        texts = [t[:MAX_CHARACTERS] for t in texts]
        size = max(1, min(self.batch_size, MAX_REQUEST // max(1, *map(len, texts))))
        batches = [texts[i : i + size] for i in range(0, len(texts), size)]
        with ThreadPoolExecutor(self.concurrency) as pool:
            return np.concatenate(list(pool.map(self._request, batches)))

    def _request(self, texts: list[str]) -> Vectors:
        options: dict[str, Any] = {} if self.dimensions is None else {"dimensions": self.dimensions}
        from openai import AuthenticationError

        try:
            answer = self._client.embeddings.create(model=self.model, input=texts, encoding_format="float", **options)
        except AuthenticationError as error:
            raise ConfigError("embedder=openai: the server refused the key in OPENAI_API_KEY") from error
        vectors = sorted(answer.data, key=lambda d: d.index)
        return np.array([v.embedding for v in vectors], dtype=np.float32)
