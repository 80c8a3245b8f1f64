"""vLLM: one engine a process, which stays from one call to the next and is given the weights of each.

The engine is a process of its own (of several GPUs with `model.tensor_parallel`), so that nothing of it is in this one.
Between calls it sleeps where it can, on a GPU: its memory is free then, for a training or another model. Adapters are
handed over as they are; new weights of all layers are read into the layers that are there.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from dsel.distributed import lead
from dsel.errors import ConfigError, need
from dsel.hub import reason
from dsel.model import flops
from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.model.chat import end_tokens
from dsel.model.generation import prompt_ids, text_of_answer
from dsel.model.vllm_here import available, on_cpu
from dsel.progress import progress

log = logging.getLogger(__name__)

BACKENDS = {"flash_attention": "FLASH_ATTN", "flex_attention": "FLEX_ATTENTION"}  # transformers' names and vLLM's
LORA_RANKS = (8, 16, 32, 64, 128, 256, 512)  # what vLLM makes room for
WORKER = "dsel.model.vllm_worker.Worker"
SHARE = 0.9  # of a GPU's memory, that an engine takes while it is awake
CPU_CACHE = 4 << 30  # bytes of keys and values on a CPU, unless VLLM_CPU_KVCACHE_SPACE says otherwise
SETTINGS = {  # of the environment, where it does not say otherwise
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would have the threads and the device of this process
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS says how many: another worker may be beside it
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(eq=False)
class Running:
    """An engine. options: what it was started with. weights: the folder that it has read, None for the model's own.

    adapters: the numbers that folders of adapters are known by to it.
    """

    llm: Any
    options: dict[str, Any]
    weights: Path | None
    adapters: dict[Path, int] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where the model is that it has: a folder, or the hub's id."""
        return str(self.weights or self.options["model"])

    @property
    def sleeps(self) -> bool:
        return bool(self.options["enable_sleep_mode"])

    @property
    def limit(self) -> int:
        """Tokens of a prompt with its answer."""
        return int(self.llm.llm_engine.model_config.max_model_len)

    def ends(self, tokenizer: Any) -> list[int]:
        """The tokens that end an answer: those of `dsel.model.chat.end_tokens`, and of the generation configuration."""
        from transformers import GenerationConfig

        revision = self.options["revision"] or "main"
        try:
            known = GenerationConfig.from_pretrained(self.folder, revision=revision, local_files_only=True).eos_token_id
        except OSError:  # it has none
            known = None
        return end_tokens(tokenizer, known)


_running: Running | None = None  # of this process


def chosen(model: CausalLM) -> bool:
    """Whether the answers of `model` are vLLM's (`model.vllm`)."""
    return model.vllm != "never" and available(cpu=model.vllm == "always")


@contextmanager
def engine(
    model: CausalLM, *, weights: Path | None = None, adapters: Path | None = None
) -> Iterator[tuple[Running, Any]]:
    """The engine of this process with these weights, awake until the end of the block, and its request for adapters.

    It is started where there is none, or one of another model; else its weights are exchanged. The GPU must be free:
    move other models away first. An error inside ends it, as nobody knows what it still has to do.

    Args:
        model: of the hub, or in a folder as `save_pretrained` writes it.
        weights: a folder with other weights of this model, all of them.
        adapters: a folder of LoRA's adapters (PEFT), which the model itself is read for.
    """
    global _running
    wanted = options(model) | ({} if adapters is None else _room_for(adapters))
    if _running is not None and not _fits(_running, wanted, weights):
        close()
    new = _running is None
    if _running is None:
        _running = _start(wanted, model, weights)
    try:
        if _running.sleeps and not new:
            _running.llm.wake_up()
        if _running.weights != weights:
            _running.llm.collective_rpc("exchange_weights", args=(str(weights),))
            _running.llm.reset_prefix_cache()  # what it knows of prompts is the other weights'
            _running.weights = weights
        yield _running, None if adapters is None else _request(_running, adapters)
        if _running.sleeps:
            _running.llm.sleep(level=1)
    except BaseException:
        close()
        raise


def close() -> None:
    """End the engine of this process, if there is one."""
    global _running
    ended, _running = _running, None
    if ended is not None:
        ended.llm.llm_engine.engine_core.shutdown()


def generate(model: CausalLM, tokenizer: Any, texts: Sequence[str], **options: Any) -> list[str]:
    """What `dsel.model.generation.generate` gives, from the engine; `options` as of `tokens_of_answers`."""
    return [text_of_answer(tokenizer, ids, ()) for ids in tokens_of_answers(model, tokenizer, texts, **options)]


