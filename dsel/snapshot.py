"""The model as it stands: plain data that says how it is loaded, and what answers for it once it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.arrays import Floats
from dsel.model import vllm
from dsel.model.causal_lm import CausalLM
from dsel.model.chat import encode, render
from dsel.model.generation import generate
from dsel.model.likelihood import Encoded, mean_nll
from dsel.model.positions import within
from dsel.pool import Message
from dsel.trainer.checkpoints import moments
from dsel.trainer.job import Job, load

ADAPTERS = "adapter_model.safetensors"  # PEFT's
TOKENS_A_BATCH = 8192  # padded tokens that `nll` scores at once


@dataclass
class Snapshot:
    """A model between two trainings. Whoever has it, here or elsewhere, loads it once, when it is first asked.

    spec: the base model; where it builds itself, it has been. seed: of answers that are drawn. job, folder: the last
    training and what it left, None before any. What its methods give is said of those of `dsel.learner.Learner`.
    """

    spec: CausalLM
    seed: int
    job: Job | None = None
    folder: Path | None = None

    @cached_property
    def tokenizer(self) -> Any:
        return self.spec.load_tokenizer()

    @cached_property
    def model(self) -> Any:
        """The model in memory, in evaluation mode."""
        if self.job is None or self.folder is None:
            return self.spec.load(self.tokenizer).eval()
        return load(self.job, self.tokenizer, self.folder).eval()

    def generate(
        self,
        prompts: Sequence[list[Message]],
        *,
        max_new_tokens: int = 512,
        max_prompt: int = 2048,
        temperature: float = 0.0,
    ) -> list[str]:
        texts = [render(self.tokenizer, p, generation_prompt=True) for p in prompts]
        options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens, "max_prompt": max_prompt, "temperature": temperature, "seed": self.seed
        }  # fmt: skip
        if self.has_engine:
            return vllm.generate(self.spec, self.tokenizer, texts, **self._to_read(), **options)
        with self._precision():
            return generate(self.model, self.tokenizer, texts, **options)

    @property
    def has_engine(self) -> bool:
        """Whether `generate` asks an engine, which answers hundreds of prompts at once."""
        return vllm.chosen(self.spec)

    def engine(self) -> AbstractContextManager[tuple[vllm.Running, Any]]:
        """vLLM's engine with the model as it stands: see `dsel.model.vllm.engine`."""
        return vllm.engine(self.spec, **self._to_read())

    def _to_read(self) -> dict[str, Any]:
        """The folder that vLLM reads what was trained from: of all weights, or adapters. The GPU is freed for it."""
        import torch

        self.__dict__.pop("model", None)
        torch.cuda.empty_cache()
        lora = self.job is not None and self.job.trainer.lora is not None
        return {"adapters": self.folder} if lora else {"weights": self.folder}

    def nll(
        self, conversations: Sequence[list[Message]], *, max_length: int = 2048, whole: bool = False
    ) -> npt.NDArray[np.float64]:
        most = within(max_length, self.model)
        encoded = [encode(self.tokenizer, messages, most) for messages in conversations]
        return self.losses([(ids, ids) for ids, _ in encoded] if whole else encoded)

    def losses(self, encoded: Sequence[Encoded]) -> npt.NDArray[np.float64]:
        with self._precision():
            return mean_nll(self.model, encoded, tokens_a_batch=TOKENS_A_BATCH)

    @property
    def parameters(self) -> int:
        """How many numbers are trained in the model as it stands; at least one. Of adapters their file says so."""
        from dsel.model.gradients import trained

        if "model" not in vars(self) and self.folder is not None and (self.folder / ADAPTERS).exists():
            return max(1, numbers(self.folder / ADAPTERS))
        return max(1, sum(trained(self.model).values()))

    def gradients(
        self,
        conversations: Sequence[list[Message]],
        *,
        dimensions: int | None = 8192,
        seed: int = 0,
        step: str | None = None,
        max_length: int = 2048,
    ) -> Floats:
        from dsel.model.gradients import Projection, adam_steps, per_example, trained

        most = within(max_length, self.model)
        encoded = [encode(self.tokenizer, messages, most) for messages in conversations]
        sizes = trained(self.model)
        kept = None if step is None or self.folder is None else moments(self.folder)
        found: Any = None
        with self._precision():
            for rows, values in per_example(self.model, encoded, tokens_a_batch=TOKENS_A_BATCH):
                found = values.new_empty(len(encoded), values.shape[1]) if found is None else found
                found[rows] = values if kept is None else adam_steps(values, kept, sizes, eps=step or "paper")
        if dimensions is not None:
            found = Projection(sum(sizes.values()), dimensions, seed)(found)
        return np.asarray(found.cpu().numpy(), dtype=np.float32)

    def _precision(self) -> Any:
        """The precision a model is asked in: as in training where its weights are training's."""
        import torch

        if self.job is not None and self.job.goes_on and self.job.mixed:
            return torch.autocast(self.model.device.type, dtype=torch.bfloat16)
        return nullcontext()


def numbers(file: Path) -> int:
    """How many numbers the tensors of a safetensors file have, by its header."""
    from safetensors import safe_open

    with safe_open(str(file), framework="np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 (no mapping)
