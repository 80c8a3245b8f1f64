"""Scorers that read examples with a pretrained model: how it is loaded."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from dsel.component import digest, knob
from dsel.constraints import AtLeast, Count, Device, Dtype, Text
from dsel.distributed import device_of_process
from dsel.errors import ConfigError, need
from dsel.hub import loads
from dsel.model.causal_lm import torch_dtype
from dsel.model.chat import template
from dsel.model.hosted import Hosted
from dsel.model.trial import try_template
from dsel.pool import Message, Pool
from dsel.scorer.base import Reader
from dsel.shards import Read

log = logging.getLogger(__name__)


@dataclass
class Pretrained(Hosted, Reader):
    """A model by its hub id, or from a local folder (`path`).

    max_length: tokens of a text that are read, no more than the model has positions for. tokens_a_batch: padded tokens
    that are read at once. device: the accelerator if there is one. What else is loaded, and how: see `Hosted`.
    """

    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    passes: ClassVar[int] = 1  # over each text, at most: what a plan goes by

    hub: str
    path: Text | None = None
    revision: Text | None = None
    max_length: Annotated[int, AtLeast(64)] = 2048
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    allow_bin: bool = knob(False)
    tokens_a_batch: Count = knob(8192)
    device: Device | None = knob(None)

    def check(self) -> None:
        self.need_files("scorer")

    def extra_identity(self) -> dict[str, Any]:
        return super().extra_identity() | {"long texts": "shortened"}  # they were cut at their end

    def build(self) -> Read:
        return partial(self.read, *self.load())

    @abstractmethod
    def read(self, model: Any, tokenizer: Any, rows: list[Any]) -> npt.NDArray[Any]:
        """What the model makes of some rows: a record of `counted` for each."""

    @loads("scorer")
    def load(self) -> tuple[Any, Any]:
        """The causal language model, in evaluation mode, and its tokenizer."""
        from transformers import AutoModelForCausalLM

        return self._load(AutoModelForCausalLM)

    def _load(self, auto: Any) -> tuple[Any, Any]:
        import torch

        tokenizer = self.load_tokenizer()
        device = torch.device(self.device) if self.device else device_of_process()
        return self.weights(auto, device, dtype=torch_dtype(self.dtype)).eval(), tokenizer

    def load_tokenizer(self) -> Any:
        """The tokenizer alone, prepared."""
        from transformers import AutoTokenizer

        tokenizer = self.pretrained(AutoTokenizer)
        self.suits(tokenizer)
        return tokenizer

    def suits(self, tokenizer: Any) -> None:
        """Raise `ConfigError` when the tokenizer lacks something; called before the weights are loaded."""


@dataclass
class Chat(Pretrained):
    """A model that reads conversations. chat_template: instead of its own, `turns` or a path to a file."""

    chat_template: Text | None = None

    probes: ClassVar[Sequence[list[Message]]] = ()  # what it reads that is not in the pool
    reads_pool: ClassVar[bool] = True  # whole conversations, as they stand

    def extra_identity(self) -> dict[str, Any]:
        if self.chat_template is None:
            return super().extra_identity()
        text = template(self.chat_template, option="scorer.chat_template")
        return {**super().extra_identity(), "chat_template": digest(text)}

    def check(self) -> None:
        super().check()
        if self.chat_template is not None:
            template(self.chat_template, option="scorer.chat_template")

    def suits(self, tokenizer: Any) -> None:
        if self.chat_template is not None:
            tokenizer.chat_template = template(self.chat_template, option="scorer.chat_template")
        need(
            tokenizer.chat_template is not None,
            f"{self.place}: its tokenizer has no chat template; set scorer.chat_template=turns",
        )

    def try_on(self, pool: Pool) -> None:
        try_template(
            self.load_tokenizer(),
            pool if self.reads_pool else pool.take([]),
            name=self.place,
            option="scorer.chat_template",
            probes=self.probes,
            trains=False,
        )


def fill_missing(scores: npt.NDArray[np.float64], fill: float, pool: Pool, why: str) -> npt.NDArray[np.float64]:
    """`scores` with `fill` for NaN, and a warning that names the examples."""
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        names = ", ".join(pool.ids[i] for i in missing[:5])
        log.warning("%d examples get the lowest score: %s (ids %s)", len(missing), why, names)
    return np.where(np.isnan(scores), fill, scores)


def template_refused(place: str, error: Exception) -> ConfigError:
    """The error for a chat template that raises on a conversation."""
    reason = " ".join(str(error).split())
    return ConfigError(f"{place}: its chat template refuses a conversation ({reason}); set scorer.chat_template=turns")
