"""The default model: a small Llama pretrained from nothing on the procedural raw text, in about a minute.

It knows the facts and can do the operations, but was never shown a chat: its special chat tokens exist in
the vocabulary and are first trained by finetuning. What it learns from a chosen subset is therefore the
choosing's doing. The result is an ordinary Hugging Face folder.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dsel.data.procedural import raw_text

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|unk|>")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def pretrain(
    folder: Path,
    *,
    seed: int = 0,
    steps: int = 450,
    blocks_per_step: int = 8,
    block: int = 128,
    hidden: int = 256,
    layers: int = 3,
    learning_rate: float = 0.02,
    vocabulary: int = 2048,
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Train a tokenizer and a model from `procedural.raw_text` and save both to `folder`.

    Same arguments, thread count and machine: the same bytes. The caller's random state is left alone.

    Args:
        folder: made if missing; receives config, generation config, safetensors and tokenizer files.
        seed: draws the text and the initial weights.
        steps: optimiser steps, each over `blocks_per_step` rows of `block` tokens.
        hidden: width; heads are 32 wide and the gated MLP is twice as wide as the model.
        layers: number of layers.
        learning_rate: peak of Muon's; AdamW, for embeddings and norms, has 0.3 of it. Twenty steps of
            warm-up, constant, then linear to zero over the last 40 %.
        vocabulary: most tokens the tokenizer may hold.
        advance: called with 1 after each step.

    Raises:
        ValueError: if `hidden` is no multiple of 32.
    """
    import torch

    if hidden % 32:
        raise ValueError(f"hidden must be a multiple of 32 (the width of a head), not {hidden}")
    # Drawn lazily: one document a token is far more than is ever read.
    documents = raw_text(seed, documents=steps * blocks_per_step * block)
    tokenizer = train_tokenizer(raw_text(seed, documents=6000), vocabulary)
    blocks = _packed(documents, tokenizer, block)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(tokenizer, hidden, layers, block)
        optimizers = _optimizers(model, learning_rate)
        schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps)) for optimizer in optimizers
        ]
        model.train()
        for _ in range(steps):
            ids = torch.tensor(list(islice(blocks, blocks_per_step)))
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            advance(1)
    log.info("pretrained for %d steps to a loss of %.3f", steps, loss.item())
    _place_chat_tokens(model, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_tokenizer(documents: Iterable[str], vocabulary: int = 2048) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer that falls back to letters and bytes, so that it can spell any text.

    The vocabulary holds the special tokens, all bytes, all printable ASCII characters, and the most
    frequent words of `documents` (with the space before them). Such a word is always one token.

    Raises:
        ValueError: if `vocabulary` leaves no room for words.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "\n"]
    pieces += [chr(code) for code in range(33, 127)]
    if vocabulary <= len(pieces):
        raise ValueError(f"vocabulary must be more than {len(pieces)}, not {vocabulary}")
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(re.findall(r"▁?(?:[^\W\d_]+|\d+|[^\w\s])", "▁" + document.replace(" ", "▁")))
    known = set(pieces)
    words = sorted((word for word in counts if word not in known), key=lambda word: (-counts[word], word))
    words = words[: vocabulary - len(pieces)]
    # A Unigram model takes the most probable spelling: whole words where it has them.
    total = sum(counts.values())
    spelling = [(piece, -math.log(total) - 10.0) for piece in pieces]
    whole = [(word, math.log(counts[word] / total)) for word in words]
    unknown = SPECIAL_TOKENS.index("<|unk|>")
    tokenizer = Tokenizer(models.Unigram(spelling + whole, unk_id=unknown, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _packed(documents: Iterator[str], tokenizer: PreTrainedTokenizerFast, block: int) -> Iterator[list[int]]:
    """Join documents, each behind a begin token, and cut the stream into rows of `block` tokens."""
    stream: list[int] = []
    while batch := list(islice(documents, 256)):
        for ids in tokenizer(batch, add_special_tokens=False)["input_ids"]:
            stream += [tokenizer.bos_token_id, *ids]
        whole = len(stream) // block * block
        yield from (stream[at : at + block] for at in range(0, whole, block))
        stream = stream[whole:]


def _model(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, block: int) -> LlamaForCausalLM:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 32,
            max_position_embeddings=max(512, block),
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},  # rows are short
            initializer_range=0.04,
            tie_word_embeddings=True,
            **ids,
        )
    )
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    return model


def _place_chat_tokens(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start the embeddings of the chat tokens, never seen so far, at those of the plain text they replace.

    A turn begins like a document, and the end of a question with the assistant's token reads "Answer:".
    Without this, a few hundred examples go into finding out where the answer starts.
    """
    import torch

    stand_ins = {"<|system|>": "<|bos|>", "<|user|>": "<|bos|>", "<|end|>": "▁Answer", "<|assistant|>": ":"}
    ids = tokenizer.get_vocab()
    weight = model.model.embed_tokens.weight
    with torch.no_grad():
        for token, stand_in in stand_ins.items():
            weight[ids[token]] = weight[ids[stand_in]]


def _optimizers(model: LlamaForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices between layers, AdamW for the rest.

    Muon reached a given loss here in half the steps of AdamW alone, for a tenth more time a step.
    """
    import torch

    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.05),
        torch.optim.AdamW(others, lr=0.3 * learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _rate(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step: warm-up, stay, fall."""
    return min((step + 1) / 20, 1.0, (steps - step) / (0.4 * steps))
