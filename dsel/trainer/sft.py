"""Supervised finetuning with TRL, of all weights or of LoRA adapters (PEFT), on one device or many."""

from __future__ import annotations

import ast
import importlib.util
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict

import numpy as np

from dsel.component import knob
from dsel.constraints import AtLeast, Below, Count, Dtype, NotNegative, Positive, Text, like
from dsel.distributed import device_of_process, first_says, is_main_process, mean_of_all, rank, world_size
from dsel.errors import ConfigError, need, need_package
from dsel.interrupt import held
from dsel.model import flops
from dsel.model.causal_lm import CausalLM, torch_dtype
from dsel.model.positions import within
from dsel.pool import Pool
from dsel.progress import progress
from dsel.trainer.checkpoints import CHECKPOINTS, resumable_trainer, save_state, saver
from dsel.trainer.examples import tokenized
from dsel.trainer.steps import Steps, keeps_apart
from dsel.trainer.strategy import ELEMENTWISE, SHARDED, Strategy, arguments

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

Schedule = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
]
USUAL = "adamw_torch_fused"  # an optimizer that needs no look at transformers' list of them
PROBE = 32  # tokens of two examples that show whether a model keeps the examples of a row apart


class LoRA(TypedDict):
    """Adapters: their rank, the numerator of what they are scaled by (alpha / rank), and the dropout before them."""

    rank: Count
    alpha: Positive
    dropout: Annotated[float, AtLeast(0), Below(1)]


