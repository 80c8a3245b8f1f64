"""The table of docs/scale.md: what 10 and 100 million examples take on 1, 8 and 64 GPUs, on paper.

    python -m tests.bench.bench_forecast    # prints it

Nothing is measured here. Operations are those of `dsel.model.flops` for models of the shapes that people use, and what
selectors and clusterers say themselves; seconds are theirs at a share of the peak of one device (`dsel.peaks`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from dsel.clusterer.faiss_kmeans import FaissKMeans
from dsel.cost import Cost
from dsel.forecast import DEVICES, Part, duration, short
from dsel.model.flops import forward_and_back, passed
from dsel.peaks import PEAKS, SHARE, USUAL
from dsel.selector.deita import Deita
from dsel.selector.kcenter import KCenter
from dsel.selector.quality import Quality
from dsel.selector.semdedup import SemDedup
from tests.gpu import shapes

SIZES = (10**7, 10**8)
TOKENS = 300  # of an example
WIDTH = 1024  # of its vector
BUDGET = 100_000
ADAPTERS = 168e6  # of rank 64 on all layers of Llama-3-8B
CHECKPOINTS = 4  # of LESS


def readings() -> Iterator[tuple[str, str, float]]:
    """(what, its arithmetic, operations of an example)."""
    llama, qwen, minilm = (weights(each) for each in (shapes.LLAMA_8B, qwen3(), shapes.MINILM))
    head = shapes.LLAMA_8B.head
    yield "embed: MiniLM-L6", f"2 × {minilm:.3g} × 256 tokens", 2 * minilm * 256
    yield "embed: Qwen3-Embedding-0.6B", f"2 × {qwen:.3g} × {TOKENS}", 2 * qwen * TOKENS
    yield "embed: Llama-3-8B", f"2 × {llama - head:.3g} × {TOKENS}", 2 * (llama - head) * TOKENS
    yield "score: perplexity, Llama-3-8B", f"2 × {llama:.3g} × {TOKENS}", 2 * llama * TOKENS
    yield "score: IFD, Llama-3-8B", f"2 passes × 2 × {llama:.3g} × {TOKENS}", 2 * 2 * llama * TOKENS
    gradient = forward_and_back(llama, ADAPTERS, TOKENS)
    says = f"{CHECKPOINTS} checkpoints × (4 × {llama:.3g} + 6 × {ADAPTERS:.3g}) × {TOKENS}"
    yield "gradients: LESS, Llama-3-8B", says, CHECKPOINTS * gradient


def choices(n: int) -> Iterator[tuple[str, str, Cost]]:
    """(what, where its operations are from, what it takes) for n examples."""
    clusterer = FaissKMeans(backend="exact").sized(n)
    k = clusterer.k
    assert isinstance(k, int)
    yield f"choose: k-means, {k:,} clusters", "on a sample, then all", clusterer.cost(n, WIDTH)
    yield f"choose: k-center, {BUDGET:,}", "`kcenter`", KCenter().cost(n, WIDTH, BUDGET, k)
    yield f"choose: Deita, {BUDGET:,}", "`deita`", Deita().cost(n, WIDTH, BUDGET, k)
    yield f"choose: SemDeDup in {k:,} clusters", "`semdedup`", SemDedup(then=Quality()).cost(n, WIDTH, BUDGET, k)


def weights(shape: Any) -> float:
    """What a token of a model passes through, its head included where it has one."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    with torch.device("meta"):
        if isinstance(shape, shapes.Shape):
            return sum(passed(AutoModelForCausalLM.from_config(shapes.configuration(shape))))
        return sum(passed(AutoModel.from_config(shapes.bert(shape) if isinstance(shape, shapes.Encoder) else shape)))


def qwen3() -> Any:
    """Qwen3-Embedding-0.6B as transformers describes it."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=151669, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128,
    )  # fmt: skip


def page() -> str:
    """The table, as Markdown."""
    peak = PEAKS[USUAL]
    head = [f"{short(n)} on {count}" for n in SIZES for count in DEVICES]
    lines = ["| | operations of an example | " + " | ".join(head) + " |", "|---|---|" + "---|" * len(head)]

    def line(part: Part) -> str:
        cells = [duration(part.on(i, count) or 0) for i in range(len(SIZES)) for count in DEVICES]
        return f"| {part.name} | {part.how} | " + " | ".join(cells) + " |"

    for name, how, each in readings():
        seconds = [n * each / (SHARE * peak.bfloat16) for n in SIZES]
        lines.append(line(Part(name, how, seconds, shared=True)))
    for few, many in zip(choices(SIZES[0]), choices(SIZES[1]), strict=True):
        costs = few[2], many[2]
        memory = " and ".join(f"{cost.memory / 1e9:,.2g}" for cost in costs)
        seconds = [cost.operations / (SHARE * peak.float32) for cost in costs]
        lines.append(line(Part(few[0], f"{few[1]}; {memory} GB of memory", seconds, shared=False)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
