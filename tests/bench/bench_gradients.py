"""Gradients of single examples, many at a time, against the ways there are to make them.

    python -m tests.bench.bench_gradients                  # SmolLM2, LoRA of rank 8, 64 examples of P3, two threads
    python -m tests.bench.bench_gradients alone ours       # some of them
    python -m tests.bench.bench_gradients memory --examples 64 128 256   # features of more and more examples

alone: one backward pass for each example, and its gradients put into one vector. released: goes on as LESS's released
code does: every 16 of them are projected to 8,192 dimensions in blocks of 128, each with a matrix drawn for it. ours:
`per_example`, without and with our projection. vmap: torch.func's gradient of each row of a batch. bergson: its
collector on the same LoRA layers, where the package is installed. They take turns in one process, and the best of
`--repeats` counts. The bound is what the weights alone would take at the peak of a matrix product of this machine: each
token through the layers and back, and labelled ones through the head.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dsel.data.local import Local
from dsel.model.chat import IGNORED, encode
from dsel.model.gradients import Projection, per_example, trained
from dsel.model.likelihood import Encoded, in_batches, padded_pairs
from tests.bench.bench_learner import POOLS, SMOLLM2, matrix_peak, sample
from tests.bench.measuring import Measured, measured

EVERY, BLOCK, DIMENSIONS = 16, 128, 8192  # of the released code


def adapted(folder: str, rank: int, modules: list[str], dtype: str = "float32") -> tuple[Any, Any]:
    """The model with a LoRA that is not zero, and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    targets: Any = modules[0] if modules == ["all-linear"] else modules
    model = get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=4 * rank, target_modules=targets, task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def alone(model: Any, texts: list[Encoded], device: str) -> Any:
    """float32[n, p], by one pass forward and backward for each example."""
    import torch

    names, rows = list(trained(model)), []
    for ids, labels in texts:
        model.zero_grad()
        batch = {"input_ids": torch.tensor([ids], device=device), "labels": torch.tensor([labels], device=device)}
        model(**batch).loss.backward()
        parameters = dict(model.named_parameters())
        rows.append(torch.cat([parameters[name].grad.flatten() for name in names]))
    model.zero_grad()
    return torch.stack(rows)


def released(model: Any, texts: list[Encoded], device: str) -> Any:
    """float32[n, 8192], as LESS's released code has them made where its CUDA kernel is not installed."""
    import torch

    out = []
    for start in range(0, len(texts), EVERY):
        vectors = alone(model, texts[start : start + EVERY], device)
        projected = torch.empty(len(vectors), DIMENSIONS, device=device)
        signs = torch.empty(vectors.shape[1], BLOCK, device=device)
        for block in range(0, DIMENSIONS, BLOCK):
            signs.bernoulli_(0.5, generator=torch.Generator(device).manual_seed(block)).mul_(2).sub_(1)
            projected[:, block : block + BLOCK] = vectors @ signs
        out.append(projected)
    return torch.cat(out)


def ours(model: Any, texts: list[Encoded], device: str, dimensions: int | None = None) -> Any:
    """float32[n, p], or projected."""
    out: Any = None
    for rows, values in per_example(model, texts):
        out = values.new_empty(len(texts), values.shape[1]) if out is None else out
        out[rows] = values
    return out if dimensions is None else Projection(out.shape[1], dimensions, 0)(out)


def vmapped(model: Any, texts: list[Encoded], device: str) -> Any:
    """float32[n, p] by torch.func, in batches of as many tokens as ours."""
    import torch
    from torch.func import functional_call, grad, vmap

    names, out = list(trained(model)), None
    whole = dict(model.named_parameters())
    wanted = {name: whole[name].detach() for name in names}
    rest = {name: value.detach() for name, value in whole.items() if name not in wanted}

    def loss(parameters: Any, ids: Any, labels: Any) -> Any:
        found = functional_call(model, (parameters, rest), (ids[None],), {"use_cache": False}).logits[0, :-1].float()
        each = torch.nn.functional.cross_entropy(found, labels[1:].clamp(min=0), reduction="none")
        counted = labels[1:] != IGNORED
        return (each * counted).sum() / counted.sum()

    def gradients(rows: list[int]) -> Any:
        ids, labels, _ = padded_pairs([texts[row] for row in rows], device)
        found = vmap(grad(loss), in_dims=(None, 0, 0))(wanted, ids, labels)
        return torch.cat([found[name].flatten(1) for name in names], dim=1)

    for rows, values in in_batches(gradients, [len(ids) for ids, _ in texts], 1024):
        out = values.new_empty(len(texts), values.shape[1]) if out is None else out
        out[rows] = values
    return out


