"""Models of the shapes that people use, with random weights, and texts of any length: nothing is downloaded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsel.data.procedural import raw_text
from dsel.embedder.sentence_transformer import SentenceTransformer
from dsel.model.causal_lm import CausalLM
from dsel.model.pretraining import train_tokenizer
from dsel.pool import Example, Message, Pool

POSITIONS = 8192


@dataclass(frozen=True)
class Shape:
    """A Llama by its sizes."""

    name: str
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    keys: int
    tied: bool = True

    @property
    def head(self) -> int:
        """Parameters of the head, and of the table of tokens, which may be the same."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """As transformers counts them."""
        width = self.hidden // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * width * self.keys
        layer = attention + 3 * self.hidden * self.inner + 2 * self.hidden
        return self.layers * layer + self.hidden + self.head * (1 if self.tied else 2)


@dataclass(frozen=True)
class Encoder:
    """A BERT by its sizes."""

    name: str
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int


LLAMA_8B = Shape("Llama-3-8B", 128256, 4096, 14336, 32, 32, 8, tied=False)
LLAMA_1B = Shape("Llama-3.2-1B", 128256, 2048, 8192, 16, 32, 8)
SMOLLM2 = Shape("SmolLM2-135M", 49152, 576, 1536, 30, 9, 3)
MINILM = Encoder("MiniLM-L6", 30522, 384, 1536, 6, 12)

TOY_LARGE = Shape("toy of 3 layers", 2048, 64, 128, 3, 4, 2, tied=False)
TOY_MIDDLE = Shape("toy of 2 layers", 2048, 64, 128, 2, 4, 2)
TOY_SMALL = Shape("toy of 1 layer", 2048, 64, 128, 1, 4, 2)
TOY_ENCODER = Encoder("toy encoder", 2048, 32, 64, 2, 2)


def place(shape: Shape | Encoder, folder: Path) -> Path:
    """Where in a folder the model of a shape is, or would be."""
    return folder / shape.name.replace(" ", "-")


def configuration(shape: Shape, **tokens: int) -> Any:
    """A shape as transformers describes it."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.keys,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=shape.tied,
        **tokens,
    )


def bert(shape: Encoder, **tokens: int) -> Any:
    """The same of an encoder."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        **tokens,
    )


def causal(shape: Shape, folder: Path, device: Any, dtype: Any) -> CausalLM:
    """The model of a shape, made on `device` and written to a folder in `folder` where it is not there yet."""
    import torch
    from transformers import AutoModelForCausalLM

    own = place(shape, folder)
    if not (own / "config.json").exists():
        tokenizer = train_tokenizer(raw_text(0, documents=2000))
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = configuration(shape, **{name: getattr(tokenizer, name) for name in names})
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        _write(own, model, tokenizer)
    return CausalLM(hub="", path=str(own), dtype=str(dtype).removeprefix("torch."))


def encoder(shape: Encoder, folder: Path, device: Any, dtype: Any) -> SentenceTransformer:
    """The same for an encoder: a folder as sentence-transformers has them, and the embedder that reads with it."""
    import torch
    from sentence_transformers import SentenceTransformer as Model
    from sentence_transformers import models
    from transformers import AutoModel

    own = place(shape, folder)
    if not (own / "modules.json").exists():
        tokenizer = train_tokenizer(raw_text(0, documents=2000))
        torch.manual_seed(0)
        bare = own.with_name(f"{own.name}-bare")
        _write(bare, AutoModel.from_config(bert(shape, pad_token_id=tokenizer.pad_token_id)), tokenizer)
        whole = models.Transformer(str(bare), max_seq_length=256)
        Model(modules=[whole, models.Pooling(shape.hidden)], device="cpu").save(str(own))
    name = str(dtype).removeprefix("torch.")
    return SentenceTransformer(hub="", path=str(own), dtype=name, device=str(device), batch_size=512)


def _write(folder: Path, model: Any, tokenizer: Any) -> None:
    half = folder.with_name(f"{folder.name}-unfinished")
    shutil.rmtree(half, ignore_errors=True)
    model.save_pretrained(half)
    tokenizer.save_pretrained(half)
    half.rename(folder)


def conversations(tokenizer: Any, lengths: list[int], *, asked: float = 0.25, seed: int = 0) -> list[list[Message]]:
    """A turn and its answer of each length, in words that are a token each. asked: the turn's share of them."""
    rng = np.random.default_rng(seed)
    words = sorted(word[1:] for word in tokenizer.get_vocab() if word.startswith("▁") and word[1:].isalpha())
    found = []
    for length in lengths:
        drawn = [words[i] for i in rng.integers(len(words), size=length)]
        at = max(1, int(asked * length))
        question, answer = " ".join(drawn[:at]), " ".join(drawn[at:]) or drawn[0]
        found.append([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
    return found


def pool(tokenizer: Any, lengths: list[int], seed: int = 0) -> Pool:
    """The same as a pool."""
    return Pool.build(
        "random words",
        [Example(str(i), talk, "", {}) for i, talk in enumerate(conversations(tokenizer, lengths, seed=seed))],
    )
