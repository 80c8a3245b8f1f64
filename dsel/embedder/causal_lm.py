"""A causal language model as encoder: its last layer, pooled (the Llama-2 embeddings of Yu et al. 2024, Figure 5)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from dsel.component import knob
from dsel.constraints import Count, Device, Dtype, Text
from dsel.embedder.base import Tokenized, Vectors
from dsel.errors import need
from dsel.hub import loads
from dsel.model.fast_linear import fast_linear
from dsel.model.flops import passed
from dsel.model.hosted import Hosted
from dsel.model.positions import within
from dsel.reading import spans

log = logging.getLogger(__name__)


@dataclass
class CausalLMEmbedder(Hosted, Tokenized):
    """Hidden states of the last layer at the last token (`pooling=last`) or averaged over all tokens (`mean`).

    prefix: put before every text. end_token: texts end in the end-of-text token, whether the tokenizer adds it or not;
    it is the last token, and never cut. max_length: tokens with these, no more than the model has positions for.
    """

    libraries: ClassVar[tuple[str, ...]] = ("transformers",)

    hub: str
    path: Text | None = None
    revision: Text | None = None
    prefix: str = ""
    end_token: bool = False
    pooling: Literal["last", "mean"] = "last"
    max_length: Count = 2048
    normalize: bool = False
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    allow_bin: bool = knob(False)
    batch_size: Count = knob(16)
    device: Device | None = knob(None)

    def check(self) -> None:
        super().check()
        self.need_files("embedder")

    @cached_property
    @loads("embedder")
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModel, AutoTokenizer

        tokenizer = self.pretrained(AutoTokenizer)
        ends = not self.end_token or tokenizer.eos_token is not None
        need(ends, f"{self.place}: its tokenizer has no end-of-text token")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        tokenizer.padding_side = "right"
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model = self.weights(AutoModel, device, dtype=self.dtype)
        limit = within(self.max_length, model)
        if limit < self.max_length:
            log.warning("embedder.max_length=%d: the model has %d positions, and reads no more", self.max_length, limit)
        return model.eval(), tokenizer

    @cached_property
    def parameters(self) -> float:  # type: ignore[override]
        return sum(passed(self._loaded[0]))

    @property
    def limit(self) -> int | None:
        model, tokenizer = self._loaded
        return within(self.max_length, model) if tokenizer.is_fast else None  # others do not say where tokens are

    def sizes(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._tokens(texts)]

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        return spans(self._loaded[1], text)

    def _tokens(self, texts: list[str], limit: int | None = None) -> list[list[int]]:
        """The token ids of each text with all that is added to it, cut at `limit`."""
        tokenizer = self._loaded[1]
        most = None if limit is None else max(0, limit - self.end_token)
        found = tokenizer([self.prefix + t for t in texts], truncation=most is not None, max_length=most, verbose=False)
        end = tokenizer.eos_token_id
        return [[*ids, end] if self.end_token and ids[-1:] != [end] else ids for ids in found["input_ids"]]

    def encode(self, texts: list[str]) -> Vectors:
        import torch

        model, tokenizer = self._loaded
        limit = within(self.max_length, model)
        parts = []
        with torch.inference_mode(), fast_linear(model):
            for start in range(0, len(texts), self.batch_size):
                ids = self._tokens(texts[start : start + self.batch_size], limit)
                batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
                hidden = model(**batch, use_cache=False).last_hidden_state.float()
                mask = batch["attention_mask"].unsqueeze(-1)
                if self.pooling == "mean":
                    pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                else:
                    last = (mask.sum(1) - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
                    pooled = hidden.gather(1, last).squeeze(1)
                if self.normalize:
                    pooled = torch.nn.functional.normalize(pooled, dim=-1)
                parts.append(pooled.cpu().numpy())
        return np.concatenate(parts)