@dataclass
class SFT:
    """One pass of finetuning (settings of Yu et al. 2024).

    batch_size: examples in one optimizer step of the whole job, whatever the number of devices; batch_tokens: tokens
    instead, to within an example. micro_batch_size: how many examples a device takes at once, at most. packing: they
    stand one after the other in rows that keep them apart, instead of being padded: steps and results are the same. A
    row has at most `max_length` tokens, and `micro_batch_size` times as many with flash attention, whose cost a longer
    row does not raise. warmup: a fraction of all steps when below 1, else steps.
    dtype: of the weights while training (null: the model's); below it, matrix products run in bfloat16 when the
    model's dtype is bfloat16. lora: rank, alpha and dropout of the adapters, or null to train all weights.
    quantization: `nf4` holds the frozen base weights in 4 bits (QLoRA). checkpoint_minutes: between two checkpoints,
    from which a killed training goes on. strategy: how the workers of the engine share a training: `single` is one of
    them, under `ddp` each has all weights, under `fsdp2` and `zero3` a piece; `auto` is the first of single, ddp and
    fsdp2 that uses all of them and fits. save: keep the trained model in the run folder as safetensors; merge: with the
    adapters folded into the weights.
    """

    libraries: ClassVar[tuple[str, ...]] = ("trl", "transformers", "peft", "torch")

    epochs: Positive = 3
    learning_rate: Positive = 2e-5
    batch_size: Count | None = 64
    batch_tokens: Count | None = None
    max_length: Count = 2048
    warmup: NotNegative = 0.03
    schedule: Schedule = "linear"
    weight_decay: NotNegative = 0.0
    max_grad_norm: NotNegative = 1.0
    optimizer: Text = USUAL
    dtype: Dtype | None = None
    lora: LoRA | None = None
    quantization: Literal["nf4"] | None = None
    micro_batch_size: Count = knob(4)
    packing: bool = knob(False)
    gradient_checkpointing: bool = knob(True)
    log_every: Count = knob(10)
    checkpoint_minutes: Positive = knob(20)
    strategy: Strategy = knob("auto")
    save: bool = knob(False)
    merge: bool = knob(False)

    trains = True

    def check(self) -> None:
        given = f"trainer.batch_size={self.batch_size} and trainer.batch_tokens={self.batch_tokens}"
        one = (self.batch_size is None) != (self.batch_tokens is None)
        need(one, f"{given}: give one, and null for the other")
        _check_optimizer(self.optimizer)
        need(
            self.batch_tokens is None or self.batch_tokens >= self.max_length,
            f"trainer.batch_tokens={self.batch_tokens}: must be at least trainer.max_length={self.max_length}, as an "
            "example may have",
        )
        need(self.quantization is None or self.lora is not None, "trainer.quantization needs trainer.lora: use qlora")
        fits = self.strategy != "zero3" or self.quantization is None
        need(fits, "trainer.strategy=zero3 cannot cut weights of 4 bits (nf4): use trainer.strategy=fsdp2 or ddp")
        need(
            self.strategy not in SHARDED or self.can_be_cut,
            f"trainer.strategy={self.strategy} cuts weights into pieces, and trainer.optimizer={self.optimizer} needs "
            f"whole ones: use {', '.join(ELEMENTWISE)}",
        )
        if self.strategy == "zero3":
            need_package("deepspeed", install="dsel[deepspeed]", why="trainer.strategy=zero3")
        if self.quantization:
            need_package("bitsandbytes", install="dsel[gpu]", why="trainer=qlora")

    @property
    def can_be_cut(self) -> bool:
        """Whether the optimizer can work on pieces of the weights."""
        return self.optimizer in ELEMENTWISE

    @property
    def sharded(self) -> bool:
        """Whether this process is one of several that have a piece of the weights each."""
        return self.strategy in SHARDED and world_size() > 1

    def load(self, model: CausalLM, tokenizer: Any, *, seed: int, start: Path | None = None) -> Any:
        """The model ready for `train`, as it was saved in the folder `start` or, without one, from its beginning.

        That is the base weights and, with `lora`, new adapters whose values follow `seed`.
        """
        import torch
        from transformers import set_seed

        set_seed(seed)

        quantization = None
        if self.quantization == "nf4":
            from transformers import BitsAndBytesConfig

            need(torch.cuda.is_available(), "trainer=qlora needs a CUDA GPU: use trainer=lora here")
            quantization = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch_dtype(model.dtype),
                bnb_4bit_quant_storage=torch_dtype(model.dtype) if self.sharded else torch.uint8,  # one type is cut
            )
        base = model if start is None or self.lora is not None else replace(model, path=str(start))
        loaded = base.load(tokenizer, dtype=self.dtype, quantization=quantization, sharded=self.sharded)
        if self.lora is None:
            return loaded
        from peft import PeftModel, prepare_model_for_kbit_training

        if quantization is not None:
            loaded = prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=self.gradient_checkpointing)
        if start is not None:
            return PeftModel.from_pretrained(loaded, start, is_trainable=True)
        return self._adapted(loaded, model)

    def unweighted(self, model: CausalLM) -> Any:
        """The modules that `load` would give, on torch's meta device: they take no memory, and no weights are read.

        Raises:
            ConfigError: adapters are to go to modules that the model has not.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = model.pretrained(AutoConfig)
        with torch.device("meta"):
            bare = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
            return bare if self.lora is None else self._adapted(bare, model)

    def _adapted(self, loaded: Any, model: CausalLM) -> Any:
        from peft import LoraConfig, get_peft_model

        assert self.lora is not None
        targets = model.lora_targets if isinstance(model.lora_targets, str) else list(model.lora_targets)
        config = LoraConfig(
            r=self.lora["rank"],
            lora_alpha=self.lora["alpha"],
            lora_dropout=self.lora["dropout"],
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        try:
            return get_peft_model(loaded, config)
        except ValueError as error:  # no module of that name
            raise ConfigError(f"model.lora_targets={targets}: {error}") from error

    def train(
        self,
        model: Any,
        tokenizer: Any,
        pool: Pool,
        *,
        seed: int,
        bfloat16: bool,
        folder: Path,
        report: Callable[[dict[str, float], int], None],
        part: tuple[int, int] = (1, 1),
        earlier: Path | None = None,
        checkpoint: str | None = None,
        moments: bool = False,
    ) -> dict[str, float]:
        """Finetune `model` in place on the examples of `pool`; returns counts and the mean training loss.

        `report(metrics, step)` is called as training goes on. `folder`/checkpoints gets checkpoints; `checkpoint` is
        the one that a killed training left there, whose weights `model` has, and after which this one begins. part:
        (i, m) for the i-th of m trainings with one optimizer and one schedule; their state is left in `folder` for the
        next one, which is given it as `earlier`. moments: it is left there in any case.
        """
        from transformers import PrinterCallback

        most = within(self.max_length, model)  # beyond its positions a model fails, or was never trained
        data, counts = tokenized(pool, tokenizer, most)
        if most < self.max_length and max(data["length"]) >= most:
            log.warning(
                "the model has %d positions: texts end there, not at trainer.max_length=%d", *(most, self.max_length)
            )
        row = self.row_tokens(str(model.config._attn_implementation))
        work = Steps(data, vars(self), row, seed, world_size(), rank())
        total = len(work)
        if self.warmup >= max(total * part[1], 1):
            peak = self.learning_rate * total * part[1] / self.warmup
            log.warning(
                "warm-up (%d steps) is longer than training (%d): the learning rate ends at %.2g instead of %.2g; set "
                "trainer.warmup to fewer steps, or to a fraction of them (trainer.warmup=0.03)",
                *(self.warmup, total * part[1], peak, self.learning_rate),
            )
        self._say(work, counts["tokens"], row)
        settings = self._settings(folder / CHECKPOINTS, seed, bfloat16, work)
        with progress("training", total=total, unit="steps") as advance:
            trainer = resumable_trainer(sharded=self.sharded)(
                model,
                args=settings,
                train_dataset=data,
                processing_class=tokenizer,
                callbacks=[_reporter(advance, report, total / work.in_epoch), saver(self.checkpoint_minutes)],
                work=work,
                part=part,
                earlier=earlier,
            )
            trainer.remove_callback(PrinterCallback)
            if self.packing:
                self._check_packing(model, data, trainer.data_collator, bfloat16)
            if checkpoint is not None:
                log.info("training: goes on from %s", Path(checkpoint).name)
            rate: dict[str, float] = {}
            with held():
                result = trainer.train(resume_from_checkpoint=checkpoint)
            if part[0] < part[1] or moments:
                rate["learning_rate"] = mean_rate(trainer.lr_scheduler, result.global_step)
                save_state(trainer.optimizer, trainer.lr_scheduler, trainer.model.named_parameters(), folder)
        passes = work.tokens()
        return {
            "examples": len(data),
            **counts,
            **rate,
            "tokens_in_all": passes,
            "flops": flops.training(model, passes, again=self.gradient_checkpointing),
            "steps": result.global_step,
            "loss": mean_of_all(_mean_loss(trainer.state.log_history, checkpoint, result)),  # each knows its own
        }

    def row_tokens(self, attention: str) -> int:
        """The most tokens of a packed row."""
        return self.max_length * (self.micro_batch_size if any(a in attention for a in ("flash", "flex")) else 1)

    def _say(self, work: Steps, tokens: int, row: int) -> None:
        examples = len(work.data)
        if self.batch_size:
            each = f"{min(self.batch_size, examples):,} examples"
        else:
            each = f"{self.batch_tokens:,} tokens ({examples / work.in_epoch:.1f} examples on average)"
        if self.packing:
            how = f"an epoch is {work.rows():,} packed rows of at most {row:,} tokens"
        else:
            how = f"at most {self.micro_batch_size} at once on a device"
        devices = f"; {world_size()} workers ({self.strategy})" if world_size() > 1 else ""
        log.info(
            "training on %s examples (%s tokens): %s steps of %s, %s%s",
            *(f"{examples:,}", f"{tokens:,}", f"{len(work):,}", each, how, devices),
        )

    def _check_packing(self, model: Any, data: Dataset, collate: Any, bfloat16: bool) -> None:
        """Raises `ConfigError` when the examples of a row would read each other."""
        attention, instead = str(model.config._attn_implementation), "use trainer.packing=false"
        if self.sharded and "flash" in attention:  # it does, and does not run where the weights are yet
            return
        if self.sharded and self.strategy == "zero3":  # a piece of a model cannot be asked
            raise ConfigError(f"trainer.packing under trainer.strategy=zero3 needs flash attention: {instead}")
        first, second = (data[i]["input_ids"][:PROBE] for i in (0, -1))
        asked = is_main_process() or not self.sharded  # else the weights are not here
        apart = asked and keeps_apart(model, first, second, collate, bfloat16=bfloat16)
        mixes = f"trainer.packing: with {attention} attention this model mixes the examples of a row: {instead}"
        need(first_says(apart), mixes)
        if model.device.type == "cuda" and "flash" not in attention:
            text = "packing without flash attention may be slower than padding: %s compares all tokens of a row"
            log.warning(text, attention)

    def _settings(self, folder: Path, seed: int, bfloat16: bool, work: Steps) -> Any:
        from trl import SFTConfig

        settings = SFTConfig(
            output_dir=str(folder),
            max_steps=len(work),
            learning_rate=self.learning_rate,
            per_device_train_batch_size=math.ceil(len(work.data) / work.in_epoch / world_size()),  # for its rates only
            dataset_kwargs={"skip_prepare_dataset": True},
            warmup_steps=self.warmup,
            lr_scheduler_type=self.schedule,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            optim=self.optimizer,
            gradient_checkpointing=self.gradient_checkpointing,
            **arguments(self.strategy if world_size() > 1 else "single", bfloat16=bfloat16),
            use_cpu=device_of_process().type == "cpu",
            seed=seed,
            logging_steps=self.log_every,
            save_strategy="no",  # by steps, that is: by the clock instead (`saver`)
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device_of_process().type == "cuda",
        )
        if settings.n_gpu > 1:  # one is this process's, whatever else it sees
            settings._n_gpu = 1
        return settings


def _mean_loss(history: list[dict[str, float]], checkpoint: str | None, result: Any) -> float:
    """The mean over all steps: the library's covers those since the checkpoint, whose history has the ones before."""
    start = 0 if checkpoint is None else int(checkpoint.rsplit("-", 1)[1])
    logged = [(row["step"], row["loss"]) for row in history if "loss" in row and row["step"] <= start]
    sizes = np.diff([0, *(step for step, _ in logged)])
    before = float(np.dot(sizes, [loss for _, loss in logged]))
    return (before + result.training_loss * (result.global_step - start)) / result.global_step


