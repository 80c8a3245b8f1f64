"""The model in training: what selectors and evaluators see of it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.cache import Cache
from dsel.component import identity
from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.model.chat import encode, render
from dsel.model.likelihood import mean_nll
from dsel.pool import Message, Pool
from dsel.trainer.sft import SFT, world_size

log = logging.getLogger(__name__)

TOKENS_A_BATCH = 8192  # padded tokens that `nll` scores at once


class Learner:
    """Loads a model on first use, finetunes it with `fit`, and answers for it with `generate` and `nll`.

    What `fit` learnt is kept in the cache until `forget`, so that a run killed after training does not train again.
    """

    def __init__(
        self,
        spec: CausalLM,
        trainer: Any,
        cache: Cache,
        *,
        seed: int,
        report: Callable[[dict[str, float], int], None] = lambda metrics, step: None,
    ):
        self.spec = spec
        self.trainer = trainer
        self.cache = cache
        self.seed = seed
        self.report = report
        self._fitted: list[str] = []  # fingerprints of what the model was trained on, in order
        self._model: Any = None

    @cached_property
    def tokenizer(self) -> Any:
        return self.spec.load_tokenizer()

    @property
    def model(self) -> Any:
        """The model as it stands, in evaluation mode."""
        if self._model is None:
            tokenizer = self.tokenizer
            self._model = self.spec.load(tokenizer)
        return self._model.eval()

    def fit(self, pool: Pool) -> dict[str, float]:
        """Finetune on the examples of `pool`, from where the model stands. Returns what the trainer reports."""
        self._fitted.append(pool.fingerprint)
        tokenizer = self.tokenizer
        saved = self.cache.path("fits", self._key())
        if saved.is_dir():
            log.info("training: reused what an interrupted run had learnt (%s)", saved.name)
            self._model = self._restore(saved)
            return {"cached": 1.0}
        if self._model is None:
            self._model = self.trainer.load(self.spec, tokenizer, seed=self.seed)
        outcome: dict[str, float] = {}

        def build(folder: Path) -> None:
            outcome.update(self._train(pool, folder))
            self.write(folder)

        if world_size() == 1:
            self.cache.artifact("fits", self._key(), build)
        else:  # every process takes part in training: none may wait for a lock that another holds
            outcome.update(self._train(pool, saved.with_suffix(".distributed")))
        return outcome

    def forget(self) -> None:
        """Drop the trained weights from the cache: the run that needed them is complete."""
        shutil.rmtree(self.cache.path("fits", self._key()), ignore_errors=True)

    def write(self, folder: Path, *, merge: bool = False) -> None:
        """Save the model (or its adapters, unless merged) and tokenizer as an ordinary folder of safetensors."""
        model = self.model
        if merge and hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def generate(
        self, prompts: Sequence[list[Message]], *, max_new_tokens: int = 512, batch_size: int = 32
    ) -> list[str]:
        """The model's greedy answer to each conversation, up to its end of turn."""
        import torch

        texts = [render(self.tokenizer, p, generation_prompt=True) for p in prompts]
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        answers = [""] * len(texts)
        self.tokenizer.padding_side = "left"
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                batch = self.tokenizer(
                    [texts[i] for i in rows], padding=True, add_special_tokens=False, return_tensors="pt"
                ).to(self.model.device)
                batch.pop("token_type_ids", None)
                out = self.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
                new = out[:, batch["input_ids"].shape[1] :]
                for i, text in zip(rows, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                    answers[i] = text.strip()
        return answers

    def nll(self, conversations: Sequence[list[Message]], *, max_length: int = 2048) -> npt.NDArray[np.float64]:
        """Mean loss over the tokens of the assistant turns of each conversation, in nats: float64[n].

        NaN where `max_length` leaves no such token.
        """
        encoded = [encode(self.tokenizer, messages, max_length) for messages in conversations]
        return mean_nll(self.model, encoded, tokens_a_batch=TOKENS_A_BATCH)

    def _train(self, pool: Pool, folder: Path) -> dict[str, float]:
        import torch

        wanted = torch_dtype(self.spec.dtype)
        outcome = self.trainer.train(
            self._model.train(),
            self.tokenizer,
            pool,
            seed=self.seed,
            bfloat16=wanted == torch.bfloat16,
            folder=folder / "trainer",
            report=self.report,
        )
        shutil.rmtree(folder / "trainer", ignore_errors=True)
        self._model.config.use_cache = True
        if self.trainer.lora is None:
            self._model.to(wanted)  # master weights were for training only
        return outcome

    def _restore(self, folder: Path) -> Any:
        if self.trainer.lora is None:
            return replace(self.spec, path=str(folder)).load(self.tokenizer)
        return self.trainer.load(self.spec, self.tokenizer, seed=self.seed, adapters=folder)

    def _key(self) -> dict[str, Any]:
        trainer: SFT = self.trainer
        return {
            "model": identity(self.spec),
            "trainer": identity(trainer),
            "seed": self.seed,
            "fitted": self._fitted,
        }
