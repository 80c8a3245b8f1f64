"""How several processes share a training: what the libraries are told of it, and tensors in pieces made whole and back.

Under `single` and `ddp` each process has all weights; under `fsdp2` (PyTorch's fully_shard: Zhao et al. 2023) and
`zero3` (DeepSpeed: Rajbhandari et al. 2020, ZeRO, stage 3) a piece of each, of its gradient and of what the optimizer
knows of it. What leaves a training, or is kept of it in a checkpoint, is whole and has the same names under all of
them: one killed under eight processes goes on under four, or under another strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from dsel.distributed import is_main_process, rank, world_size

Strategy = Literal["auto", "single", "ddp", "fsdp2", "zero3"]
SHARDED = ("fsdp2", "zero3")  # those that cut weights into pieces
ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
"""The optimizers that do to a piece what they do to the whole."""
MASTER = "master"  # DeepSpeed's float32 copy of a weight, among what its optimizer knows

Parameters = Iterable[tuple[str, Any]]
"""A model's parameters with their names, as `named_parameters` gives them."""


def arguments(strategy: str, *, bfloat16: bool) -> dict[str, Any]:
    """What transformers' `TrainingArguments` are told besides. bfloat16: whether matrix products run in it."""
    if strategy == "single":
        return {"bf16": bfloat16}
    joined = {"accelerator_config": {"use_configured_state": True}}  # as these processes have met
    if strategy == "fsdp2":
        pieces = {"fsdp": True, "fsdp_config": {"version": 2, "cpu_ram_efficient_loading": True}}
        return {**joined, **pieces, "bf16": bfloat16}
    if strategy == "zero3":
        return {**joined, "deepspeed": _deepspeed(bfloat16), "bf16": False}
    return {**joined, "ddp_find_unused_parameters": False, "bf16": bfloat16}


def before_loading(strategy: str, *, bfloat16: bool) -> Any:
    """What has to be there while a model is loaded, for its weights to be cut as they are read."""
    if strategy != "zero3":
        return None
    from transformers.integrations import HfDeepSpeedConfig

    numbers = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "train_batch_size": world_size()}
    return HfDeepSpeedConfig({**_deepspeed(bfloat16), **numbers, "gradient_clipping": 0.0})


def _deepspeed(bfloat16: bool) -> dict[str, Any]:
    """Weights stay as they were loaded, and products alone are in bfloat16, as they are under the other strategies.

    Small parameters are cut as well: those kept whole would all have to be of one type, which adapters are not.
    """
    automatic = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    return {
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "torch_autocast": {"enabled": bfloat16, "dtype": "bfloat16"},
        **dict.fromkeys((*automatic, "gradient_clipping"), "auto"),
    }


def state(model: Any, *, trained: bool = False, dtype: Any = None) -> dict[str, Any]:
    """All tensors of a model by name, or those that are `trained`: each whole, on the CPU, for the first process.

    dtype: of those that are weights, where it is to be another.

    Every process has to ask; on the devices one tensor at a time is whole.
    """
    found: dict[str, Any] = {}
    known: dict[int, Any] = {}  # tied weights have several names, and are one
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.requires_grad or not trained:
            if id(tensor) not in known:
                value = _whole(tensor)
                casts = value is not None and dtype is not None and value.is_floating_point()
                known[id(tensor)] = value.to(dtype) if casts else value
            found[name] = known[id(tensor)]
    return found if is_main_process() else {}


def optimizer_state(optimizer: Any, parameters: Parameters) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each trained parameter's name, with all that the optimizer knows of it by name, whole: for the first process.

    Every process has to go through it. A parameter that never had a gradient is not there.
    """
    zero = _zero(optimizer)
    if zero is None:
        called = {id(parameter): name for name, parameter in parameters}
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            values = optimizer.state.get(parameter, {})
            yield called[id(parameter)], {key: _whole(value) for key, value in values.items()}
        return
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    for name, parameter in parameters:
        if parameter.requires_grad:
            values = {
                key: safe_get_full_optimizer_state(parameter, key) if _has_axes(value) else value
                for key, value in zero.optimizer.state[_flat(zero, parameter)].items()
            }
            if parameter.dtype.itemsize != 4:
                values[MASTER] = safe_get_full_fp32_param(parameter)
            yield name, {key: _whole(value) for key, value in values.items()}


def set_optimizer_state(optimizer: Any, parameters: Parameters, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Make an optimizer know what `optimizer_state` found: each process its pieces.

    Args:
        optimizer: made anew with the same options, for these processes.
        parameters: with their names, those of `saved` among them.
        saved: what is known of each of them; every process has all of it.
    """
    zero, named = _zero(optimizer), dict(parameters)
    if zero is None:
        called = {id(parameter): name for name, parameter in named.items()}
        order = [p for group in optimizer.param_groups for p in group["params"]]
        known = {i: saved[called[id(p)]] for i, p in enumerate(order) if called[id(p)] in saved}
        cut = {i: {k: _cut(v, order[i]) for k, v in values.items() if k != MASTER} for i, values in known.items()}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": cut})
        return
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    for name, values in saved.items():
        flat = _flat(zero, named[name])
        group = zero.optimizer.state[flat]
        for key, value in values.items():
            if not _has_axes(value):
                group[key] = value
                continue
            piece = _flat_piece(value, named[name])
            if key == MASTER:
                safe_set_local_fp32_param(named[name], piece)
                continue
            if key not in group:
                group[key] = flat.new_zeros(flat.shape)
            safe_set_local_optimizer_state(named[name], piece, key)


def _whole(value: Any) -> Any:
    """A copy on the CPU of a tensor of which each process may have a piece; what is no tensor as it is."""
    if not hasattr(value, "detach"):
        return value
    if hasattr(value, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([value]):
            return value.detach().cpu().clone() if is_main_process() else None
    value = value.detach()
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    return value.cpu().clone() if is_main_process() else None


def _cut(value: Any, like: Any) -> Any:
    """This process's piece of a whole tensor, where `like` is in pieces: nobody else is asked."""
    if not hasattr(like, "device_mesh") or getattr(value, "shape", None) != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _zero(optimizer: Any) -> Any:
    """DeepSpeed's optimizer, where accelerate has wrapped one."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner if hasattr(inner, "fp32_partitioned_groups_flat") else None


def _flat(zero: Any, parameter: Any) -> Any:
    """The tensor of pieces that DeepSpeed's inner optimizer steps, which has this parameter's among them."""
    return zero.fp32_partitioned_groups_flat[zero.grad_position[zero.get_param_id(parameter)][0]]


def _flat_piece(value: Any, parameter: Any) -> Any:
    """This process's piece of a whole tensor, as DeepSpeed cuts it: of all elements, with zeros after the last."""
    size = parameter.ds_tensor.numel()
    piece = parameter.ds_tensor.new_zeros(size, dtype=value.dtype)
    there = value.flatten()[size * rank() : size * (rank() + 1)]
    piece[: len(there)] = there
    return piece


def _has_axes(value: Any) -> bool:
    return hasattr(value, "dim") and value.dim() > 0
