"""What can be known of the hub's presets without it: their page, sizes, templates, rows and tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.utils import instantiate

from dsel.config_groups import options
from dsel.evaluator.harness import TASKS
from dsel.model.chat import IGNORED, encode, end_tokens, render, template
from dsel.trainer.sft import SFT
from tests.pages import presets
from tests.test_config import composed

PAGED = ("data", "embedder", "model", "scorer")


@cache
def hubs() -> list[tuple[str, str, str]]:
    """(group, choice, repository) of every preset that names one."""
    found = [(group, name, composed(f"{group}={name}")[group].get("hub")) for group in PAGED for name in options(group)]
    return [(group, name, hub) for group, name, hub in found if hub]


def test_the_page_has_every_preset_its_licence_and_how_it_is_had() -> None:
    """Nothing on it that there is not. A name may be of two groups."""
    rows = {(row[0], row[1]): row[2:] for row in presets()}
    assert sorted(rows) == sorted({(name, hub) for _, name, hub in hubs()})
    for row in rows.values():
        assert row[-2] and row[-1].startswith(("open", "ask"))
    gated = {hub.split("/")[0] for (_, hub), row in rows.items() if row[-1] == "ask"}
    assert gated == {"meta-llama", "google", "GAIR"}


def test_evaluators_are_on_the_page_too() -> None:
    text = (Path(__file__).parent.parent / "docs" / "presets.md").read_text(encoding="utf-8")
    section = text.partition("## Evaluators")[2]
    assert [name for name in options("evaluator") if f"`{name}`" not in section] == ["none"]


# models

MISTRAL = {"model_type": "mistral", "num_key_value_heads": 8}
LLAMA3 = {"model_type": "llama", "vocab_size": 128_256, "num_key_value_heads": 8}
QWEN2 = {"model_type": "qwen2", "vocab_size": 151_936, "num_key_value_heads": 2}
QWEN3 = {"model_type": "qwen3", "vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128}
GEMMA3 = {"vocab_size": 262_208, "head_dim": 256}
SMOLLM2 = {"model_type": "llama", "vocab_size": 49_152, "tie_word_embeddings": True}


def sizes(hidden: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    shape = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return {**shape, "num_attention_heads": heads, **more}


MODELS: dict[str, tuple[dict[str, Any], float]] = {  # as published, and billions of parameters
    "llama2_7b": (sizes(4096, 11008, 32, 32, model_type="llama", vocab_size=32_000), 6.74),
    "llama3_8b": (sizes(4096, 14336, 32, 32, **LLAMA3), 8.03),
    "llama3_1_8b": (sizes(4096, 14336, 32, 32, **LLAMA3), 8.03),
    "llama3_2_1b": (sizes(2048, 8192, 16, 32, **LLAMA3, tie_word_embeddings=True), 1.24),
    "llama3_2_3b": (sizes(3072, 8192, 28, 24, **LLAMA3, tie_word_embeddings=True), 3.21),
    "mistral_7b": (sizes(4096, 14336, 32, 32, **MISTRAL, vocab_size=32_000), 7.24),
    "mistral_7b_v0_3": (sizes(4096, 14336, 32, 32, **MISTRAL, vocab_size=32_768), 7.25),
    "qwen2_5_1_5b": (sizes(1536, 8960, 28, 12, **QWEN2, tie_word_embeddings=True), 1.54),
    "qwen3_0_6b": (sizes(1024, 3072, 28, 16, **QWEN3, tie_word_embeddings=True), 0.60),
    "qwen3_1_7b": (sizes(2048, 6144, 28, 16, **QWEN3, tie_word_embeddings=True), 1.72),
    "qwen3_4b": (sizes(2560, 9728, 36, 32, **QWEN3, tie_word_embeddings=True), 4.02),
    "qwen3_8b": (sizes(4096, 12288, 36, 32, **QWEN3, tie_word_embeddings=False), 8.19),
    "olmo2_7b": (sizes(4096, 11008, 32, 32, model_type="olmo2", vocab_size=100_352), 7.30),
    "gemma3_1b": (
        sizes(1152, 6912, 26, 4, model_type="gemma3_text", num_key_value_heads=1, **{**GEMMA3, "vocab_size": 262_144}),
        1.00,
    ),
    "gemma3_4b": (
        {
            "model_type": "gemma3",
            "text_config": sizes(2560, 10240, 34, 8, num_key_value_heads=4, **GEMMA3),
            "vision_config": sizes(1152, 4304, 27, 16, image_size=896, patch_size=14),
        },
        4.30,
    ),
    "smollm2_135m": (sizes(576, 1536, 30, 9, **SMOLLM2, num_key_value_heads=3), 0.135),
    "smollm2_360m": (sizes(960, 2560, 32, 15, **SMOLLM2, num_key_value_heads=5), 0.362),
    "smollm2_1_7b": (sizes(2048, 8192, 24, 32, **SMOLLM2), 1.71),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_can_be_built_and_adapted(name: str, tmp_path: Path) -> None:
    """At its published size, without weights: by the library's own classes, with adapters on each layer of the text."""
    config, billions = MODELS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = instantiate(composed(f"model={name}", f"model.path={tmp_path}").model, _convert_="all")
    bare = SFT(lora=None).unweighted(model)
    assert sum(p.numel() for p in bare.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)
    adapted = SFT(lora={"rank": 8, "alpha": 16, "dropout": 0.0}).unweighted(model)
    layers = config.get("text_config", config)["num_hidden_layers"]
    found = [n for n, _ in adapted.named_parameters() if n.endswith("lora_A.default.weight")]
    assert len(found) == 7 * layers and not [n for n in found if "vision" in n]


