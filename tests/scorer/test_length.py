"""Lengths of responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsel.component import digest
from dsel.errors import ConfigError
from dsel.model.causal_lm import CausalLM
from dsel.scorer.length import Length
from tests.conftest import checked
from tests.scorer.pools import MIXED, pool_of

POOL = pool_of(*MIXED)


def test_characters_of_all_assistant_turns(tmp_path: Path) -> None:
    Length().check()
    scores = Length().score(POOL, tmp_path)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, [sum(len(answer) for _, answer in chat) for chat in MIXED])


def test_tokens_of_all_assistant_turns(small_model: Path, spec: CausalLM, tmp_path: Path) -> None:
    tokenizer = spec.load_tokenizer()
    scorer = Length(unit="tokens", path=str(small_model))
    scorer.check()
    expected = [sum(len(tokenizer.encode(a, add_special_tokens=False)) for _, a in chat) for chat in MIXED]
    np.testing.assert_array_equal(scorer.score(POOL, tmp_path), expected)


def test_the_logarithm_ranks_the_same(tmp_path: Path) -> None:
    """Its softmax is in proportion to the length, and one more for what has none."""
    scores = Length(log=True).score(POOL, tmp_path)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(np.exp(scores), Length().score(POOL, tmp_path) + 1, rtol=1e-5)


def test_tokens_need_a_tokenizer(small_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.hub or scorer\.path"):
        Length(unit="tokens").check()
    with pytest.raises(ConfigError, match=r"scorer\.unit=words"):
        checked(Length(unit="words"), "scorer")  # type: ignore[arg-type]
    assert digest(Length()) != digest(Length(unit="tokens", path=str(small_model)))
