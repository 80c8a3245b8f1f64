"""SuperFiltering's score against a plain reading of the published code, one example at a time, on a tiny GPT-2."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.data.formats import recognise, to_messages
from dsel.pool import Example, Pool
from dsel.reading import cuts
from dsel.scorer.ifd import IFD
from dsel.scorer.superfiltering import SuperFiltering, plain
from tests.scorer.pools import MIXED, pool_of

ROWS = [
    {"instruction": "Name a colour", "input": "", "output": "Blue, as the sea is."},
    {"instruction": "Add the numbers", "input": "4 and 5", "output": "9 ."},
    {"instruction": "Say why\nInput: none", "output": "word " * 30},
    {"instruction": "word " * 90, "input": "x", "output": "a long prompt leaves room for little of this " * 3},
    {"instruction": "Begin", "input": "with a line", "output": "Begin\nwith a line"},
]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of a few thousand weights, with a tokenizer of bytes and pairs that adds nothing to a text."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("gpt2")
    texts = [f"{row['instruction']}\n{row['output']}" for row in ROWS] * 3
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(texts, vocab_size=400, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=500, n_positions=128, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def scorer(gpt2: Path) -> SuperFiltering:
    return SuperFiltering(hub="", path=str(gpt2), dtype="float32", device="cpu", max_length=128)


def alpaca() -> Pool:
    return Pool.build(
        "p", [Example(f"e{i}", to_messages(row, recognise(row, "here")), "s", row) for i, row in enumerate(ROWS)]
    )


def published(model: Any, tokenizer: Any, row: dict[str, str], max_length: int) -> float:
    """The steps of code_ifd/data_analysis.py and put_analysis_to_data.py, with the library's own mean loss."""
    import torch

    given = row.get("input", "")
    prompt = f"{row['instruction']}\n{given}\n" if given else f"{row['instruction']}\n"
    asked = len(tokenizer.encode(prompt, truncation=True, max_length=max_length))
    room = max_length - asked + 1
    alone = torch.tensor([tokenizer.encode(row["output"], truncation=True, max_length=room)])
    whole = torch.tensor([tokenizer.encode(prompt + row["output"], truncation=True, max_length=max_length)])
    labels = whole.clone()
    labels[0, : len(tokenizer.encode(prompt))] = -100
    with torch.no_grad():
        direct, conditional = model(alone, labels=alone).loss, model(whole, labels=labels).loss
    return float(torch.exp(conditional) / torch.exp(direct))


def test_scores_are_those_of_the_published_code(scorer: SuperFiltering, tmp_path: Path) -> None:
    scorer.check()
    model, tokenizer = scorer.load()
    expected = [published(model, tokenizer, row, 128) for row in ROWS]
    scores = scorer.score(alpaca(), tmp_path)
    assert scores.dtype == np.float32 and np.isfinite(expected).all()
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_it_is_not_the_score_in_a_chat_template(scorer: SuperFiltering, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    chat = IFD(hub="", path=scorer.path, dtype="float32", device="cpu", chat_template="turns", max_length=128)
    assert not np.isclose(chat.score(alpaca(), tmp_path / "a"), scorer.score(alpaca(), tmp_path / "b")).any()


def test_the_prompt_is_plain() -> None:
    pool = alpaca()
    found = [plain(messages, row) for messages, row in zip(pool.messages, ROWS, strict=True)]
    assert found[0] == ("Name a colour\n", "Blue, as the sea is.")
    assert found[1] == ("Add the numbers\n4 and 5\n", "9 .")
    assert found[2][0] == "Say why\nInput: none\n"  # its own words, and no input
    (chat,) = pool_of([("Say 1", "1"), ("Say 2", "2")], system="Be brief.").messages
    assert plain(chat, {"conversations": []}) == ("Be brief.\nSay 1\n1\nSay 2\n", "2")


def test_what_leaves_no_loss_gets_the_lowest_score(
    scorer: SuperFiltering, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of([("word " * 200, "an answer")], [("Why ?", "")], [("Why ?", "because of this")])
    with caplog.at_level(logging.WARNING):
        scores = scorer.score(pool, tmp_path)
    assert scores[:2].tolist() == [0, 0] and scores[2] > 0
    assert "2 examples get the lowest score: no two tokens of a response" in caplog.text and "e0, e1" in caplog.text


def test_neither_batch_nor_order_changes_the_scores(scorer: SuperFiltering, tmp_path: Path) -> None:
    from dataclasses import replace

    for name in ("one", "all"):
        (tmp_path / name).mkdir()
    one = replace(scorer, tokens_a_batch=1).score(pool_of(*MIXED), tmp_path / "one")
    np.testing.assert_allclose(scorer.score(pool_of(*MIXED), tmp_path / "all"), one, rtol=1e-4)


def test_what_is_cut_is_counted(gpt2: Path, tmp_path: Path) -> None:
    pool = alpaca()
    SuperFiltering(hub="", path=str(gpt2), dtype="float32", device="cpu", max_length=64).score(pool, tmp_path)
    (cut,) = cuts(tmp_path)
    assert (cut["reader"], cut["limit"], cut["of"]) == ("superfiltering scorer", 64, len(pool))
    assert 0 < cut["texts"] < len(pool)
