"""How well a language model predicts the responses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.model.chat import encode
from dsel.model.likelihood import mean_nll
from dsel.model.positions import within
from dsel.pool import Message, Pool
from dsel.scorer.base import Scores, counted
from dsel.scorer.pretrained import Chat, fill_missing, template_refused
from dsel.shards import HERE, Map


@dataclass
class Perplexity(Chat):
    """−log PPL of all assistant turns given what precedes them: minus their mean loss in nats, so higher is better.

    The quantity of Yu et al. 2024, Eq. 7, of the pool's own responses. A conversation longer than `max_length` is read
    without its system prompts, up to there; one without a response token in it gets the lowest score of the others.
    """

    def score(self, pool: Pool, scratch: Path, engine: Map = HERE) -> Scores:
        """float32[n]. Raises `ConfigError` when the chat template refuses a conversation."""
        scores = self.read_all(pool.messages, pool.lengths, scratch, engine, title="perplexity")
        lowest = np.min(scores[~np.isnan(scores)], initial=0)
        return fill_missing(scores, lowest, pool, "no response token within scorer.max_length").astype(np.float32)

    def read(self, model: Any, tokenizer: Any, rows: list[list[Message]]) -> npt.NDArray[Any]:
        from jinja2 import TemplateError

        limit = within(self.max_length, model)
        try:
            encoded = [encode(tokenizer, messages) for messages in rows]
            whole = [len(ids) for ids, _ in encoded]
            for i, messages in enumerate(rows):
                if whole[i] > limit:
                    encoded[i] = encode(tokenizer, [m for m in messages if m["role"] != "system"], limit)
        except (TemplateError, ValueError) as error:
            raise template_refused(self.place, error) from error
        scores = -mean_nll(model, encoded, tokens_a_batch=self.tokens_a_batch)
        return counted(scores, whole, [len(ids) for ids, _ in encoded], limit)
