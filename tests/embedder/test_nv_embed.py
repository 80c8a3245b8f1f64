"""NV-Embed's way with texts, with a tiny random model in place of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsel.embedder.nv_embed import NVEmbed
from dsel.embedder.sentence_transformer import SentenceTransformer
from tests.embedder.test_sentence_transformer import model_folder  # noqa: F401  a fixture


def test_a_text_ends_in_the_end_of_text_token(model_folder: Path) -> None:  # noqa: F811
    plain, ours = (kind(hub="", path=str(model_folder)) for kind in (SentenceTransformer, NVEmbed))
    ours._model.tokenizer.eos_token = "two"
    np.testing.assert_allclose(ours.encode(["one "]), plain.encode(["one two"]), atol=1e-6)
    assert ours.sizes(["one "]) == plain.sizes(["one two"])
