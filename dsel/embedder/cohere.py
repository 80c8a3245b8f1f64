"""Embeddings from Cohere's API: embed-english-v3.0 is what Yu et al. 2024 cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from dsel.component import knob
from dsel.constraints import Address, Between, Count, Text
from dsel.embedder.base import Tokenized, Vectors
from dsel.errors import ConfigError, need, need_env, need_package
from dsel.pool import Message
from dsel.reading import UNKNOWN, Counts

MAX_BATCH = 96  # texts a request may carry


@dataclass
class Cohere(Tokenized):
    """Cohere's embed models. The key comes from the environment variable COHERE_API_KEY (or CO_API_KEY).

    The API takes any text, reads its first tokens (512 with embed-english-v3.0) and does not say where it stopped. So
    texts are counted and cut here, with the tokenizer and the limit that it publishes of its models. A server that
    has neither (a gateway to the models) cuts texts as it likes, which is said.
    """

    in_process: ClassVar[bool] = True  # it waits for the server

    model: Text = "embed-english-v3.0"
    input_type: Literal["clustering", "search_document", "search_query", "classification"] = "clustering"
    base_url: Address | None = None
    batch_size: Annotated[int, Between(1, MAX_BATCH)] = knob(MAX_BATCH)
    concurrency: Count = knob(4)
    max_retries: int = knob(8)

    def check(self) -> None:
        super().check()
        need_package("cohere", install="dsel[api]", why="embedder=cohere")
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

    @cached_property
    def _reader(self) -> tuple[int, Any] | None:
        """The tokens that the model reads, and its tokenizer; None where the server does not say."""
        import httpx
        from cohere.core import ApiError
        from tokenizers import Tokenizer

        try:
            known = self._client.models.get(self.model, request_options={"max_retries": self.max_retries})
            if not known.context_length or not known.tokenizer_url:
                return None
            answer = httpx.get(known.tokenizer_url, follow_redirects=True).raise_for_status()
            tokenizer = Tokenizer.from_str(answer.text)
        except (ApiError, httpx.HTTPError):
            return None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return int(known.context_length), tokenizer

    @property
    def limit(self) -> int | None:
        return None if self._reader is None else self._reader[0]

    def sizes(self, texts: list[str]) -> list[int]:
        assert self._reader is not None
        return [len(found.ids) for found in self._reader[1].encode_batch_fast(texts)]

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        assert self._reader is not None
        return self._reader[1].encode(text, add_special_tokens=False).offsets

    def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        known = self._reader is not None
        need(known or self.long == "cut", "embedder.long=mean: this server says neither its limit nor its tokenizer")
        vectors, counts = super().read(conversations)
        if not known:
            counts[:, 2] = UNKNOWN
        return vectors, counts

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
