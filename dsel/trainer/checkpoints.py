"""A killed training goes on from its last checkpoint, and a training in parts is one training.

The library would write optimizer and generator states with pickle. Here they are safetensors and JSON.
"""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsel.distributed import is_main_process
from dsel.files import DIGESTS as DIGESTS
from dsel.files import damage, read_json, remove, seal, write_json
from dsel.interrupt import heed, told
from dsel.spent import Spent, keep, kept
from dsel.trainer.strategy import Parameters, optimizer_state, set_optimizer_state, state

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from dsel.trainer.steps import Steps

MOMENTS, SCALARS, GENERATORS = "moments.safetensors", "moments.json", "generators_{}.safetensors"
BY_NUMBER = "optimizer.safetensors"  # the moments as earlier versions left them
CHECKPOINTS = "checkpoints"  # their folder, in a training's

log = logging.getLogger(__name__)


def resumable_trainer(*, sharded: bool = False) -> Any:
    """TRL's SFTTrainer with checkpoints free of pickle, and with a schedule that may span several trainings.

    sharded: whether each process has a piece of the weights.

    A step is an item of `Steps`: the library need not accumulate, and does not know how many micro batches there are.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from torch.utils.data import DataLoader
    from trl import SFTTrainer

    class ResumableTrainer(SFTTrainer):
        """part: (i, m) for the i-th of m trainings with one schedule; earlier: folder with the last one's state.

        The model it is given has the weights of the checkpoint that it goes on from, where there is one.
        """

        def __init__(
            self, *args: Any, work: Steps, part: tuple[int, int] = (1, 1), earlier: Path | None = None, **kwargs: Any
        ):
            self._work, self._part, self._earlier = work, part, earlier
            super().__init__(*args, **kwargs)
            self._begun = time.monotonic() - seconds_before(Path(self.args.output_dir))
            if self.is_fsdp_enabled and self.args.bf16:  # products in bfloat16, sums of gradients not
                policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
                self.accelerator.state.fsdp_plugin.mixed_precision_policy = policy
            self.data_collator.padding_free = work.packed
            self.model_accepts_loss_kwargs = True  # the loss, which is TRL's own, is over the labels of a whole step

        def get_train_dataloader(self) -> Any:
            def collate(one: list[Any]) -> list[Any]:
                return [self.data_collator(rows) for rows in one[0]]

            return DataLoader(self._work, 1, collate_fn=collate, pin_memory=self.args.dataloader_pin_memory)

        def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
            return super()._get_num_items_in_batch([micro for step in batch_samples for micro in step], device)

        def floating_point_ops(self, inputs: list[Any]) -> int:
            return sum(super(ResumableTrainer, self).floating_point_ops(micro) for micro in inputs)

        def training_step(self, model: Any, inputs: list[Any], num_items_in_batch: Any = None) -> Any:
            losses = []
            self.current_gradient_accumulation_steps = len(inputs)
            for i, micro in enumerate(inputs, 1):
                last = i == len(inputs)
                self.accelerator.gradient_state._set_sync_gradients(last)
                with nullcontext() if last or self.is_deepspeed_enabled else self.accelerator.no_sync(model):
                    losses.append(super().training_step(model, micro, num_items_in_batch))
            return torch.stack(losses).sum()

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            made = 0 if self._earlier is None else steps_made(self._earlier)
            still = num_training_steps * (self._part[1] - self._part[0] + 1)  # parts to come are taken to be as long
            return super().create_scheduler(made + still, optimizer)

        def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
            prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
            known = self._earlier if resume_from_checkpoint is None else Path(resume_from_checkpoint)
            if known is not None:
                load_state(self.optimizer, self.lr_scheduler, self.model.named_parameters(), known)
            return prepared

        def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            """Nothing: its weights are here."""

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """None: nobody reads a checkpoint's."""

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            weights = {"state_dict": state(self.model, trained=hasattr(self.model, "peft_config"))} if sharded else {}
            if self.args.should_save:
                self.model.save_pretrained(output_dir, **weights)

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            save_state(self.optimizer, self.lr_scheduler, self.model.named_parameters(), Path(output_dir))

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            super()._save_checkpoint(*args, **kwargs)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                saved = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                keep(Spent(time.monotonic() - self._begun), saved)
                write_json(saved / DIGESTS, seal(saved))
                for older in set(saved.parent.glob("checkpoint-*")) - {saved}:
                    remove(older)

        def _save_rng_state(self, output_dir: str) -> None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            states = {"cpu": torch.get_rng_state()}
            if self.args.device.type != "cpu":
                states["device"] = torch.get_device_module(self.args.device).get_rng_state()
            save_file(states, Path(output_dir) / GENERATORS.format(self.args.process_index))
            self.accelerator.wait_for_everyone()  # the file that makes a checkpoint whole comes after everybody's

        def _load_rng_state(self, checkpoint: str | None) -> None:
            file = Path(checkpoint or "") / GENERATORS.format(self.args.process_index)
            if checkpoint is None or not file.exists():
                return
            states = load_file(file)
            torch.set_rng_state(states["cpu"])
            if "device" in states and self.args.device.type != "cpu":
                torch.get_device_module(self.args.device).set_rng_state(states["device"])

    return ResumableTrainer


