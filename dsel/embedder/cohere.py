"""Embeddings from Cohere's API: embed-english-v3.0 is what Yu et al. 2024 cluster."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dsel.component import knob
from dsel.embedder.base import Embedder, Vectors
from dsel.errors import ConfigError, need, need_env, need_package

MAX_BATCH = 96  # texts a request may carry


@dataclass
class Cohere(Embedder):
    """Cohere's embed models. The key comes from the environment variable COHERE_API_KEY (or CO_API_KEY)."""

    model: str = "embed-english-v3.0"
    input_type: str = "clustering"
    base_url: str | None = None
    batch_size: int = knob(MAX_BATCH)
    concurrency: int = knob(4)
    max_retries: int = knob(8)

    def check(self) -> None:
        need(0 < self.batch_size <= MAX_BATCH, f"embedder.batch_size={self.batch_size}: Cohere takes 1 to {MAX_BATCH}")
        need_package("cohere", extra="api", why="embedder=cohere")
        self._key()

    def _key(self) -> str:
        if os.environ.get("CO_API_KEY"):
            return os.environ["CO_API_KEY"]
        why = "embedder=cohere (the papers' embeddings; embedder=e5_large needs no key)"
        return need_env("COHERE_API_KEY", why=why)

    @cached_property
    def _client(self) -> Any:
        from cohere import ClientV2

        return ClientV2(api_key=self._key(), base_url=self.base_url)

    def encode(self, texts: list[str]) -> Vectors:
        batches = [texts[i : i + self.batch_size] for i in range(0, len(texts), self.batch_size)]
        with ThreadPoolExecutor(self.concurrency) as pool:
            return np.concatenate(list(pool.map(self._request, batches)))

    def _request(self, texts: list[str]) -> Vectors:
        from cohere.errors import UnauthorizedError

        try:
            answer = self._client.embed(
                model=self.model,
                texts=texts,
                input_type=self.input_type,
                embedding_types=["float"],
                truncate="END",
                request_options={"max_retries": self.max_retries},
            )
        except UnauthorizedError as error:
            raise ConfigError("embedder=cohere: the server refused the key in COHERE_API_KEY") from error
        return np.array(answer.embeddings.float_, dtype=np.float32)