def test_all_models_are_tried() -> None:
    assert set(MODELS) == {name for group, name, _ in hubs() if group == "model"}


TOKENIZERS = {  # beginning, end, padding of the tokenizers, and how they split texts
    "llama2_7b mistral_7b mistral_7b_v0_3": ("<s>", "</s>", None, "metaspace"),
    "llama3_8b": ("<|begin_of_text|>", "<|end_of_text|>", None, "bytes"),
    "llama3_1_8b llama3_2_1b llama3_2_3b": ("<|begin_of_text|>", "<|end_of_text|>", None, "bytes"),
    "gemma3_1b gemma3_4b": ("<bos>", "<eos>", "<pad>", "metaspace"),
    "olmo2_7b": ("<|endoftext|>", "<|endoftext|>", "<|pad|>", "bytes"),
    "smollm2_135m smollm2_360m smollm2_1_7b": ("<|endoftext|>", "<|endoftext|>", None, "bytes"),
}
OTHERS = ["<unk>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>"]


def tokenizer(folder: Path, begin: str, end: str, pad: str | None, split: str) -> Path:
    """A small tokenizer that adds a beginning by itself, as those of the hub do, saved in `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=split == "metaspace"))
    if split == "bytes":
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = decoders.Metaspace(prepend_scheme="first")
    special = list(dict.fromkeys([begin, end, *([pad] if pad else []), *OTHERS]))
    texts = [
        "How are you? I am fine, thank you.",
        "<|user|> <|assistant|> <|system|>",
        "abcdefghijklmnopqrstuvwxyz\n",
    ] * 3
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    ids = [(begin, made.token_to_id(begin))]
    made.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=ids)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=begin, eos_token=end, pad_token=pad, unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for kind in TOKENIZERS for name in kind.split()])
def test_turns_suits_a_base_model(name: str, kind: str, tmp_path: Path) -> None:
    """One beginning of the text; a response is learnt with the end of text behind it, where generation stops."""
    begin, end, pad, _ = TOKENIZERS[kind]
    path = tokenizer(tmp_path, *TOKENIZERS[kind])
    made = instantiate(composed(f"model={name}", f"model.path={path}").model, _convert_="all").load_tokenizer()
    assert made.chat_template == template("turns", option="model.chat_template")
    said = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "I am fine"}]
    ids, labels = encode(
        made, [*said, {"role": "user", "content": "abc"}, {"role": "assistant", "content": "thank you"}]
    )
    learnt = made.decode([label for label in labels if label != IGNORED])
    assert learnt == f"I am fine{end}thank you{end}"
    text = render(made, said)
    assert text == f"{begin}<|user|>\nHow are you?\n<|assistant|>\nI am fine{end}\n"
    start, stop = made.convert_tokens_to_ids([begin, end])
    assert ids[0] == start and ids.count(start) == (3 if begin == end else 1)
    assert end_tokens(made) == [stop]
    assert made.pad_token == (pad or composed(f"model={name}").model.pad_token or "<unk>")


# data

CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
SAID = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
SHARD = "data/train-00000-of-00001.parquet"
THOUGHT = "<|begin_of_thought|>Hm.<|end_of_thought|><|begin_of_solution|>Because.<|end_of_solution|>"
THOUGHTS = [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": THOUGHT}]
DATA: dict[str, tuple[str, dict[str, Any], str]] = {  # file, a row with the columns of its card, its source
    "tulu_v3": (SHARD, {"id": "a", "messages": CHAT, "source": "flan"}, "flan"),
    "openhermes": (
        "openhermes2_5.json",
        {"conversations": SAID, "source": "airoboros", "category": None, "system_prompt": None, "avatarUrl": None},
        "airoboros",
    ),
    "magpie": (
        SHARD,
        {"uuid": "a", "instruction": "Why?", "response": "Because.", "conversations": SAID, "reward_model": "none"},
        "Magpie-Pro-300K-Filtered",
    ),
    "ultrachat": (
        "data/train_sft-00000-of-00001.parquet", {"prompt": "Why?", "prompt_id": "a", "messages": CHAT},
        "ultrachat_200k",
    ),
    "lima": ("train.jsonl", {"conversations": ["Why?", "Because."], "source": "stackexchange"}, "stackexchange"),
    "no_robots": (SHARD, {"prompt": "Why?", "prompt_id": "a", "messages": CHAT, "category": "Chat"}, "Chat"),
    "openthoughts": (SHARD, {"system": "Think.", "conversations": THOUGHTS}, "OpenThoughts-114k"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_rows_as_their_card_has_them_are_read(name: str, tmp_path: Path) -> None:
    """Beside a split that is not wanted."""
    file, row, source = DATA[name]
    for path, text in {file.replace("train", "test"): "No!", file: "Why?"}.items():
        write(tmp_path / path, [json.loads(json.dumps(row).replace("Why?", text))])
    data = instantiate(composed(f"data={name}", f"data.path={tmp_path}").data, _convert_="all")
    data.check()
    pool = data.load()
    assert (pool.name, pool.sources) == (name, [source])
    assert pool.responses == [THOUGHT if name == "openthoughts" else "Because."]
    assert [m["content"] for m in pool.prompts[0]] == ([row["system"]] if "system" in row else []) + ["Why?"]
    assert not pool.skipped


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# evaluators


@cache
def index() -> Mapping[str, Any]:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(TASKS)]).task_index


@pytest.mark.parametrize("name", ["paper", "iterit_paper", "ifeval", "reasoning", "open_llm_v2"])
def test_tasks_and_metrics_are_the_harnesss(name: str) -> None:
    for task, spec in composed(f"evaluator={name}").evaluator.tasks.items():
        entry = index()[task].cfg
        metric, _, filtered = spec.metric.partition(",")
        if "group" in entry:
            listed = entry["aggregate_metric_list"]
            (found,) = [each for each in listed if each["metric"] == metric]
            assert found.get("filter_list", "none") == filtered, task
            leaves = [part if isinstance(part, str) else part["task"] for part in entry["task"]]
            assert all(leaf in index() for leaf in leaves)
        else:
            named = [str(each["metric"]).rpartition(".")[2] for each in entry["metric_list"]]
            assert metric in named, f"{task}: {named}"
            filters = [each["name"] for each in entry.get("filter_list") or []] or ["none"]
            assert filtered in filters, f"{task}: {filters}"
