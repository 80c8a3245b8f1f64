"""Memory of a training on one device, by formula, from a model's configuration: its weights are not loaded.

And the strategy that follows from it: the cheapest that fits.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass

from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.model.flops import passed
from dsel.trainer.sft import SFT
from dsel.trainer.strategy import SHARDED, Strategy

log = logging.getLogger(__name__)

NF4 = 4.127 / 8  # bytes of a weight with its share of constants, quantized twice (Dettmers et al. 2023, QLoRA, §3)
ROOM = 0.9  # of a device's memory, that a training may be planned to take: the libraries take some, too
TILE_TOKENS, TILE_WORDS = 4096, 32768  # of TRL's logits (trl.kernels.chunked_logprob)


@dataclass(frozen=True)
class Shape:
    """A model as it is trained, counted: all parameters, those trained, and those in matrices that stay as they are.

    queries, keys: the width of each over all heads. read: the widths of what LoRA's adapters read, added up. passed:
    what `dsel.model.flops` counts, the parameters that a token passes through, frozen and trained.
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
    passed: tuple[float, float] = (0.0, 0.0)


def strategies(trainer: SFT, processes: int) -> list[Strategy]:
    """How so many workers could share a training, as far as the libraries can: `single` is one of them, alone."""
    found: list[Strategy] = ["single"]
    if processes > 1:
        found += ["ddp"]
        if trainer.can_be_cut:
            found += ["fsdp2"] if trainer.quantization else ["fsdp2", "zero3"]
    return found


def strategy(
    model: CausalLM, trainer: SFT, processes: int, there: float | None = None, counts: Shape | None = None
) -> Strategy:
    """How so many workers share a training of `model`: as the trainer says, or the cheapest that fits a device.

    `ddp` moves gradients alone; where it takes more than a device has, `fsdp2` moves weights as well. there: bytes
    that each worker has, where that is not `capacity`.
    """
    asked = trainer.strategy
    if processes == 1 or asked != "auto":
        if processes == 1 and asked not in ("auto", "single"):
            log.info("trainer.strategy=%s: one worker has nothing to share, so it is single", asked)
        return "single" if processes == 1 else asked
    needed = sum(training(model, trainer, trainer.max_length, processes, "ddp", counts).values())
    there = capacity(processes) if there is None else there
    if needed <= ROOM * there:
        return "ddp"
    text = "training: all weights on each device take about %.0f GB, and %.0f GB are there"
    log.info(text + (": fsdp2" if trainer.can_be_cut else ""), needed / 1e9, there / 1e9)
    return "fsdp2" if trainer.can_be_cut else "ddp"


def capacity(processes: int) -> float:
    """Bytes that a worker has for itself: of its GPU, or its share of the machine's."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / processes


def training(
    model: CausalLM,
    trainer: SFT,
    longest: int,
    processes: int = 1,
    strategy: str = "single",
    counts: Shape | None = None,
) -> dict[str, float]:
    """`memory` of training `model` on examples of up to `longest` tokens, on each device.

    Args:
        model: what is trained.
        trainer: how.
        longest: tokens of an example.
        processes: workers that share a step.
        strategy: how; not `auto`.
        counts: `shape`'s, where they are known.

    Returns:
        Bytes by part. A strategy that cuts weights leaves a device its share of them, of gradients and of moments, and
        the two layers that are whole at once (the one that computes, and the next); under `ddp` gradients are there a
        second time, in the buckets that are summed (Li et al. 2020, PyTorch Distributed, §4.2).
    """
    import torch

    held, asked = torch_dtype(trainer.dtype or model.dtype), torch_dtype(model.dtype)
    weight, compute = held.itemsize, asked.itemsize if asked == torch.bfloat16 else held.itemsize
    share = math.ceil(trainer.batch_size / processes) if trainer.batch_size else trainer.micro_batch_size
    if trainer.packing:
        tokens = min(trainer.row_tokens(model.attention), longest * share)
    else:
        tokens = longest * min(trainer.micro_batch_size, share)
    counts = counts or shape(model, trainer)
    found = memory(counts, trainer, tokens, weight, compute, fused=torch.cuda.is_available())
    if strategy in SHARDED:
        own = found["weights"]
        for part in ("weights", "gradients", "optimizer"):
            found[part] /= processes
        found["weights"] += 2 * own / max(counts.layers, 2) * (1 - 1 / processes)
    elif processes > 1:
        found["gradients"] *= 2
    return found


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
        passed=passed(loaded),
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
