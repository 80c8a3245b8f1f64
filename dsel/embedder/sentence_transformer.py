"""Encoders of the sentence-transformers library: MiniLM, E5 and the rest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from dsel.component import knob
from dsel.constraints import Count, Device, Dtype, Text
from dsel.embedder.base import Tokenized, Vectors
from dsel.hub import loads
from dsel.model.fast_linear import fast_linear
from dsel.model.flops import passed
from dsel.model.hosted import Hosted
from dsel.model.positions import within
from dsel.model.weights import safe_loading
from dsel.reading import spans

log = logging.getLogger(__name__)

ANY = 10**9  # more tokens than a text has: how tokenizers say that there is no limit


@dataclass
class SentenceTransformer(Hosted, Tokenized):
    """A sentence-transformers model by its hub id, or from a local folder (`path`).

    prefix: put before every text, as E5 models want it. max_length: tokens, no more than the model has positions for;
    null keeps the model's own limit. Vectors are normalised to length 1 unless `normalize` is false.
    """

    libraries: ClassVar[tuple[str, ...]] = ("sentence-transformers", "transformers")

    hub: str
    path: Text | None = None
    revision: Text | None = None
    prefix: str = ""
    max_length: Count | None = None
    normalize: bool = True
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    allow_bin: bool = knob(False)
    batch_size: Count = knob(64)
    device: Device | None = knob(None)

    def check(self) -> None:
        super().check()
        self.need_files("embedder", config=False)  # it is the library's modules that have one each

    @cached_property
    @loads("embedder")
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer as Model

        model = Model(
            self.place,
            revision=self.revision,
            device=self.device,
            trust_remote_code=self.trust_remote_code,
            model_kwargs={"dtype": self.dtype, **safe_loading(self.allow_bin)},
        )
        own = model.max_seq_length or ANY
        wanted = self.max_length or (own if own < ANY else ANY)
        limit = within(wanted, getattr(model[0], "auto_model", None))
        if self.max_length is not None and limit < self.max_length:
            log.warning("embedder.max_length=%d: the model has %d positions, and reads no more", self.max_length, limit)
        if limit != own and limit < ANY:
            model.max_seq_length = limit
        return model

    @property
    def _prefix(self) -> str:
        """What is put before a text: `prefix`, or what the model itself has for that."""
        return self.prefix or self._model.prompts.get(self._model.default_prompt_name or "", "")

    def _whole(self, texts: list[str]) -> list[str]:
        """The texts with all that the model wants around them, but for its prefix."""
        return texts

    @cached_property
    def parameters(self) -> float:  # type: ignore[override]
        return sum(passed(self._model))

    @property
    def limit(self) -> int | None:
        most = self._model.max_seq_length or ANY
        fast = getattr(getattr(self._model, "tokenizer", None), "is_fast", False)  # others do not say where tokens are
        return int(most) if fast and most < ANY else None

    def sizes(self, texts: list[str]) -> list[int]:
        whole = [self._prefix + t for t in self._whole(texts)]
        found = self._model.tokenizer(whole, truncation=False, padding=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        return spans(self._model.tokenizer, text)

    def encode(self, texts: list[str]) -> Vectors:
        with fast_linear(self._model):
            return self._model.encode(
                self._whole(texts),
                prompt=self.prefix or None,
                batch_size=self.batch_size,
                normalize_embeddings=self.normalize,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
