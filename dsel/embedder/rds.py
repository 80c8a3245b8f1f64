"""RDS+: what the model to be trained makes of a conversation itself (Ivison et al. 2025, arXiv 2503.01807)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dsel.cache import Cache
from dsel.constraints import Count
from dsel.embedder.base import Embedder, Vectors
from dsel.model import flops
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import encode
from dsel.model.fast_linear import fast_linear
from dsel.model.likelihood import in_batches, padded, parts_of
from dsel.model.positions import within
from dsel.pool import Message
from dsel.reading import Counts

if TYPE_CHECKING:
    import torch

TOKENS, TOKENS_ON_CPU = 16_384, 1024  # of a batch, with padding
CONVERSATIONS = 256  # of a shard: minutes of a processor, which a killed run loses at most


@dataclass(kw_only=True)
class Rds(Embedder):
    """Its hidden states after the last norm, over all tokens of prompt and response in its own chat template.

    model: whose they are, before any training. pooling: their mean, the i-th weighted i/Σi (`weighted`); each the same
    (`mean`); or the `last` alone (their Table 5). max_length: tokens that are read, from the start. Vectors have length
    one.
    """

    libraries: ClassVar[tuple[str, ...]] = ("transformers",)

    model: CausalLM
    pooling: Literal["weighted", "mean", "last"] = "weighted"
    max_length: Count = 2048

    advice = "embedder.max_length says how many are read"

    def check(self) -> None:
        super().check()
        self.model.check()

    def prepare(self, cache: Cache) -> None:
        """Make sure that the weights can be loaded (a model built here builds itself)."""
        self.model.prepare(cache)

    @property
    def shard_size(self) -> int:
        return CONVERSATIONS

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        tokenizer = self.model.load_tokenizer()
        return self.model.load(tokenizer).eval(), tokenizer

    def turns(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation as it is, for the template to say; or the user's turns."""
        return list(messages) if self.text == "both" else [m for m in messages if m["role"] == "user"]

    def encode(self, texts: list[str]) -> Vectors:
        return self.read([[{"role": "user", "content": text}] for text in texts])[0]

    def read(self, conversations: list[list[Message]]) -> tuple[Vectors, Counts]:
        import torch

        model, tokenizer = self._loaded
        limit = within(self.max_length, model)
        whole = [encode(tokenizer, messages)[0] for messages in conversations]
        counts = np.array([[len(ids), min(len(ids), limit), limit] for ids in whole], dtype=np.int64)
        out = np.empty((len(whole), 0), dtype=np.float32)
        backbone = parts_of(model)[1]
        tokens = TOKENS_ON_CPU if model.device.type == "cpu" else TOKENS

        def vectors(rows: list[int]) -> Vectors:
            ids, mask = padded([whole[row][:limit] for row in rows], model.device)
            hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state.float()  # causal: padding changes none
            pooled = torch.einsum("bt,btd->bd", self._weights(mask), hidden)
            return torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()

        with torch.inference_mode(), fast_linear(model):
            for rows, found in in_batches(vectors, counts[:, 1].tolist(), tokens):
                if not out.shape[1]:
                    out = np.empty((len(whole), found.shape[1]), dtype=np.float32)
                out[rows] = found
        flops.read(backbone, int(counts[:, 1].sum()))
        return out, counts

    def _weights(self, mask: torch.Tensor) -> torch.Tensor:
        """What each token counts for, float32[b, t]; each row sums to 1."""
        import torch

        position = mask.cumsum(dim=1) * mask
        length = mask.sum(dim=1, keepdim=True)
        if self.pooling == "last":
            return (position == length).float() * mask
        weight = position if self.pooling == "weighted" else mask
        return weight.to(torch.float32) / weight.sum(dim=1, keepdim=True)
