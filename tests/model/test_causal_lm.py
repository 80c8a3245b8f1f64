"""Loading models: from local folders, without resizing a vocabulary, with a template where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dsel.component import identity
from dsel.errors import ConfigError
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import template
from tests.conftest import checked


def test_loads_in_the_wanted_dtype_and_keeps_its_vocabulary(spec: CausalLM, small_model: Path) -> None:
    import torch

    tokenizer = spec.load_tokenizer()
    size = json.loads((small_model / "config.json").read_text())["vocab_size"]
    for dtype in ("float32", "bfloat16"):
        model = spec.load(tokenizer, dtype=dtype)
        assert model.dtype == getattr(torch, dtype)
        assert model.get_input_embeddings().num_embeddings == size
        assert model.config.pad_token_id == tokenizer.pad_token_id


def test_a_tokenizer_without_template_gets_the_plain_one(
    small_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(small_model, bare)
    (bare / "chat_template.jinja").unlink()
    caplog.set_level("INFO")
    tokenizer = CausalLM(hub="", path=str(bare)).load_tokenizer()
    assert "has no chat template: model.chat_template=turns is used" in caplog.text
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == f"{tokenizer.bos_token}<|user|>\nhi\n<|assistant|>\n"


def test_a_configured_template_takes_the_place_of_its_own(spec: CausalLM, tmp_path: Path) -> None:
    own = spec.load_tokenizer().chat_template
    turns = CausalLM(hub="", path=spec.path, chat_template="turns")
    assert turns.load_tokenizer().chat_template == template("turns", option="") != own
    file = tmp_path / "t.jinja"
    keys = []
    for text in ("{{ messages[0].content }}", "{{ messages }}"):
        file.write_text(text)
        configured = CausalLM(hub="", path=spec.path, chat_template=str(file))
        assert configured.load_tokenizer().chat_template == text
        keys.append(identity(configured))
    assert keys[0] != keys[1]  # known by what the file says


def test_a_model_stops_where_a_turn_ends_whatever_its_eos_token(spec: CausalLM, tmp_path: Path) -> None:
    """As a base model with a chat template: another token is the end of text. It is so for whoever loads it saved."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer = spec.load_tokenizer()
    end = tokenizer.eos_token_id
    tokenizer.chat_template = tokenizer.chat_template.replace("eos_token", f"'{tokenizer.eos_token}'")
    tokenizer.eos_token = tokenizer.pad_token
    model = spec.load(tokenizer)
    assert model.generation_config.eos_token_id == sorted([tokenizer.pad_token_id, end])
    model.save_pretrained(tmp_path)
    assert end in GenerationConfig.from_pretrained(tmp_path).eos_token_id
    assert end in AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id


def test_padding_uses_a_token_there_is(spec: CausalLM) -> None:
    assert CausalLM(hub="", path=spec.path, pad_token="<|unk|>").load_tokenizer().pad_token == "<|unk|>"
    with pytest.raises(ConfigError, match="never resized"):
        CausalLM(hub="", path=spec.path, pad_token="<|new|>").load_tokenizer()


def test_a_local_model_is_known_by_its_files_not_its_place(small_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_model, copy)
    here, there = (identity(CausalLM(hub="x", path=str(p))) for p in (small_model, copy))
    assert here == there
    (copy / "config.json").write_text("{}")
    assert identity(CausalLM(hub="x", path=str(copy))) != here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "/no/such/folder"}, "no such file or folder"),
        ({"dtype": "int8"}, r"model\.dtype=int8"),
        ({"chat_template": "nope"}, r"model\.chat_template=nope"),
        ({"attention": "flash_attention_2"}, "flash_attn"),
    ],
)
def test_bad_options_are_refused_before_anything_loads(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(CausalLM(hub="x", **options), "model")  # type: ignore[arg-type]
