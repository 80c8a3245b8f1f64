"""Static embeddings (Model2Vec): a vector for each token, and a text is their mean. A CPU reads thousands a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dsel.arrays import Floats
from dsel.constraints import Count, Text
from dsel.embedder.base import LARGE_SHARD, Tokenized, Vectors, means, nothing_cut
from dsel.errors import need_package
from dsel.hub import loads
from dsel.model.hosted import Hosted
from dsel.pool import Message
from dsel.reading import Counts, joined

FILES = ("*.json", "model.safetensors")


@dataclass
class Model2Vec(Hosted, Tokenized):
    """A model of the model2vec library by its hub id, or from a local folder (`path`).

    max_length: tokens of a text; null keeps the model's own limit, which is 512 where it says nothing. Longer texts are
    read in full unless `long=cut`: as tokens have no positions here, that costs nothing more. Vectors are normalised to
    length 1 unless `normalize` is false. Texts without a token that the model knows get the mean of all tokens.
    """

    libraries: ClassVar[tuple[str, ...]] = ("model2vec", "tokenizers")
    trust_remote_code: ClassVar[bool] = False  # type: ignore[misc]
    by_length: ClassVar[bool] = False

    hub: str
    path: Text | None = None
    revision: Text | None = None
    max_length: Count | None = None
    normalize: bool = True
    long: Literal["cut", "mean"] = field(default="mean", kw_only=True)

    def check(self) -> None:
        super().check()
        need_package("model2vec", install="dsel[static]", why="embedder=model2vec")
        self.need_files("embedder")

    @property
    def shard_size(self) -> int:
        return LARGE_SHARD

    @cached_property
    @loads("embedder")
    def _model(self) -> Any:
        from model2vec import StaticModel

        model = StaticModel.from_pretrained(self._folder)
        model.tokenizer.no_padding()
        model.tokenizer.no_truncation()  # done here, and counted
        return model

    @property
    def _folder(self) -> str:
        """The folder of the model's files, fetched from the hub if need be."""
        from huggingface_hub import snapshot_download

        if Path(self.place).is_dir():
            return self.place
        return snapshot_download(self.place, revision=self.revision, allow_patterns=list(FILES))

    @cached_property
    def _table(self) -> Floats:
        """The vector of each token, by its number; that of the unknown one is zero, as it is not counted."""
        model = self._model
        table = np.array(model.embedding, dtype=np.float32)
        if model.token_mapping is not None:
            table = table[model.token_mapping]
        if model.weights is not None:
            table = table * np.asarray(model.weights, dtype=np.float32)[:, None]
        if model.unk_token_id is not None:
            table[model.unk_token_id] = 0
        return table

    @property
    def limit(self) -> int | None:
        return self.max_length or self._model.max_length

    def sizes(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._tokens(texts)]

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self._model.tokenizer.encode(text, add_special_tokens=False).offsets

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        found = self._model.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [each.ids for each in found]

    def encode(self, texts: list[str]) -> Vectors:
        return self._means(self._tokens(texts))

    def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        """As every `Tokenized` one does, but tokens that were counted are not made again: they are most of the work."""
        texts, limit = [joined(c) for c in conversations], self.limit
        tokens = self._tokens(texts)
        if limit is None:
            return self._means(tokens), nothing_cut(len(texts))
        if self.long == "mean":
            counts = np.array([[len(ids), len(ids), limit] for ids in tokens], dtype=np.int64)
            runs = [_windows(ids, limit) for ids in tokens]
            return means(self._means([ids for some in runs for ids in some]), [len(some) for some in runs]), counts
        parts, counts = self.parts(conversations, texts, [len(ids) for ids in tokens], limit)
        whole = counts[:, 0] <= limit
        cut = iter(self._tokens([text for (text,), w in zip(parts, whole, strict=True) if not w]))
        return self._means([ids if w else next(cut)[:limit] for ids, w in zip(tokens, whole, strict=True)]), counts

    def _means(self, tokens: list[list[int]]) -> Vectors:
        """The mean of the vectors of each text's tokens."""
        import torch

        sizes = np.array([len(ids) for ids in tokens])
        flat = np.fromiter((i for ids in tokens for i in ids), np.int64, sizes.sum())
        starts = torch.from_numpy(np.cumsum(sizes) - sizes)
        table = torch.from_numpy(self._table)
        sums = torch.nn.functional.embedding_bag(torch.from_numpy(flat), table, starts, mode="sum").numpy()
        known = sizes if self._model.unk_token_id is None else _without(tokens, self._model.unk_token_id)
        found = np.where(known[:, None] > 0, sums / np.maximum(known, 1)[:, None], self._table.mean(axis=0))
        if self.normalize:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found.astype(np.float32)


def _windows(ids: list[int], limit: int) -> list[list[int]]:
    """The tokens in as few runs of about the same length as `limit` allows."""
    each = math.ceil(len(ids) / max(1, math.ceil(len(ids) / limit)))
    return [ids[i : i + each] for i in range(0, len(ids), each)] if each else [ids]


def _without(tokens: list[list[int]], unknown: int) -> np.ndarray:
    """How many of each text's tokens are known."""
    return np.array([len(ids) - ids.count(unknown) for ids in tokens])
