"""Deita's scores against the definition, one turn at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dsel.component import digest
from dsel.errors import ConfigError
from dsel.reading import cuts
from dsel.scorer import base, deita
from dsel.scorer.deita import TEMPLATES, Deita, Evol, encode, fitted
from tests.conftest import ROOT, checked
from tests.scorer.pools import MIXED, pool_of

POOL = pool_of(*MIXED, system="Be brief.")


@pytest.fixture
def quality(small_model: Path) -> Deita:
    return Deita(hub="", path=str(small_model), dtype="float32", device="cpu")


@pytest.fixture
def complexity(quality: Deita) -> Deita:
    return replace(quality, rating="complexity")


def ratings(scorer: Deita) -> list[list[float]]:
    """Each turn's rating, from the whole logits of one text at a time."""
    import torch

    model, tokenizer = scorer.load()
    out = []
    for chat in MIXED:
        out.append([])
        for asked, answered in chat:
            text = TEMPLATES[scorer.rating].replace("{instruction}", asked).replace("{output}", answered)
            with torch.no_grad():
                logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].double()
            p = torch.softmax(logits[tokenizer.convert_tokens_to_ids(list("123456"))], 0)
            out[-1].append(sum(s * float(p[s - 1]) for s in range(1, 7)))
    return out


@pytest.mark.parametrize("rating", ["quality", "complexity"])
@pytest.mark.parametrize("how", ["sum", "mean", "first"])
def test_scores_are_the_expectations_over_the_turns(quality: Deita, tmp_path: Path, rating: str, how: str) -> None:
    scorer = replace(quality, rating=rating, turns=how)
    reductions: dict[str, Callable[[list[float]], float]] = {
        "sum": sum,
        "mean": lambda values: sum(values) / len(values),
        "first": lambda values: values[0],
    }
    scores = scorer.score(POOL, tmp_path)
    assert scores.shape == (len(MIXED),) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, [reductions[how](turns) for turns in ratings(scorer)], rtol=1e-5)
    assert len(set(scores.tolist())) > 3


def test_evol_sums_the_products_of_each_turn(quality: Deita, complexity: Deita, tmp_path: Path) -> None:
    scorer = Evol(quality, complexity)
    scorer.check()
    expected = [
        sum(q * c for q, c in zip(qs, cs, strict=True))
        for qs, cs in zip(ratings(quality), ratings(complexity), strict=True)
    ]
    np.testing.assert_allclose(scorer.score(POOL, tmp_path), expected, rtol=1e-5)


def test_the_batch_does_not_change_the_scores(quality: Deita, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "all").mkdir()
    one = replace(quality, tokens_a_batch=1).score(POOL, tmp_path / "one")
    np.testing.assert_allclose(replace(quality, tokens_a_batch=10**6).score(POOL, tmp_path / "all"), one, rtol=1e-5)


def test_a_long_turn_keeps_its_beginning_and_the_request(small_model: Path, quality: Deita) -> None:
    _, tokenizer = quality.load()
    whole = encode(tokenizer, "quality", "Why ?", "because " * 300, max_length=10_000)
    cut = encode(tokenizer, "quality", "Why ?", "because " * 300, max_length=100)
    request = len(tokenizer("##Quality: ", add_special_tokens=False)["input_ids"])
    assert len(cut) == 100 < len(whole)
    assert cut[-request + 1 :] == whole[-request + 1 :]
    same = next(i for i, (a, b) in enumerate(zip(cut, whole, strict=False)) if a != b)
    assert same > 60


def test_a_long_instruction_leaves_room_for_the_response(small_model: Path, quality: Deita, tmp_path: Path) -> None:
    _, tokenizer = quality.load()
    ids, whole = fitted(tokenizer, "quality", "word " * 300, "because of the sea", 250)
    assert len(ids) <= 250 < whole
    text = tokenizer.decode(ids)
    assert text.count("word") > 10 and "because" in text and text.rstrip().endswith(":")
    asked, same = fitted(tokenizer, "quality", "Why ?", "so", 250)
    assert asked == encode(tokenizer, "quality", "Why ?", "so", max_length=250) and same == len(asked)
    pool = pool_of([("word " * 300, "yes")], [("word " * 300, "no")], [("Why ?", "so")])
    for scorer in (quality, replace(quality, rating="complexity")):
        scores = replace(scorer, max_length=250).score(pool, tmp_path)
        assert (scores[0] != scores[1]) == (scorer.rating == "quality")
    found = {cut["reader"]: cut for cut in cuts(tmp_path)}
    assert list(found) == ["quality scorer", "complexity scorer"]
    assert [(cut["texts"], cut["of"], cut["limit"]) for cut in found.values()] == [(2, 3, 250)] * 2