def tokens_of_answers(
    model: CausalLM,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    weights: Path | None = None,
    adapters: Path | None = None,
    max_new_tokens: int = 512,
    max_prompt: int = 2048,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """The tokens of the answer to each rendered prompt, up to the one that ends it.

    Sampled answers follow `seed` and the index of their prompt. A prompt with its answer has no more tokens than the
    model has positions: of a longer prompt the end is kept. model, weights, adapters: as of `engine`.
    """
    if not texts:
        return []
    bar = progress("generating", total=len(texts), unit="answers")
    with bar as advance, engine(model, weights=weights, adapters=adapters) as (running, request):
        from vllm import SamplingParams  # type: ignore[import-not-found]

        prompts = prompt_ids(tokenizer, texts, min(max_prompt, max(1, running.limit - max_new_tokens)))
        ends = running.ends(tokenizer)
        common = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens, "stop_token_ids": ends}
        seeds = np.random.SeedSequence(seed).generate_state(len(prompts)).tolist()
        settings = [SamplingParams(**common, seed=own if temperature else None) for own in seeds]
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        outputs = running.llm.generate(asked, settings, lora_request=request, use_tqdm=False)
        advance(len(texts))
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    if (modules := flops.unweighted(model)) is not None:
        flops.read(modules, sum(map(len, prompts)) + sum(map(len, answers)))
    return [list(takewhile(lambda token: token not in ends, answer)) for answer in answers]


def options(model: CausalLM) -> dict[str, Any]:
    """What vLLM's `LLM` is told, so that it loads `model` as transformers does here.

    Prompts come to it as token ids and answers go as such, so that chat template and padding token have no part in it.
    transformers' `sdpa` and `eager` are kinds that it has not: it then takes its own choice for the hardware.
    """
    backend = next((theirs for ours, theirs in BACKENDS.items() if ours in model.attention), None)
    revision = model.revision if model.path is None else None
    cpu = on_cpu()
    return {
        "model": model.place,
        "revision": revision,
        "tokenizer": model.place,
        "tokenizer_revision": revision,
        "trust_remote_code": model.trust_remote_code,
        "dtype": str(torch_dtype(model.dtype)).removeprefix("torch."),
        "load_format": "auto" if model.allow_bin else "safetensors",  # `auto` takes .bin files where it has to
        "tensor_parallel_size": model.tensor_parallel,
        "max_model_len": -1,  # the model's positions, or what there is memory for
        "worker_extension_cls": WORKER,
        "enable_sleep_mode": not cpu,
        **({"kv_cache_memory_bytes": CPU_CACHE, "enforce_eager": True} if cpu else {"gpu_memory_utilization": SHARE}),
        **({} if backend is None else {"attention_backend": backend}),
    }


def _start(wanted: dict[str, Any], model: CausalLM, weights: Path | None) -> Running:
    """A new engine, in `SETTINGS`. Raises `ConfigError` where there is none to be had."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    lead()
    from vllm import LLM

    log.info("vLLM starts an engine for %s", model.place)
    try:
        llm = LLM(**wanted | ({} if weights is None else {"model": str(weights), "revision": None}))
    except (RuntimeError, ValueError) as error:  # of memory that is not free, a model that it does not know
        raise ConfigError(
            f"vLLM cannot start an engine for {model.place} ({reason(error)}); what it said itself is above; "
            "model.vllm=never does without"
        ) from error
    atexit.register(close)
    return Running(llm, wanted, weights)


def _fits(running: Running, wanted: dict[str, Any], weights: Path | None) -> bool:
    """Whether an engine can do what is wanted; one with room for adapters answers without them as well."""
    same = all(running.options.get(name) == value for name, value in wanted.items())
    return same and (running.weights == weights or weights is not None)


def _room_for(adapters: Path) -> dict[str, Any]:
    """What an engine is told so that it has room for adapters in the layers where these are, and in no others."""
    from safetensors import safe_open

    rank = json.loads((adapters / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    with safe_open(str(adapters / "adapter_model.safetensors"), framework="np") as tensors:
        layers = {name.split(".lora_")[0].rpartition(".")[2] for name in tensors.keys()}  # noqa: SIM118 (no mapping)
    need(rank <= LORA_RANKS[-1], f"vLLM's adapters have ranks up to {LORA_RANKS[-1]}, not {rank}: set model.vllm=never")
    need(
        not (on_cpu() and "lm_head" in layers),
        "vLLM's build for CPUs has no adapters of the output layer: leave lm_head out of model.lora_targets",
    )
    return {
        "enable_lora": True,
        "max_lora_rank": min(r for r in LORA_RANKS if r >= rank),
        "lora_target_modules": sorted(layers),
    }


def _request(running: Running, adapters: Path) -> Any:
    """What the engine is told of adapters. Those of another folder have another number, by which it knows them."""
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    number = running.adapters.setdefault(adapters, len(running.adapters) + 1)
    return LoRARequest(f"adapters-{number}", number, str(adapters))
