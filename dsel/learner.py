"""The model in training: what selectors and evaluators see of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsel.arrays import Floats
from dsel.cache import Cache
from dsel.engine.base import Engine
from dsel.engine.local import Local
from dsel.errors import ConfigError
from dsel.model.causal_lm import CausalLM
from dsel.model.likelihood import Encoded
from dsel.model.trial import try_template
from dsel.pool import Message, Pool
from dsel.snapshot import Snapshot
from dsel.spent import Spent
from dsel.trainer.base import Training
from dsel.trainer.checkpoints import MOMENTS
from dsel.trainer.job import Job, Report, export, outcome_of
from dsel.trainer.store import Fit, Trainings


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
        report: Report = lambda metrics, step: None,
        engine: Engine | None = None,
    ):
        self.spec = spec
        self.trainer = trainer
        self.cache = cache
        self.seed = seed
        self._tokenizer = tokenizer = functools.cache(spec.load_tokenizer)
        self.engine = engine = engine or Local()

        def train(job: Job, examples: Pool, folder: Path) -> None:  # without `self`, whose end is that of its leases
            engine.train(job, examples, tokenizer(), folder, report)

        self.trainings = Trainings(spec, trainer, cache, seed=seed, train=train)
        self._snapshot: Snapshot | None = None  # of the model as it stands, where somebody has asked for it

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer()

    @property
    def model(self) -> Any:
        """The model as it stands, in memory, in evaluation mode."""
        return self.snapshot().model

    def snapshot(self, *, moments: bool = False) -> Snapshot:
        """The model as it stands, as plain data that can be sent to other processes; until the next `fit` one object.

        moments: what the optimizer held after the last finetuning is to be in its folder.
        """
        if moments:
            self.trainings.folder(self._last(), needs=(MOMENTS,))
        if self._snapshot is None:
            last = self.trainings.last
            trained = () if last is None else (self.trainings.job(last), self.trainings.folder(last))
            self._snapshot = Snapshot(self.spec, self.seed, *trained)
            self._snapshot.tokenizer = self.tokenizer  # which is loaded once
        return self._snapshot

    @property
    def state(self) -> dict[str, Any]:
        """What identifies the model as it stands: part of the key of everything computed with it."""
        return self.trainings.key(self.trainings.last)

    def try_on(self, pool: Pool, probes: Sequence[list[Message]] = ()) -> None:
        """Raise `ConfigError` for a chat template or names of modules that do not suit, before anything is computed.

        Args:
            pool: What the template is tried on (`dsel.model.trial`).
            probes: Conversations of a method's own, which it is tried on too.
        """
        if self.trainer.lora is not None and self.spec.lora_targets != "all-linear":
            self.trainer.unweighted(self.spec)
        try_template(self.tokenizer, pool, name=self.spec.place, probes=probes)

    def fit(self, pool: Pool, training: Training | None = None) -> dict[str, float]:
        """Finetune on the examples of `pool`. `training` says for how long and from where.

        Returns what the trainer reports, and `cached` where an interrupted run had learnt it already.
        """
        self._snapshot = None
        return self.trainings.fit(pool, training or Training())

    @property
    def account(self) -> tuple[str, Spent | None]:
        """What the last `fit` is called in the cache and what it has cost, whoever did it; None where nobody knows."""
        return self.trainings.account

    def forget(self) -> None:
        """Drop the trained weights from the cache, but those another run uses: the run that needed them is complete."""
        self.trainings.forget()

    def write(self, folder: Path, *, merge: bool = False) -> None:
        """Save the model (or its adapters, unless merged) and tokenizer as an ordinary folder of safetensors."""
        export(lambda: self.model, self.tokenizer, folder, merge=merge)

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
        return self.snapshot().generate(
            prompts, max_new_tokens=max_new_tokens, max_prompt=max_prompt, temperature=temperature
        )

    def nll(
        self, conversations: Sequence[list[Message]], *, max_length: int = 2048, whole: bool = False
    ) -> npt.NDArray[np.float64]:
        """Mean loss over the tokens of the assistant turns of each conversation, in nats: float64[n].

        whole: over all tokens but the first, prompts and headers included. NaN where `max_length` leaves no such token.
        """
        return self.snapshot().nll(conversations, max_length=max_length, whole=whole)

    def losses(self, encoded: Sequence[Encoded]) -> npt.NDArray[np.float64]:
        """Mean loss over the labelled tokens of each text, in nats: float64[n], NaN for a text without any."""
        return self.snapshot().losses(encoded)

    def rate(self) -> float:
        """The mean learning rate of the last finetuning, where it was to keep its `moments`."""
        return float(outcome_of(self.trainings.folder(self._last()))["learning_rate"])

    def gradients(
        self,
        conversations: Sequence[list[Message]],
        *,
        dimensions: int | None = 8192,
        seed: int = 0,
        step: str | None = None,
        max_length: int = 2048,
    ) -> Floats:
        """The gradient of each conversation's mean loss over its responses, of LoRA's parameters: float32[n, d].

        The model stands as it is, without dropout; all gradients are in memory at once before they are projected.

        Args:
            conversations: n of them; one whose responses `max_length` cuts away has the gradient zero.
            dimensions: of a random projection of ±1, a multiple of 8; None leaves all parameters.
            seed: of the projection.
            step: instead of each gradient the step that Adam would take with it, from the moments that the last
                finetuning kept (`Training.moments`): as `paper` or `code` has it (`dsel.selector.less.adam_step`).
            max_length: tokens of a conversation.
        """
        snapshot = self.snapshot(moments=step is not None)
        return snapshot.gradients(conversations, dimensions=dimensions, seed=seed, step=step, max_length=max_length)

    def _last(self) -> Fit:
        if self.trainings.last is None:
            raise ConfigError("the model has not been finetuned yet: gradients are of LoRA's parameters")
        return self.trainings.last
