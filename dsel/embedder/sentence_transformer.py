"""Encoders of the sentence-transformers library: MiniLM, E5 and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dsel.component import knob, local_identity
from dsel.embedder.base import Embedder, Vectors
from dsel.errors import need_path
from dsel.hub import loads
from dsel.model.fast_linear import fast_linear
from dsel.model.weights import need_weights


@dataclass
class SentenceTransformer(Embedder):
    """A sentence-transformers model by its hub id, or from a local folder (`path`).

    prefix: put before every text, as E5 models want it. max_length: tokens; null keeps the model's own limit.
    Vectors are normalised to length 1 unless `normalize` is false.
    """

    hub: str
    path: str | None = None
    revision: str | None = None
    prefix: str = ""
    max_length: int | None = None
    normalize: bool = True
    dtype: str = "auto"
    trust_remote_code: bool = False
    batch_size: int = knob(64)
    device: str | None = knob(None)

    def check(self) -> None:
        if self.path is not None:
            need_path(self.path, option="embedder.path")
        need_weights(self.hub, self.path, self.revision, option="embedder", allow_bin=None)

    def extra_identity(self) -> dict[str, Any]:
        return local_identity(self.path)

    @cached_property
    @loads("embedder")
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer as Model

        model = Model(
            str(Path(self.path).expanduser()) if self.path else self.hub,
            revision=self.revision,
            device=self.device,
            trust_remote_code=self.trust_remote_code,
            model_kwargs={"dtype": self.dtype, "use_safetensors": True},
        )
        if self.max_length is not None:
            model.max_seq_length = self.max_length
        return model

    def encode(self, texts: list[str]) -> Vectors:
        with fast_linear(self._model):
            return self._model.encode(
                texts,
                prompt=self.prefix or None,
                batch_size=self.batch_size,
                normalize_embeddings=self.normalize,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
