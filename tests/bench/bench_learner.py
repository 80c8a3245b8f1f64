"""The calls of a learner that cost the most, against the plain way to make them and against the device's peak.

    python -m tests.bench.bench_learner                                      # on the CPU, SmolLM2, P3 and Alpaca
    python -m tests.bench.bench_learner generate --model tiny                # the tiny model on the procedural pool
    python -m tests.bench.bench_learner --device cuda --shape llama3-8b --dtype bfloat16   # random weights

nll: both losses that IFD needs of each example. Plain: two passes in batches of 8 in the pool's order, padded, with all
logits. generate: greedy answers. Plain: the same batches through transformers' `generate`. train: LoRA finetuning, left
out on the CPU unless asked for. Ours and the plain way take turns, and the best of `--repeats` counts; the ratio is one
of wall time, and beside it one of CPU time, which other programs on the machine disturb less. The peak is that of a
matrix product in the same dtype and on as many threads; the share of it counts what the weights do to each token, and
the vocabulary where a label or a new token needs it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dsel.cache import Cache
from dsel.data.local import Local
from dsel.data.procedural import Procedural
from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.model.chat import IGNORED, end_tokens, render
from dsel.model.fast_linear import fast_linear
from dsel.model.generation import generate
from dsel.model.likelihood import Encoded, mean_nll
from dsel.model.tiny import Tiny
from dsel.pool import Pool
from dsel.scorer.base import turns
from dsel.scorer.ifd import encode
from dsel.trainer.sft import SFT
from tests.bench.bench_selectors import Run, measure
from tests.conftest import ROOT, SHARED

SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"
POOLS = [SHARED / "data" / "p3_55k.parquet", SHARED / "data" / "alpaca_gpt4_999.json"]
PLAIN_BATCH = 8
SHAPES = {
    "llama3-8b": {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    },
}  # fmt: skip


@dataclass
class Row:
    work: str
    seconds: float
    tokens: int
    peak_share: float
    reference: str = "-"
    reference_seconds: float = float("nan")
    cpu_ratio: float = float("nan")
    agreement: str = "-"


@dataclass
class Shaped(CausalLM):
    """A Llama of random weights, with the tokenizer of another model."""

    shape: str = "llama3-8b"

    def load(self, tokenizer: Any, *, dtype: str | None = None, quantization: Any = None, sharded: bool = False) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig

        config = LlamaConfig(**SHAPES[self.shape], pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=False)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch_dtype(dtype or self.dtype), attn_implementation=self.attention
            )
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        return model


@dataclass
class Bench:
    """The model, and what is measured with it."""

    o: argparse.Namespace
    spec: CausalLM
    tokenizer: Any
    peak: float  # floating-point operations a second

    def load(self) -> Any:
        return self.spec.load(self.tokenizer).to(self.o.device).eval()

    def share(self, model: Any, read: int, projected: int, seconds: float, passes: int = 1) -> float:
        """Of the peak: `read` tokens through the layers, `projected` ones through the vocabulary."""
        head = model.get_output_embeddings().weight.numel()
        layers = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name)
        return 2 * passes * (layers * read + head * projected) / seconds / self.peak

    def best(self, *functions: Callable[[], Any]) -> list[Run]:
        """The best of `repeats` runs of each, in turns, after one to warm up."""
        import torch

        def timed(function: Callable[[], Any]) -> Run:
            def call() -> Any:
                result = function()
                if self.o.device == "cuda":
                    torch.cuda.synchronize()
                return result

            return measure(call)

        for function in functions if self.o.warm else ():
            timed(function)
        rounds = [[timed(function) for function in functions] for _ in range(self.o.repeats)]
        return [min(runs, key=lambda run: run.seconds) for runs in zip(*rounds)]

    def nll(self, name: str, pool: Pool) -> Iterator[Row]:
        pairs = [turns(messages)[0] for messages in pool.messages]
        given, alone = zip(*(encode(self.tokenizer, *pair, max_length=self.o.max_length) for pair in pairs))
        model = self.load()
        ours, plain = self.best(
            lambda: mean_nll(model, [*given, *alone]),
            lambda: np.concatenate([plain_nll(model, given), plain_nll(model, alone)]),
        )
        texts = [*given, *alone]
        read, labelled = sum(len(ids) for ids, _ in texts), sum(t != IGNORED for _, labels in texts for t in labels)
        yield Row(
            f"nll, {len(pairs)} of {name}", ours.seconds, read, self.share(model, read, labelled, ours.seconds),
            f"batches of {PLAIN_BATCH}, all logits", plain.seconds, plain.cpu_seconds / ours.cpu_seconds,
            f"difference at most {np.nanmax(np.abs(ours.result - plain.result)):.1e}",
        )  # fmt: skip

    def generate(self, name: str, pool: Pool) -> Iterator[Row]:
        texts = [render(self.tokenizer, prompt, generation_prompt=True) for prompt in pool.prompts]
        model, new = self.load(), self.o.new_tokens
        ours, plain = self.best(
            lambda: generate(model, self.tokenizer, texts, max_new_tokens=new, max_prompt=self.o.max_length),
            lambda: plain_generate(model, self.tokenizer, texts, new, self.o.max_length),
        )
        answers, lengths = plain.result
        same = np.mean([a == b for a, b in zip(ours.result, answers, strict=True)])
        yield Row(
            f"generate, {len(texts)} of {name}", ours.seconds, sum(lengths),
            self.share(model, sum(lengths), sum(lengths), ours.seconds),
            f"batches of {PLAIN_BATCH}", plain.seconds, plain.cpu_seconds / ours.cpu_seconds, f"{same:.0%} the same",
        )  # fmt: skip

    def train(self, name: str, pool: Pool) -> Iterator[Row]:
        trainer = SFT(
            epochs=1, batch_size=8, micro_batch_size=8, warmup=0, max_length=self.o.max_length,
            lora={"rank": 64, "alpha": 16, "dropout": 0.1},
        )  # fmt: skip
        model = trainer.load(self.spec, self.tokenizer, seed=0)

        def train() -> Any:
            with tempfile.TemporaryDirectory() as folder:
                return trainer.train(
                    model, self.tokenizer, pool, seed=0, bfloat16=self.o.dtype == "bfloat16", folder=Path(folder),
                    report=lambda metrics, step: None,
                )  # fmt: skip

        (run,) = self.best(train)
        tokens = int(run.result["tokens"])
        base = model.get_base_model()
        # forward and back through frozen weights; the second forward of checkpointing is a cost, not work
        share = self.share(base, tokens, tokens, run.seconds, passes=2)
        yield Row(f"train LoRA, {len(pool)} of {name}", run.seconds, tokens, share)


def plain_nll(model: Any, encoded: Sequence[Encoded]) -> np.ndarray:
    """Mean losses over labelled tokens, in batches in the given order, from the logits at all positions."""
    import torch

    out = []
    for start in range(0, len(encoded), PLAIN_BATCH):
        batch = encoded[start : start + PLAIN_BATCH]
        shape = len(batch), max(len(ids) for ids, _ in batch)
        ids, mask, labels = torch.zeros(shape).long(), torch.zeros(shape).long(), torch.full(shape, IGNORED)
        for row, (text, targets) in enumerate(batch):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
            labels[row, : len(text)] = torch.tensor(targets)
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits[:, :-1].float()
            targets = labels[:, 1:].to(model.device)
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
            ).view(targets.shape)
            out.append((losses.sum(1) / (targets != IGNORED).sum(1)).cpu().double().numpy())
    return np.concatenate(out)


def plain_generate(
    model: Any, tokenizer: Any, texts: list[str], new: int, max_prompt: int
) -> tuple[list[str], list[int]]:
    """Greedy answers and their lengths in tokens, each batch computed until its last answer ends."""
    import torch

    answers, lengths = [], []
    ends = end_tokens(tokenizer, model.generation_config.eos_token_id)
    for start in range(0, len(texts), PLAIN_BATCH):
        rows = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts[start : start + PLAIN_BATCH]]
        batch = tokenizer.pad(
            {"input_ids": [row[-max_prompt:] for row in rows]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            out = model.generate(**batch, max_new_tokens=new, do_sample=False, eos_token_id=ends)
        for row in out[:, batch["input_ids"].shape[1] :].tolist():
            length = next((t for t, token in enumerate(row) if token in ends), len(row))
            answers.append(tokenizer.decode(row[:length], skip_special_tokens=True).strip())
            lengths.append(length)
    return answers, lengths


def matrix_peak(device: str, dtype: Any) -> float:
    """Floating-point operations a second of a large matrix product: the best of a few."""
    import torch

    n = 8192 if device == "cuda" else 2048
    layer = torch.nn.Linear(n, n, bias=False, device=device, dtype=dtype)
    x = torch.randn(n, n, device=device).to(dtype)

    def product() -> None:
        layer(x)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode(), fast_linear(layer):
        return 2 * n**3 / min(measure(product).seconds for _ in range(10))


def sample(pool: Pool, n: int) -> Pool:
    rows = np.random.default_rng(0).choice(len(pool), min(n, len(pool)), replace=False)
    return pool.take(rows)


def pools(o: argparse.Namespace) -> Iterator[tuple[str, Pool]]:
    if not o.pool and o.model == "tiny":
        yield "procedural", sample(Procedural().load(), o.examples)
        return
    for path in o.pool or POOLS:
        yield path.stem, sample(Local(path=str(path)).load(), o.examples)


def prepared(o: argparse.Namespace) -> CausalLM:
    if o.model == "tiny":
        tiny = Tiny(dtype=o.dtype)
        tiny.prepare(Cache(o.cache))
        return tiny
    known = {"hub": "", "path": o.model, "dtype": o.dtype, "attention": o.attention}
    return Shaped(**known, shape=o.shape) if o.shape else CausalLM(**known)


BENCHES = {"nll": Bench.nll, "generate": Bench.generate, "train": Bench.train}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("benches", nargs="*", metavar="bench", help=f"which of {', '.join(BENCHES)}")
    parser.add_argument("--model", default=str(SMOLLM2), help="a folder, or tiny (SmolLM2)")
    parser.add_argument("--shape", choices=list(SHAPES), help="random weights of this shape instead of the model's own")
    parser.add_argument("--pool", type=Path, nargs="+", default=[], help="files (P3 and Alpaca; procedural for tiny)")
    parser.add_argument("--examples", type=int, default=64, help="drawn from each pool, always the same")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--attention", default="sdpa", help="sdpa, flash_attention_2, …")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm", action=argparse.BooleanOptionalAction, default=True, help="a first run not counted")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of a text, or of a prompt")
    parser.add_argument("--new-tokens", type=int, default=128, help="of an answer at most")
    parser.add_argument("--cache", default="~/.cache/dsel", help="where the tiny model is")
    parser.add_argument("--json", type=Path, help="also append the rows to this file, one object a line")
    o = parser.parse_args()
    if unknown := set(o.benches) - set(BENCHES):
        parser.error(f"no bench called {', '.join(sorted(unknown))}: choose from {', '.join(BENCHES)}")

    which = o.benches or (list(BENCHES) if o.device == "cuda" else ["nll", "generate"])

    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(o.threads)
    spec = prepared(o)
    bench = Bench(o, spec, spec.load_tokenizer(), matrix_peak(o.device, torch_dtype(o.dtype)))
    where = torch.cuda.get_device_name() if o.device == "cuda" else f"{o.threads} threads"
    print(f"{o.shape or Path(o.model).name}, {o.dtype}, {where}, matrix product {bench.peak / 1e12:.2f} TFLOP/s")
    head = f"{'work':34}{'s':>8}{'tokens/s':>10}{'of peak':>9}   "
    head += f"{'reference':26}{'s':>8}{'ratio':>7}{'CPU':>7}   agreement"
    print(head + "\n" + "-" * len(head))
    for name, pool in pools(o):
        for r in chain.from_iterable(BENCHES[one](bench, name, pool) for one in which):
            print(
                f"{r.work:34}{r.seconds:8.2f}{r.tokens / r.seconds:10.0f}{r.peak_share:9.0%}   "
                f"{r.reference:26}{r.reference_seconds:8.2f}{r.reference_seconds / r.seconds:7.2f}"
                f"{r.cpu_ratio:7.2f}   {r.agreement}"
            )
            sys.stdout.flush()
            if o.json:
                with o.json.open("a") as file:
                    file.write(json.dumps(asdict(r)) + "\n")


if __name__ == "__main__":
    main()
