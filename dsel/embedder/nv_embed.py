"""NV-Embed (Lee et al. 2025), by the code that comes with it."""

from __future__ import annotations

from dataclasses import dataclass

from dsel.embedder.sentence_transformer import SentenceTransformer


@dataclass
class NVEmbed(SentenceTransformer):
    """Each text ends in the end-of-text token, which its tokenizer does not add (so its model card has it)."""

    def _whole(self, texts: list[str]) -> list[str]:
        return [text + str(self._model.tokenizer.eos_token) for text in texts]