def mean_rate(scheduler: Any, steps: int) -> float:
    """The mean learning rate of the last so many steps, of all parts of a training those of this one."""
    own = getattr(scheduler, "scheduler", scheduler)
    last: int = own.last_epoch
    return float(own.base_lrs[0] * np.mean([own.lr_lambdas[0](step) for step in range(last - steps, last)]))


def _reporter(advance: Callable[[int], None], report: Callable[[dict[str, float], int], None], epochs: float) -> Any:
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        """Moves the progress bar and hands the training curve on."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            advance(state.global_step)  # of a training that goes on

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            advance(1)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kw: Any) -> None:
            if state.is_world_process_zero:
                numbers = {k: float(v) for k, v in (logs or {}).items()}
                if "epoch" in numbers:
                    numbers["epoch"] *= epochs  # the library knows one epoch: all steps
                if "loss" in numbers:
                    log.info(
                        "step %d/%d: loss %.4f, learning rate %.2g",
                        *(state.global_step, state.max_steps, numbers["loss"], numbers["learning_rate"]),
                    )
                report(numbers, state.global_step)

    return Reporter()


def _check_optimizer(name: str) -> None:
    if name != USUAL:
        known, near = optimizers(), like(name, optimizers())
        need(name in known, f"trainer.optimizer={name}: wants one of transformers' {', '.join(known)}{near}")


@cache
def optimizers() -> list[str]:
    """The optimizers that the installed transformers knows, read from its source: to import it takes seconds."""
    found = importlib.util.find_spec("transformers")
    assert found is not None and found.submodule_search_locations
    source = Path(found.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    names = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "OptimizerNames"
    )
    values = (node.value for node in names.body if isinstance(node, ast.Assign))
    return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
