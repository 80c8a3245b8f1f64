"""Operations by the formulas beside those of torch: what leaving attention out comes to, and what runs have cost.

    python -m tests.bench.bench_cost                       # 2 N, 6 N and 4 N + 6 L against torch's count, by length
    python -m tests.bench.bench_cost runs/*/               # the cost of runs by stage: seconds, FLOPs, tokens, FLOP/s

Models are counted on torch's meta device: nothing is computed, so that a machine of any size can do it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsel.model import flops
from dsel.record.reader import RunFolder

SIZES = {
    "SmolLM2-135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                     "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "Llama-2-7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "vocab_size": 32000},
}  # fmt: skip
LENGTHS = (128, 512, 2048, 8192)
WRITE = sys.stdout.write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    given = parser.parse_args()
    for folder in given.runs:
        of_run(RunFolder.read(folder))
    if not given.runs:
        formulas()


def formulas() -> None:
    import torch

    for name, sizes in SIZES.items():
        for adapters in (False, True):
            model = made(sizes, adapters)
            for length in LENGTHS:
                ids = torch.zeros((1, length), dtype=torch.long, device="meta")
                read = counted(lambda ids=ids, model=model: model(input_ids=ids).logits)
                learnt = counted(lambda ids=ids, model=model: model(input_ids=ids).logits.sum().backward())
                ours = flops.reading(model, length), flops.training(model, length)
                WRITE(
                    f"{name}, {'LoRA' if adapters else 'all weights':11}, {length:5} tokens: reading "
                    f"{ours[0] / read:.3f}, training {ours[1] / learnt:.3f} of what torch counts\n"
                )


def made(sizes: dict[str, Any], adapters: bool) -> Any:
    """A model without weights, whose attention is products that torch counts."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    with torch.device("meta"):
        config = LlamaConfig(**sizes, max_position_embeddings=max(LENGTHS))
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        lora = LoraConfig(r=128, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, lora) if adapters else model


def counted(work: Callable[[], Any]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def of_run(run: RunFolder) -> None:
    WRITE(f"{run.where}: {run.choice('selector')}\n")
    for stage in run.stages:
        cost = stage.cost
        if cost is None:
            WRITE(f"  {stage.name:14} not known: made before its cost was kept\n")
        else:
            rate = "" if cost.flops is None or not cost.seconds else f"  {cost.flops / cost.seconds:.2e} FLOP/s"
            known = "not counted" if cost.flops is None else f"{cost.flops:.2e} FLOPs"
            cached = "  (found)" if stage.cached else ""
            WRITE(f"  {stage.name:14} {cost.seconds:10.1f} s  {known}  {cost.tokens:,} tokens{rate}{cached}\n")
    for what, text in run.cost.told.items():
        WRITE(f"  cost of {what}: {text}\n")


if __name__ == "__main__":
    main()