def save_state(optimizer: Any, scheduler: Any, parameters: Parameters, folder: Path) -> None:
    """Write the optimizer's moments, by the names of `parameters`, and how many steps the schedule has made.

    Every process of a training has to call it; the first one writes.
    """
    import torch
    from safetensors.torch import save_file

    known = optimizer_state(optimizer, parameters)
    named = {f"{name}.{key}": value for name, values in known for key, value in values.items()}
    if not is_main_process():
        return
    tensors = {name: value.contiguous() for name, value in named.items() if torch.is_tensor(value)}
    save_file(tensors, folder / MOMENTS)
    scalars = {name: value for name, value in named.items() if not torch.is_tensor(value)}
    write_json(folder / SCALARS, {"steps": scheduler.last_epoch, "scalars": scalars})


def load_state(optimizer: Any, scheduler: Any, parameters: Parameters, folder: Path) -> None:
    """Put `optimizer` and `scheduler`, made anew with the same options, where `save_state` found theirs."""
    trained, saved = {name: p for name, p in parameters if p.requires_grad}, moments(folder)
    if strange := sorted(saved.keys() - trained.keys()):
        raise ValueError(f"{folder / MOMENTS}: nothing that is trained is called {strange[0]}")
    set_optimizer_state(optimizer, trained.items(), saved)
    scheduler.last_epoch, scheduler._step_count = steps_made(folder) - 1, 2  # step() then sets the rate of this step
    scheduler.step()


def moments(folder: Path) -> dict[str, dict[str, Any]]:
    """What `save_state` wrote of each parameter, by its name in the model as it is trained (with its adapters).

    Of Adam that is `exp_avg`, `exp_avg_sq` and `step`; a parameter that never had a gradient is not there.
    """
    from safetensors.torch import load_file

    found: dict[str, dict[str, Any]] = {}
    for name, value in {**load_file(folder / MOMENTS), **read_json(folder / SCALARS)["scalars"]}.items():
        parameter, key = name.rsplit(".", 1)
        found.setdefault(parameter, {})[key] = value
    return found


def why_without_moments(folder: Path) -> str:
    """Why a checkpoint, or a part of a training, has no moments by name."""
    if (folder / BY_NUMBER).exists():
        return "its optimizer's state is as an earlier version wrote it, by number and not by name"
    return "its optimizer's state has gone: a part that followed used it up"


def steps_made(folder: Path) -> int:
    """The optimizer steps of all parts up to the one whose state is in `folder`."""
    return int(read_json(folder / SCALARS)["steps"])


def goes_on_from(folder: Path) -> str | None:
    """`last_checkpoint`, alone in `folder`: those cut short would stand in the way of new ones."""
    found = last_checkpoint(folder)
    for other in folder.glob("checkpoint-*"):
        if str(other) != found:
            shutil.rmtree(other, ignore_errors=True)
    return found


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint in `folder`: one that a kill cut short, or that is damaged, has not its digests."""
    made = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    for checkpoint in sorted(made, key=lambda p: -int(p.name.removeprefix("checkpoint-"))):
        try:
            wrong = damage(checkpoint, read_json(checkpoint / DIGESTS))
        except (OSError, ValueError, TypeError, AttributeError):
            wrong = "it was cut short"
        if wrong is None and not (checkpoint / MOMENTS).exists():
            wrong = why_without_moments(checkpoint)
        if wrong is None:
            return str(checkpoint)
        log.warning("%s is not used: %s", checkpoint, wrong)
    return None


def seconds_before(folder: Path) -> float:
    """How long the training whose checkpoints `folder` has had taken by the newest of them."""
    found = [0.0]
    for checkpoint in folder.glob("checkpoint-*"):
        with suppress(OSError, ValueError, TypeError):  # damaged: it is not gone on from either
            spent = kept(checkpoint)
            found.append(0.0 if spent is None else spent.seconds)
    return max(found)


def saver(minutes: float) -> TrainerCallback:
    """A callback that asks for a checkpoint whenever `minutes` have passed since the last one, and when a signal ends
    the run, which ends after it.

    The loss is logged with it, so that the training's history in the checkpoint is complete.
    """
    import torch
    from accelerate.utils import broadcast
    from transformers import TrainerCallback

    class Saver(TrainerCallback):
        last = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            due = told() or time.monotonic() - self.last >= 60 * minutes
            if args.world_size > 1:  # by one clock: all processes save the same step
                due = bool(broadcast(torch.tensor(int(due), device=args.device)))
            if due and state.global_step < state.max_steps:
                control.should_log = control.should_save = True
                self.last = time.monotonic()

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if told():
                log.info("training: told to end, and goes on after step %d of %d", state.global_step, state.max_steps)
            heed()

    return Saver()
