"""A reward model's opinion of the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.errors import need
from dsel.hub import loads
from dsel.model import flops
from dsel.model.chat import render
from dsel.model.fast_linear import fast_linear
from dsel.model.likelihood import batches, padded
from dsel.model.positions import within
from dsel.pool import Message, Pool
from dsel.reading import shorten, spans
from dsel.scorer.base import Scores, counted
from dsel.scorer.pretrained import Chat, template_refused
from dsel.shards import HERE, Map


@dataclass
class Reward(Chat):
    """The single logit of a sequence-classification model that reads the whole conversation in its chat template.

    FsfairX-LLaMA3-RM-v0.1 is the one of Yu et al. 2024. A conversation longer than `max_length` loses its system prompt
    first, then its earlier exchanges, then parts of the last one (`dsel.reading.shorten`).
    """

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n]. Raises `ConfigError` for a model with more than one logit, or whose template refuses."""
        scores = self.read_all(pool.messages, pool.lengths, scratch, engine, title="reward")
        return scores.astype(np.float32)

    def read(self, model: Any, tokenizer: Any, rows: list[list[Message]]) -> npt.NDArray[Any]:
        import torch
        from jinja2 import TemplateError

        limit = within(self.max_length, model)

        def ids_of(messages: Sequence[Message]) -> list[int]:
            return tokenizer(render(tokenizer, messages), add_special_tokens=False, verbose=False)["input_ids"]

        def size(messages: Sequence[Message]) -> int:
            return len(ids_of(messages))

        try:
            encoded = [ids_of(messages) for messages in rows]
            whole = [len(ids) for ids in encoded]
            for i, messages in enumerate(rows):
                if whole[i] > limit:
                    encoded[i] = ids_of(shorten(messages, limit, size, partial(spans, tokenizer)))[:limit]
        except TemplateError as error:
            raise template_refused(self.place, error) from error
        out = np.empty(len(rows))
        with torch.inference_mode(), fast_linear(model):
            for batch in batches([len(ids) for ids in encoded], self.tokens_a_batch):
                tokens = [encoded[i] for i in batch]
                fill = padding_for(tokens, tokenizer.pad_token_id)
                model.config.get_text_config().pad_token_id = fill
                ids, mask = padded(tokens, model.device, fill)
                out[batch] = model(input_ids=ids, attention_mask=mask).logits[:, 0].double().cpu().numpy()
        flops.read(model, sum(map(len, encoded)))
        return counted(out, whole, [len(ids) for ids in encoded], limit)

    @loads("scorer")
    def load(self) -> tuple[Any, Any]:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        labels = self.pretrained(AutoConfig).num_labels
        need(labels == 1, f"{self.place}: a reward model has one logit, this one has {labels}")
        return self._load(AutoModelForSequenceClassification)


def padding_for(texts: Sequence[list[int]], usual: int | None) -> int:
    """A token id that none of `texts` holds: `usual` if it will do.

    Decoders find the end of a text as its last token that is not padding, so one that pads with its end-of-turn token
    would be read a token too early.
    """
    used = {token for ids in texts for token in ids}
    if usual is not None and usual not in used:
        return usual
    return next(token for token in range(len(used) + 1) if token not in used)