def test_a_killed_scoring_goes_on(quality: Deita, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    expected = quality.score(POOL, tmp_path / "whole")
    monkeypatch.setattr(base, "SHARD", 2)
    asked: list[int] = []

    def counting(limit: int) -> Any:
        def encode_some(*arguments: Any, **options: Any) -> list[int]:
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append(1)
            return encode(*arguments, **options)

        return encode_some

    monkeypatch.setattr(deita, "encode", counting(5))
    with pytest.raises(KeyboardInterrupt):
        quality.score(POOL, tmp_path / "killed")
    asked.clear()
    monkeypatch.setattr(deita, "encode", counting(99))
    np.testing.assert_allclose(quality.score(POOL, tmp_path / "killed"), expected, rtol=1e-5)
    turns = sum(map(len, MIXED))
    assert len(asked) == turns - 4


def test_a_finished_rating_needs_no_model(quality: Deita, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = quality.score(POOL, tmp_path)
    monkeypatch.setattr(Deita, "load", lambda self: pytest.fail("loaded"))
    np.testing.assert_array_equal(quality.score(POOL, tmp_path), expected)


def test_a_tokenizer_without_digits_is_refused_before_the_weights_load(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(["[UNK]", "1", "2", "3", "5", "12"])}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]"))).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="4, 6 is not a single token"):
        Deita(hub="", path=str(tmp_path)).score(POOL, tmp_path)


def test_the_prompts_are_the_published_ones_to_the_last_blank() -> None:
    """hkust-nlp/deita, src/deita/selection/scorer/llama_scorer.py, and the two model cards."""
    assert [line.replace(" ", "·") for line in TEMPLATES["quality"].split("\n")] == [
        "You·are·a·helpful·assistant.·Please·identify·the·quality·score·of·the·Response·corresponding·to·the·Question.·",
        "·#Question#:",
        "{instruction}",
        "#Response#:",
        "{output}·",
        "##Quality:·",
    ]
    assert [line.replace(" ", "·") for line in TEMPLATES["complexity"].split("\n")] == [
        "You·are·a·helpful·assistant.·Please·identify·the·complexity·score·of·the·following·user·query.·",
        "##Query:·{instruction}··",
        "##Complexity:·",
    ]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama as hkust-nlp's scorers are: a tokenizer that is a SentencePiece model (`tokenizer.model`) and nothing
    else; its weights are safetensors."""
    import sentencepiece
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    texts = [TEMPLATES["quality"], TEMPLATES["complexity"], *(part for chat in MIXED for turn in chat for part in turn)]
    lines = [line for text in texts for line in text.splitlines()] * 20 + ["1 2 3 4 5 6"] * 20
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file, vocab_size=400, model_type="bpe", byte_fallback=True,
            split_digits=True, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False,
            normalization_rule_name="identity", character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    kind = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**kind, "add_bos_token": True, "add_eos_token": False}))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("rating", ["quality", "complexity"])
def test_a_llama_with_a_sentencepiece_tokenizer_rates(llama: Path, tmp_path: Path, rating: str) -> None:
    """Its tokens are SentencePiece's own, after a token that begins the text, and it rates as any other does."""
    import sentencepiece

    config = composed(f"scorer=deita_{rating}", f"scorer.path={llama}", "scorer.dtype=float32", "scorer.device=cpu")
    scorer = instantiate(config.scorer, _convert_="all")
    scorer.check()
    _, tokenizer = scorer.load()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(llama / "tokenizer.model"))
    for instruction, output in [("How many wolves are there ?", "Four ."), ("Say 1\n\nor  2", ""), (" é 它们", "x")]:
        text = TEMPLATES[rating].format(instruction=instruction, output=output)
        found = encode(tokenizer, rating, instruction, output, max_length=2048)
        assert found == [pieces.bos_id(), *pieces.encode(text)]
    assert deita.digit_tokens(tokenizer, "here") == [pieces.piece_to_id(digit) for digit in "123456"]
    scores = scorer.score(POOL, tmp_path)
    np.testing.assert_allclose(scores, [sum(turns) for turns in ratings(scorer)], rtol=1e-5)
    assert len(set(scores.tolist())) > 3


def test_presets_name_the_revision_that_has_safetensors() -> None:
    evol = composed("scorer=evol").scorer
    assert (evol.quality.hub, evol.quality.revision) == ("hkust-nlp/deita-quality-scorer", "refs/pr/3")
    assert (evol.complexity.hub, evol.complexity.revision) == ("hkust-nlp/deita-complexity-scorer", "refs/pr/2")


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def test_options_are_checked(quality: Deita, complexity: Deita, tmp_path: Path) -> None:
    quality.check()
    for change, message in [
        ({"rating": "beauty"}, "scorer.rating=beauty"),
        ({"turns": "last"}, "scorer.turns=last"),
        ({"dtype": "int4"}, "scorer.dtype=int4"),
        ({"max_length": 5}, "scorer.max_length=5"),
        ({"path": str(tmp_path / "missing")}, "scorer.path="),
        ({"path": str(tmp_path)}, "no config.json"),
    ]:
        with pytest.raises(ConfigError, match=message):
            checked(replace(quality, **change), "scorer")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"scorer\.quality\.rating"):
        Evol(complexity, quality).check()


def test_what_changes_the_scores_is_in_the_identity(quality: Deita, complexity: Deita) -> None:
    assert digest(quality) == digest(replace(quality, tokens_a_batch=5, device="cuda"))
    assert len({digest(quality), digest(complexity), digest(replace(quality, turns="mean"))}) == 3
    evol = Evol(quality, complexity, path=quality.path)
    assert digest(evol) == digest(Evol(quality, complexity)) != digest(Evol(quality, complexity, turns="mean"))
