"""How well a language model predicts the responses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dsel.model.chat import encode
from dsel.model.likelihood import mean_nll
from dsel.pool import Pool
from dsel.scorer.base import Scores, in_shards
from dsel.scorer.pretrained import Chat, fill_missing, template_refused


@dataclass
class Perplexity(Chat):
    """−log PPL of all assistant turns given what precedes them: minus their mean loss in nats, so higher is better.

    The quantity of Yu et al. 2024, Eq. 7, of the pool's own responses. An example without a response token within
    `max_length` gets the lowest score of the others.
    """

    def score(self, pool: Pool, scratch: Path) -> Scores:
        """float32[n]. Raises `ConfigError` when the chat template refuses a conversation."""
        from jinja2 import TemplateError

        conversations = pool.messages
        loaded = cache(self.load)

        def compute(rows: list[int]) -> npt.NDArray[np.float64]:
            model, tokenizer = loaded()
            try:
                encoded = [encode(tokenizer, conversations[i], self.max_length) for i in rows]
            except (TemplateError, ValueError) as error:
                raise template_refused(self.place, error) from error
            return -mean_nll(model, encoded, tokens_a_batch=self.tokens_a_batch)

        scores = in_shards([len(text) for text in pool.texts], compute, scratch, title="perplexity")
        lowest = np.min(scores[~np.isnan(scores)], initial=0)
        return fill_missing(scores, lowest, pool, "no response token within scorer.max_length").astype(np.float32)
