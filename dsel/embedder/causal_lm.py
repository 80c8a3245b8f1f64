"""A causal language model as encoder: its last layer, pooled (the Llama-2 embeddings of Yu et al. 2024, Figure 5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dsel.component import knob, local_identity
from dsel.embedder.base import Embedder, Vectors
from dsel.errors import need, need_path
from dsel.hub import loads
from dsel.model.fast_linear import fast_linear
from dsel.model.weights import need_weights


@dataclass
class CausalLMEmbedder(Embedder):
    """Hidden states of the last layer at the last token (`pooling=last`) or averaged over all tokens (`mean`)."""

    hub: str
    path: str | None = None
    revision: str | None = None
    pooling: str = "last"
    max_length: int = 2048
    normalize: bool = False
    dtype: str = "auto"
    trust_remote_code: bool = False
    batch_size: int = knob(16)
    device: str | None = knob(None)

    def check(self) -> None:
        need(self.pooling in ("last", "mean"), f"embedder.pooling={self.pooling}: give last or mean")
        if self.path is not None:
            need_path(self.path, option="embedder.path")
        need_weights(self.hub, self.path, self.revision, option="embedder", allow_bin=None)

    def extra_identity(self) -> dict[str, Any]:
        return local_identity(self.path)

    @cached_property
    @loads("embedder")
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModel, AutoTokenizer

        place = str(Path(self.path).expanduser()) if self.path else self.hub
        common = {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        tokenizer.padding_side = "right"
        model = AutoModel.from_pretrained(place, dtype=self.dtype, use_safetensors=True, **common)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return model.to(device).eval(), tokenizer

    def encode(self, texts: list[str]) -> Vectors:
        import torch

        model, tokenizer = self._loaded
        parts = []
        with torch.inference_mode(), fast_linear(model):
            for start in range(0, len(texts), self.batch_size):
                batch = tokenizer(
                    texts[start : start + self.batch_size],
                    padding=True,
                    truncation=True,
                    max_length=self.max_length,
                    return_tensors="pt",
                ).to(model.device)
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
