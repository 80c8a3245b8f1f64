"""Supervised finetuning with TRL, of all weights or of LoRA adapters (PEFT), on one device or many."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsel.component import knob
from dsel.errors import ConfigError, need, need_package
from dsel.model.causal_lm import CausalLM, device_of_process, torch_dtype
from dsel.model.chat import IGNORED, Refused, encodings
from dsel.model.positions import within
from dsel.pool import Message, Pool
from dsel.progress import progress
from dsel.trainer.checkpoints import last_checkpoint, resumable_trainer, save_state, saver

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


@dataclass
class SFT:
    """One pass of finetuning (settings of Yu et al. 2024: method.md §5).

    batch_size: examples in one optimizer step of the whole job, whatever the number of devices; micro_batch_size: how
    many of them a device takes at once, at most. warmup: a fraction of all steps when below 1, else steps.
    dtype: of the weights while training (null: the model's); below it, matrix products run in bfloat16 when the
    model's dtype is bfloat16. lora: rank, alpha and dropout of the adapters, or null to train all weights.
    quantization: `nf4` holds the frozen base weights in 4 bits (QLoRA). checkpoint_minutes: between two checkpoints,
    from which a killed training goes on. save: keep the trained model in the run
    folder as safetensors; merge: with the adapters folded into the weights.
    """

    epochs: float = 3
    learning_rate: float = 2e-5
    batch_size: int = 64
    max_length: int = 2048
    warmup: float = 0.03
    schedule: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw_torch_fused"
    dtype: str | None = None
    packing: bool = False
    lora: Mapping[str, Any] | None = None
    quantization: str | None = None
    micro_batch_size: int = knob(4)
    gradient_checkpointing: bool = knob(True)
    log_every: int = knob(10)
    checkpoint_minutes: float = knob(20)
    save: bool = knob(False)
    merge: bool = knob(False)

    trains = True

    def check(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "micro_batch_size", "max_length", "checkpoint_minutes"):
            need(getattr(self, name) > 0, f"trainer.{name}={getattr(self, name)}: must be above 0")
        accumulation(self.batch_size, self.micro_batch_size, world_size())
        need(self.quantization in (None, "nf4"), f"trainer.quantization={self.quantization}: give nf4 or null")
        need(self.quantization is None or self.lora is not None, "trainer.quantization needs trainer.lora: use qlora")
        if self.quantization:
            need_package("bitsandbytes", extra="gpu", why="trainer=qlora")

    def load(self, model: CausalLM, tokenizer: Any, *, seed: int, adapters: Path | None = None) -> Any:
        """The model ready for `train`: base weights, and new adapters (their values follow `seed`) or saved ones."""
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
            )
        loaded = model.load(tokenizer, dtype=self.dtype, quantization=quantization)
        if self.lora is None:
            return loaded
        from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

        if quantization is not None:
            loaded = prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=self.gradient_checkpointing)
        if adapters is not None:
            return PeftModel.from_pretrained(loaded, adapters, is_trainable=True)
        targets = model.lora_targets if isinstance(model.lora_targets, str) else list(model.lora_targets)
        config = LoraConfig(
            r=self.lora["rank"],
            lora_alpha=self.lora["alpha"],
            lora_dropout=self.lora["dropout"],
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        return get_peft_model(loaded, config)

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
    ) -> dict[str, float]:
        """Finetune `model` in place on the examples of `pool`; returns counts and the mean training loss.

        `report(metrics, step)` is called as training goes on. `folder`/checkpoints is where a killed training left its
        last step and this one begins; the caller removes it when the model is safe. part: (i, m) for the i-th of m
        trainings with one optimizer and one schedule; their state is left in `folder` for the next one, which is given
        it as `earlier`. Raises `ConfigError` for parts of a model that is sharded over the processes: each of them
        knows a piece of the optimizer's state only, which is why there are no checkpoints either.
        """
        from transformers import PrinterCallback

        need(part[1] == 1 or not sharded(), "a training in parts needs whole optimizers: no FSDP, no DeepSpeed")
        most = within(self.max_length, model)  # beyond its positions a model fails, or was never trained
        data, tokens = tokenized(pool, tokenizer, most)
        if most < self.max_length and max(map(len, data["input_ids"])) >= most:
            log.warning(
                "the model has %d positions: texts end there, not at trainer.max_length=%d", *(most, self.max_length)
            )
        micro, steps = accumulation(self.batch_size, self.micro_batch_size, world_size())
        total = self._steps(len(data))
        if self.warmup >= max(total * part[1], 1):
            peak = self.learning_rate * total * part[1] / self.warmup
            log.warning(
                "warm-up (%d steps) is longer than training (%d): the learning rate ends at %.2g instead of %.2g",
                *(self.warmup, total * part[1], peak, self.learning_rate),
            )
        log.info(
            "training on %d examples: %d a step = %d devices × %d × %d accumulated",
            *(len(data), self.batch_size, world_size(), micro, steps),
        )
        checkpoints = folder / "checkpoints"
        settings = self._settings(checkpoints, seed, bfloat16, micro, steps)
        with progress("training", total=None if self.packing else total, unit="steps") as advance:
            try:
                trainer = resumable_trainer()(
                    model,
                    args=settings,
                    train_dataset=data,
                    processing_class=tokenizer,
                    callbacks=[_reporter(advance, report), *([] if sharded() else [saver(self.checkpoint_minutes)])],
                    part=part,
                    earlier=earlier,
                )
            except ValueError as error:
                if "DataParallel" in str(error):
                    hint = "launch with torchrun --nproc_per_node=N -m dsel.run …, or make one visible"
                    raise ConfigError(f"several GPUs are visible to one process: {hint}") from error
                raise
            trainer.remove_callback(PrinterCallback)
            checkpoint = None if sharded() else last_checkpoint(checkpoints)
            if checkpoint is not None:
                log.info("training: goes on from %s", Path(checkpoint).name)
            if is_main_process():  # those cut short would stand in the way of new ones
                for other in checkpoints.glob("checkpoint-*"):
                    if str(other) != checkpoint:
                        shutil.rmtree(other, ignore_errors=True)
            result = trainer.train(resume_from_checkpoint=checkpoint)
            if part[0] < part[1] and trainer.is_world_process_zero():
                save_state(trainer.optimizer, trainer.lr_scheduler, folder)
        return {
            "examples": len(data),
            "tokens": tokens,
            "steps": result.global_step,
            "loss": _mean_loss(trainer.state.log_history, checkpoint, result),
        }

    def _steps(self, examples: int) -> int:
        return math.ceil(-(-examples // self.batch_size) * self.epochs)

    def _settings(self, folder: Path, seed: int, bfloat16: bool, micro: int, accumulated: int) -> Any:
        from trl import SFTConfig

        return SFTConfig(
            output_dir=str(folder),
            num_train_epochs=self.epochs,
            learning_rate=self.learning_rate,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=accumulated,
            max_length=self.max_length,
            warmup_steps=self.warmup,
            lr_scheduler_type=self.schedule,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            optim=self.optimizer,
            packing=self.packing,
            gradient_checkpointing=self.gradient_checkpointing,
            bf16=bfloat16,
            use_cpu=device_of_process().type == "cpu",
            seed=seed,
            logging_steps=self.log_every,
            save_strategy="no",  # by steps, that is: by the clock instead (`saver`)
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device_of_process().type == "cuda",
        )


def _mean_loss(history: list[dict[str, float]], checkpoint: str | None, result: Any) -> float:
    """The mean over all steps: the library's covers those since the checkpoint, whose history has the ones before."""
    start = 0 if checkpoint is None else int(checkpoint.rsplit("-", 1)[1])
    logged = [(row["step"], row["loss"]) for row in history if "loss" in row and row["step"] <= start]
    sizes = np.diff([0, *(step for step, _ in logged)])
    before = float(np.dot(sizes, [loss for _, loss in logged]))
    return (before + result.training_loss * (result.global_step - start)) / result.global_step


def world_size() -> int:
    """Number of processes of this job, one a device, as the launcher (torchrun, accelerate) says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharded() -> bool:
    """Whether weights and optimizer are spread over the processes (FSDP, DeepSpeed), as `accelerate launch` says."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_everyone() -> None:
    """Return when every process of this job has come here."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def accumulation(batch_size: int, micro_batch_size: int, devices: int) -> tuple[int, int]:
    """(examples a device takes at once, how often it accumulates), so that a step is `batch_size` examples exactly.

    The first is the largest divisor of batch_size / devices that is at most `micro_batch_size`. Raises `ConfigError`
    when the devices cannot share the batch evenly.
    """
    need(
        batch_size % devices == 0,
        f"trainer.batch_size={batch_size} cannot be shared by {devices} devices: give a multiple of {devices}",
    )
    share = batch_size // devices
    micro = max(m for m in range(1, min(share, micro_batch_size) + 1) if share % m == 0)
    return micro, share // micro


def tokenized(pool: Pool, tokenizer: Any, max_length: int) -> tuple[Dataset, int]:
    """Columns `input_ids` and `labels` (the loss is on every assistant turn), and the number of tokens.

    Examples whose every response lies beyond `max_length` cannot be learnt from: they are left out, and the log
    names them. Raises `ConfigError` when none is left.
    """
    from datasets import Dataset

    ids, labels, lost = [], [], []
    for name, messages in zip(pool.ids, pool.messages, strict=True):
        texts = learnt_texts(tokenizer, name, messages, max_length)
        if not texts:
            lost.append(name)
        ids += [tokens for tokens, _ in texts]
        labels += [targets for _, targets in texts]
    need(bool(ids), f"no chosen example has a response within trainer.max_length={max_length} tokens")
    if lost:
        shown = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
        log.warning("%d examples have no response within %d tokens, not trained on: %s", len(lost), max_length, shown)
    return Dataset.from_dict({"input_ids": ids, "labels": labels}), sum(map(len, ids))


def learnt_texts(
    tokenizer: Any, name: str, messages: Sequence[Message], max_length: int
) -> list[tuple[list[int], list[int]]]:
    """The texts of an example that something can be learnt from. Raises `ConfigError` naming the example."""
    try:
        texts = encodings(tokenizer, messages, max_length)
    except Refused as error:
        raise ConfigError(
            f"the chat template refuses example {name} ({error}); set model.chat_template=turns"
        ) from error
    return [(tokens, targets) for tokens, targets in texts if any(t != IGNORED for t in targets[1:])]


def _reporter(advance: Callable[[int], None], report: Callable[[dict[str, float], int], None]) -> Any:
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
                if "loss" in numbers:
                    log.info(
                        "step %d/%d: loss %.4f, learning rate %.2g",
                        *(state.global_step, state.max_steps, numbers["loss"], numbers["learning_rate"]),
                    )
                report(numbers, state.global_step)

    return Reporter()
