"""The model in training: what selectors and evaluators see of it."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.cache import Cache, Lease, found, publish, set_aside
from dsel.component import identity
from dsel.distributed import is_main_process, wait_for_everyone, world_size
from dsel.files import read_json, write_json
from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.model.chat import encode, render
from dsel.model.generation import generate, generate_with_vllm, vllm_available
from dsel.model.likelihood import Encoded, mean_nll
from dsel.model.positions import within
from dsel.model.trial import try_template
from dsel.pool import Message, Pool
from dsel.trainer.base import Training
from dsel.trainer.checkpoints import OPTIMIZER
from dsel.trainer.sft import SFT

log = logging.getLogger(__name__)

TOKENS_A_BATCH = 8192  # padded tokens that `nll` scores at once


@dataclass(frozen=True)
class Fit:
    """One finetuning: the examples, how, and what came before it."""

    pool: Pool
    trainer: SFT
    training: Training
    before: Fit | None

    @property
    def history(self) -> list[dict[str, Any]]:
        """All that the model has learnt, in order: with the base model and the seed, what it is known by."""
        own = {"trainer": identity(self.trainer), "examples": self.pool.fingerprint, "part": list(self.training.part)}
        return [*([] if self.before is None else self.before.history), own]


class Learner:
    """Loads a model on first use, finetunes it with `fit`, and answers for it with `generate` and `nll`.

    What each `fit` learnt is kept in the cache until `forget`, so that a run killed later does not train again.
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
        self._fit: Fit | None = None  # the last one
        self._leases: dict[Path, Lease] = {}
        self._steps = 0  # in all fits before this one, for the training curve
        self._model: Any = None  # in memory, where somebody has asked for it

    @cached_property
    def tokenizer(self) -> Any:
        return self.spec.load_tokenizer()

    @property
    def model(self) -> Any:
        """The model as it stands, in evaluation mode."""
        if self._model is None:
            self._model = self._load(self._fit)
        return self._model.eval()

    @property
    def state(self) -> dict[str, Any]:
        """What identifies the model as it stands: part of the key of everything computed with it."""
        return self._key(self._fit)

    def try_on(self, pool: Pool, probes: Sequence[list[Message]] = ()) -> None:
        """Try the chat template on `pool` and `probes`. Raises `ConfigError` (`dsel.model.trial`)."""
        try_template(self.tokenizer, pool, name=self.spec.place, probes=probes)

    def fit(self, pool: Pool, training: Training | None = None) -> dict[str, float]:
        """Finetune on the examples of `pool`. `training` says for how long and from where.

        Returns what the trainer reports, and `cached` where an interrupted run had learnt it already.
        """
        training = training or Training()
        trainer = self.trainer if training.epochs is None else replace(self.trainer, epochs=training.epochs)
        fit = Fit(pool, trainer, training, None if training.restart else self._fit)
        place = self.cache.path("fits", self._key(fit))
        if is_main_process() and place not in self._leases:
            self._leases[place] = Lease(place)
        known = found(place)
        self._model = None
        self._folder(fit)
        self._fit = fit
        if training.part[0] > 1 and is_main_process():  # twice the model's size, and used up
            self._leases[self.cache.path("fits", self._key(fit.before))].drop(OPTIMIZER)
        outcome = read_json(place / "outcome.json")
        wait_for_everyone()  # the first process may forget what the others have not read yet
        self._steps += int(outcome["steps"])
        if known:
            log.info("training: reused what an interrupted run had learnt (%s)", place.name)
            outcome["cached"] = 1.0
        return outcome

    def forget(self) -> None:
        """Drop the trained weights from the cache, but those another run uses: the run that needed them is complete."""
        for lease in self._leases.values():
            lease.remove()
        self._leases.clear()

    def write(self, folder: Path, *, merge: bool = False) -> None:
        """Save the model (or its adapters, unless merged) and tokenizer as an ordinary folder of safetensors."""
        if not is_main_process():
            return
        model = self.model
        if merge and hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        self._write(model, folder)

    def _write(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)  # which adapters alone would leave out
        self.tokenizer.save_pretrained(folder)

    def generate(
        self,
        prompts: Sequence[list[Message]],
        *,
        max_new_tokens: int = 512,
        max_prompt: int = 2048,
        temperature: float = 0.0,
    ) -> list[str]:
        """The model's answer to each conversation, up to its end of turn; greedy at `temperature` 0, else drawn.

        By vLLM where it is installed and there is a GPU. See `dsel.model.generation` for the limits.
        """
        texts = [render(self.tokenizer, p, generation_prompt=True) for p in prompts]
        options = {
            "max_new_tokens": max_new_tokens, "max_prompt": max_prompt, "temperature": temperature, "seed": self.seed
        }  # fmt: skip
        if self.has_engine:
            return self._by_engine(texts, options)
        with self._precision():
            return generate(self.model, self.tokenizer, texts, **options)

    @property
    def has_engine(self) -> bool:
        """Whether `generate` starts an engine for each call, so that many prompts should come in one."""
        return vllm_available()

    def _by_engine(self, texts: list[str], options: dict[str, Any]) -> list[str]:
        """vLLM's answers. It reads the weights from their folder on this machine, and gets the GPU to itself."""
        import torch

        folder = None if self._fit is None else self._folder(self._fit)
        self._model = None
        torch.cuda.empty_cache()
        if folder is None or self.trainer.lora is not None:
            return generate_with_vllm(self.spec, self.tokenizer, texts, adapters=folder, **options)
        whole = replace(self.spec, path=str(folder))
        return generate_with_vllm(whole, self.tokenizer, texts, adapters=None, **options)

    def nll(
        self, conversations: Sequence[list[Message]], *, max_length: int = 2048, whole: bool = False
    ) -> npt.NDArray[np.float64]:
        """Mean loss over the tokens of the assistant turns of each conversation, in nats: float64[n].

        whole: over all tokens but the first, prompts and headers included. NaN where `max_length` leaves no such token.
        """
        most = within(max_length, self.model)
        encoded = [encode(self.tokenizer, messages, most) for messages in conversations]
        return self.losses([(ids, ids) for ids, _ in encoded] if whole else encoded)

    def losses(self, encoded: Sequence[Encoded]) -> npt.NDArray[np.float64]:
        """Mean loss over the labelled tokens of each text, in nats: float64[n], NaN for a text without any."""
        with self._precision():
            return mean_nll(self.model, encoded, tokens_a_batch=TOKENS_A_BATCH)

    def _key(self, fit: Fit | None) -> dict[str, Any]:
        known = {"model": identity(self.spec)}
        return known if fit is None else {**known, "seed": self.seed, "history": fit.history}

    def _folder(self, fit: Fit, needs: Sequence[str] = ()) -> Path:
        """Where the weights of `fit`, and the files it `needs`, are: trained now, unless they are there."""
        key = self._key(fit)
        if world_size() == 1:
            return self.cache.artifact("fits", key, partial(self._build, fit), needs=needs)[0]
        place = self.cache.path("fits", key)
        if not found(place, needs):  # every process takes part in training, so the first one alone has the lock
            with self.cache.lock(place, "fits") if is_main_process() else contextlib.nullcontext():
                if is_main_process():
                    set_aside(place)
                unfinished = place.with_suffix(".partial")
                unfinished.mkdir(parents=True, exist_ok=True)
                self._build(fit, unfinished)
                if is_main_process():
                    publish(unfinished, place, key)
                wait_for_everyone()
        return place

    def _build(self, fit: Fit, folder: Path) -> None:
        """Train, and save weights and outcome in `folder`.

        The model is then dropped: mixed precision has wrapped it, so it would not answer as the saved one does.
        """
        from accelerate.utils.memory import clear_device_cache

        earlier = None
        if fit.before is not None and fit.training.part[0] > 1:
            earlier = self._folder(fit.before, needs=(OPTIMIZER,))
        model = self._load(fit.before, trainer=fit.trainer)
        outcome = fit.trainer.train(
            model.train(),
            self.tokenizer,
            fit.pool,
            seed=self.seed + fit.training.part[0] - 1,
            bfloat16=self._mixed,
            folder=folder,
            report=lambda metrics, step: self.report(metrics, self._steps + step),
            part=fit.training.part,
            earlier=earlier,
        )
        model.config.use_cache = True
        if self.trainer.lora is None and not fit.training.goes_on:
            model.to(torch_dtype(self.spec.dtype))  # master weights were for training only
        if is_main_process():
            self._write(model, folder)
            write_json(folder / "outcome.json", outcome)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        del model
        clear_device_cache(garbage_collection=True)  # the trainer's objects hold each other, gradients and optimizer

    def _load(self, fit: Fit | None, *, trainer: SFT | None = None) -> Any:
        """The model after `fit` (None: the base model), ready for `trainer` or, without one, for being asked."""
        if fit is None and trainer is None:
            return self.spec.load(self.tokenizer)
        place = None if fit is None else self._folder(fit)
        if self.trainer.lora is not None:
            return self.trainer.load(self.spec, self.tokenizer, seed=self.seed, adapters=place)
        spec = self.spec if place is None else replace(self.spec, path=str(place))
        if trainer is not None:
            return trainer.load(spec, self.tokenizer, seed=self.seed)
        return spec.load(self.tokenizer, dtype=self.trainer.dtype if fit is not None and fit.training.goes_on else None)

    @property
    def _mixed(self) -> bool:
        """Whether matrix products run in bfloat16 whatever the weights are held in."""
        import torch

        return torch_dtype(self.spec.dtype) == torch.bfloat16

    def _precision(self) -> Any:
        """The precision a model is asked in: as in training where its weights are training's."""
        import torch

        if self._mixed and self._fit is not None and self._fit.training.goes_on:
            return torch.autocast(self.model.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()
