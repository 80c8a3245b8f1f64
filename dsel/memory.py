"""Memory of a training on one device, by formula, from a model's configuration: its weights are not loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dsel.distributed import world_size
from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.trainer.sft import SFT

NF4 = 4.127 / 8  # bytes of a weight with its share of constants, quantized twice (Dettmers et al. 2023, QLoRA, §3)
TILE_TOKENS, TILE_WORDS = 4096, 32768  # of TRL's logits (trl.kernels.chunked_logprob)


@dataclass(frozen=True)
class Shape:
    """A model as it is trained, counted: all parameters, those trained, and those in matrices that stay as they are.

    queries, keys: the width of each over all heads. read: the widths of what LoRA's adapters read, added up.
    """

    parameters: int
    trained: int
    frozen_matrices: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int
    read: int = 0


def training(model: CausalLM, trainer: SFT, longest: int) -> dict[str, float]:
    """`memory` of training `model` (a local folder), here, on examples of up to `longest` tokens."""
    import torch

    held, asked = torch_dtype(trainer.dtype or model.dtype), torch_dtype(model.dtype)
    weight, compute = held.itemsize, asked.itemsize if asked == torch.bfloat16 else held.itemsize
    share = math.ceil(trainer.batch_size / world_size()) if trainer.batch_size else trainer.micro_batch_size
    if trainer.packing:
        tokens = min(trainer.row_tokens(model.attention), longest * share)
    else:
        tokens = longest * min(trainer.micro_batch_size, share)
    return memory(shape(model, trainer), trainer, tokens, weight, compute, fused=torch.cuda.is_available())


def shape(model: CausalLM, trainer: SFT) -> Shape:
    """The counts of `model` (a local folder) as `trainer` loads it, but on torch's meta device: without weights."""
    import torch
    from transformers import AutoConfig

    text = model.pretrained(AutoConfig).get_text_config()
    loaded = trainer.unweighted(model)
    linear = {name: m for name, m in loaded.named_modules() if isinstance(m, torch.nn.Linear)}
    head = loaded.get_output_embeddings()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        parameters=sum(p.numel() for p in loaded.parameters()),
        trained=sum(p.numel() for p in loaded.parameters() if p.requires_grad),
        frozen_matrices=sum(m.weight.numel() for m in linear.values() if m is not head and not m.weight.requires_grad),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        queries=width * text.num_attention_heads,
        keys=width * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
        vocabulary=text.vocab_size,
        read=sum(m.in_features for name, m in linear.items() if "lora_A" in name),
    )


def memory(shape: Shape, trainer: SFT, tokens: int, weight: int, compute: int, *, fused: bool) -> dict[str, float]:
    """Bytes of the parts of a training that takes `tokens` at once. Not all are there at once: the sum is rather high.

    weight: bytes of a weight while training; compute: of an operand of a matrix product, 2 for bfloat16. fused: whether
    TRL's kernel for the loss runs, as it does on GPUs.

    Weights, their copies for lower precision, gradients, and Adam's two moments: Rajbhandari et al. 2020 (ZeRO, §3.1).
    Adapters are float32, and so is all that QLoRA does not quantize (PEFT). Activations: what autograd keeps, counted
    as in Korthikanti et al. 2022 (§4.1), for layers with RMSNorm, a gated MLP and attention without a stored matrix;
    with gradient checkpointing the input of each layer and all of one (§5). Logits: TRL's tile of them and the float32
    gradient of the head; without the kernel, seven float32 copies of the tile.
    """
    adapters, quantized = trainer.lora is not None, trainer.quantization is not None
    weight = 4 if quantized else weight
    own, casts = 4 if adapters else weight, weight != compute
    frozen = shape.parameters - shape.trained
    weights: float = frozen * weight + shape.trained * own
    if quantized:
        weights += shape.frozen_matrices * (NF4 - weight)
    elif casts:
        weights += shape.parameters * compute
    moments = {"sgd": 0, "adafactor": 0, "lion": 1}.get(trainer.optimizer.split("_")[0], 2)

    layer: float = 2 * (4 + weight) * shape.hidden  # two norms: what they read, in float32, and that scaled
    layer += (5 if casts else 2) * compute * shape.hidden  # what q, k, v and gate, up read: of each, where it is cast
    layer += 2 * compute * (shape.queries + shape.keys)  # q, k, v and what attention gives
    layer += 4 * compute * shape.inner  # gate, its activation, up, their product
    layer += 5 * shape.read / shape.layers  # the dropout before each adapter: float32 and a mask
    kept = shape.layers * weight * shape.hidden + layer if trainer.gradient_checkpointing else shape.layers * layer

    tile = min(tokens, TILE_TOKENS)
    logits = tile * TILE_WORDS * compute + (0 if fused else 7 * 4 * tile * min(shape.vocabulary, TILE_WORDS))
    return {
        "weights": weights,
        "gradients": shape.trained * own,
        "optimizer": shape.trained * moments * (1 if "8bit" in trainer.optimizer else own),
        "activations": tokens * kept,
        "logits": logits + (0 if adapters else 4 * shape.vocabulary * shape.hidden),
    }
