"""The default model: pretraining repeats, and what it saves is an ordinary Hugging Face folder."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from dsel.data.procedural import generate, raw_text
from dsel.model.pretraining import SPECIAL_TOKENS, pretrain, train_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"steps": 3, "hidden": 64, "layers": 2, "block": 64}

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the opposite of hot?"},
    {"role": "assistant", "content": "cold"},
    {"role": "user", "content": "And of big?"},
    {"role": "assistant", "content": "small"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pretrain(folder, **SMALL)
    return folder


def _digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    pretrain(tmp_path / "again", **SMALL)
    assert _digest(tmp_path / "again") == _digest(folder)
    assert torch.equal(torch.get_rng_state(), state)
    pretrain(tmp_path / "other", seed=1, **SMALL)
    assert _digest(tmp_path / "other")["model.safetensors"] != _digest(folder)["model.safetensors"]


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[int] = []
    pretrain(tmp_path, **SMALL, advance=seen.append)
    assert seen == [1] * SMALL["steps"]


def test_width_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        pretrain(tmp_path, hidden=100)


def test_loads_and_generates(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.max_position_embeddings >= 256
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    prompts = [MESSAGES[:2], MESSAGES[:4]]
    inputs = tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    assert model.generate(**inputs, max_new_tokens=4).shape[0] == 2
    assert not [p for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pkl"}]


def test_chat_template_only_ever_appends(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for tokenize in (False, True):

        def render(messages, prompt=False, tokenize=tokenize):
            out = tokenizer.apply_chat_template(
                messages, tokenize=tokenize, add_generation_prompt=prompt, return_dict=False
            )
            return list(out)

        for i, message in enumerate(MESSAGES):
            longer = render(MESSAGES[: i + 1])
            shorter = render(MESSAGES[:i], prompt=message["role"] == "assistant") if i else []
            assert longer[: len(shorter)] == shorter
    mask = tokenizer.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True)[
        "assistant_masks"
    ]
    assert sum(mask) == 4  # "cold", "small" and the end of each


def test_tokenizer_spells_anything_and_knows_the_words(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) <= 2048
    for text in ("cold", "as soon as possible", "3, 12, 20", "Größe 東京 🙂\n\ttab", "x = {'a': 1}"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
    ids = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
    assert sorted(ids) == list(range(len(SPECIAL_TOKENS)))
    for row in generate(300, 0, noise=0.0):
        words = row["messages"][0]["content"].split()
        n = len(tokenizer(row["messages"][0]["content"], add_special_tokens=False)["input_ids"])
        assert n < 3 * len(words)


def test_vocabulary_is_checked() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        train_tokenizer(raw_text(0, 10), 200)


@pytest.mark.slow
def test_default_pretraining_fits_in_its_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    start = time.monotonic()
    pretrain(tmp_path)
    assert float(caplog.text.rsplit("loss of ", 1)[1]) < 1.3
    assert time.monotonic() - start < 180  # 70 s on two idle cores; the rest is for busy machines