def bergson(model: Any, texts: list[Encoded], device: str, dimensions: int = 16) -> Any:
    """What bergson keeps of the LoRA layers: each module's gradient projected to 16 × 16 numbers, on both sides."""
    import torch
    from datasets import Dataset

    parts = (("collector.in_memory_collector", "InMemoryCollector"), ("config", "IndexConfig"))
    collects, settings = (getattr(import_module(f"bergson.{module}"), name) for module, name in parts)
    processed = import_module("bergson.gradients").GradientProcessor

    data = Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in texts])
    modules = {name.rpartition(".")[0].removeprefix("base_model.") for name in trained(model)}
    config = settings(run_path="unused", projection_dim=dimensions)
    processor = processed(projection_dim=dimensions, projection_seed=0)
    collector = collects(model=model.base_model, data=data, cfg=config, processor=processor, target_modules=modules)

    def read(rows: list[int]) -> None:
        ids, labels, _ = padded_pairs([texts[row] for row in rows], device)
        with collector.with_batch(torch.arange(ids.shape[1])[None] < torch.tensor([[len(texts[r][0])] for r in rows])):
            logits = model(input_ids=ids).logits[:, :-1]
            each = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]).float(), labels[:, 1:].flatten(), reduction="none"
            ).view(len(rows), -1)
            losses = each.sum(1) / (labels[:, 1:] != IGNORED).sum(1)
            losses.sum().backward()
        collector.process_batch(rows, losses=losses)
        model.zero_grad()

    with collector:
        for _ in in_batches(read, [len(ids) for ids, _ in texts], 1024):
            pass
    return torch.cat([torch.as_tensor(found).flatten(1) for found in collector.gradients.values()], dim=1)


WAYS: dict[str, Callable[..., Any]] = {
    "alone": alone,
    "ours": ours,
    "released": released,
    "ours, projected": partial(ours, dimensions=DIMENSIONS),
    "vmap": vmapped,
    "bergson": bergson,
}


def turns(o: argparse.Namespace, model: Any, texts: list[Encoded]) -> Iterator[tuple[str, Measured[Any]]]:
    """The best of some measurements of each way, which take turns."""
    import torch

    def work(name: str) -> Any:
        found = WAYS[name](model, texts, o.device)
        if o.device == "cuda":
            torch.cuda.synchronize()
        return found

    for _ in range(o.repeats):
        for name in o.ways or WAYS:
            try:
                yield name, measured(partial(work, name), every=0.2)
            except Exception as error:  # a library that is not there, or that this model is too much for
                print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")


def growth(o: argparse.Namespace, model: Any, texts: list[Encoded]) -> None:
    """Features of the first n examples in shards of one size: seconds of a processor, and the most memory by then."""
    from dsel.questions import GRADIENTS_A_SHARD
    from dsel.selector.less import ByGradients

    fit = int(ByGradients.memory * 1e9 / (4 * sum(trained(model).values())))
    shard = max(1, min(GRADIENTS_A_SHARD, fit))
    print(f"{'examples':>10}{'tokens':>10}{'CPU s':>10}{'s/1000 tokens':>16}{'VmHWM, MB':>12}   shards of {shard}")
    for n in o.examples:
        some = texts[:n]

        def work(some: list[Encoded] = some) -> None:
            for start in range(0, len(some), shard):
                ours(model, some[start : start + shard], o.device, DIMENSIONS)

        found, tokens = measured(work, every=0.2), sum(len(ids) for ids, _ in some)
        most = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3  # type: ignore[index]
        print(f"{n:10}{tokens:10}{found.cpu_seconds:10.1f}{1000 * found.cpu_seconds / tokens:16.2f}{most:12.0f}")
        sys.stdout.flush()


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("ways", nargs="*", help=f"{', '.join(WAYS)} (all); or memory")
    parser.add_argument("--model", default=str(SMOLLM2))
    parser.add_argument("--pool", type=Path, default=POOLS[0])
    parser.add_argument("--examples", type=int, nargs="+", default=[64])
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--modules", nargs="+", default=["q_proj", "k_proj", "v_proj", "o_proj"], help="or all-linear")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    o = parser.parse_args()

    import torch

    torch.set_num_threads(o.threads)
    model, tokenizer = adapted(o.model, o.rank, o.modules, o.dtype)
    model.to(o.device)
    pool = sample(Local(path=str(o.pool)).load(), max(o.examples))
    texts = [encode(tokenizer, messages, o.max_length) for messages in pool.messages]
    texts = [text for text in texts if any(label != IGNORED for label in text[1])]
    if o.ways == ["memory"]:
        growth(o, model, texts)
        return
    read, labelled = sum(len(ids) for ids, _ in texts), sum(t != IGNORED for _, labels in texts for t in labels)
    head = model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name and "lora" not in name)
    peak = matrix_peak(o.device, getattr(torch, o.dtype))
    bound = 4 * (layers * read + head * labelled) / peak
    print(f"{len(texts)} examples, {read} tokens, {labelled} labelled, p = {sum(trained(model).values())}")
    print(f"matrix product {peak / 1e12:.2f} TFLOP/s; the weights alone would take {bound:.1f} s")
    best: dict[str, Measured[Any]] = {}
    for name, found in turns(o, model, texts):
        print(f"  {name}: {found.seconds:.1f} s, {found.cpu_seconds:.1f} s of processors")
        sys.stdout.flush()
        if name not in best or found.seconds < best[name].seconds:
            best[name] = found
    print(f"{'way':18}{'s':>8}{'CPU s':>8}{'examples/s':>12}{'of bound':>10}{'to alone':>10}   difference")
    for name, found in best.items():
        against = best.get("alone", found)
        same = name in ("ours", "vmap") and "alone" in best
        error = (found.result - against.result).norm(dim=1) / against.result.norm(dim=1) if same else None
        print(
            f"{name:18}{found.seconds:8.1f}{found.cpu_seconds:8.1f}{len(texts) / found.seconds:12.2f}"
            f"{bound / found.seconds:10.0%}{against.seconds / found.seconds:10.2f}"
            + ("" if error is None else f"   {float(np.max(error.cpu().numpy())):.1e} of its length at most")
        )


if __name__ == "__main__":
    main()
