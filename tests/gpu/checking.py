"""A check: what it is given of a machine, and what it says of it."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dsel import peaks
from dsel.blocks import full_precision
from dsel.memory import ROOM
from dsel.model.causal_lm import CausalLM
from tests.gpu import shapes
from tests.gpu.shapes import Encoder, Shape

T = TypeVar("T")

SPARE = 8e9  # bytes of a disk that are left to others


class Skip(Exception):
    """What a check needs is not here: the reason is its text."""


@dataclass(frozen=True)
class Row:
    """A number of a check. share: of the device's peak of operations, where it is one. name: the check's."""

    what: str
    measured: float | None = None
    unit: str = ""
    share: float | None = None
    note: str = ""
    name: str = ""


@dataclass(frozen=True)
class Sizes:
    """What is measured with: as on a GPU, or so small that a processor does it in seconds."""

    large: Shape
    middle: Shape
    small: Shape
    encoder: Encoder
    length: int  # tokens of a text
    examples: int  # of a step of training
    steps: int
    texts: int  # to be read
    prompts: int
    new_tokens: int
    gradients: int  # examples
    points: int  # of the kernels, at most, and how many for those that compare all pairs at first
    pairs: int
    dimensions: int
    clusters: int
    few: int  # points that a processor can do too
    seconds: float  # that all pairs of all points may take


REAL = Sizes(
    large=shapes.LLAMA_8B, middle=shapes.LLAMA_1B, small=shapes.SMOLLM2, encoder=shapes.MINILM,
    length=1024, examples=16, steps=8, texts=256, prompts=128, new_tokens=128, gradients=128,
    points=1_000_000, pairs=200_000, dimensions=1024, clusters=1024, few=10_000, seconds=300,
)  # fmt: skip
TOY = Sizes(
    large=shapes.TOY_LARGE, middle=shapes.TOY_MIDDLE, small=shapes.TOY_SMALL, encoder=shapes.TOY_ENCODER,
    length=32, examples=4, steps=3, texts=8, prompts=4, new_tokens=4, gradients=4,
    points=2000, pairs=500, dimensions=16, clusters=16, few=300, seconds=2,
)  # fmt: skip


@dataclass
class Machine:
    """A device, what is measured with there, and a folder for models. device: as torch names it."""

    device: str
    sizes: Sizes
    folder: Path
    started: float = field(default_factory=time.perf_counter)

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def name(self) -> str:
        import torch

        return torch.cuda.get_device_name() if self.cuda else "processor"

    @property
    def dtype(self) -> Any:
        """Of weights: a processor does bfloat16 too, if slowly."""
        import torch

        return torch.bfloat16

    @cached_property
    def peak(self) -> peaks.Peak:
        """By the table; for a device that it has not, by matrix products measured now."""
        import torch

        return peaks.peak(self.name) or peaks.Peak(self.product(torch.bfloat16), self.product(torch.float32))

    def product(self, dtype: Any) -> float:
        """Operations a second of a large matrix product, the best of some."""
        import torch

        n = 8192 if self.cuda else 256
        a = torch.ones(n, n, device=self.device, dtype=dtype)
        with full_precision(), torch.inference_mode():
            return 2 * n**3 / min(self.timed(lambda: a @ a)[1] for _ in range(10))

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What `work` gives, and its seconds until the device has done all of it."""
        self.wait()
        start = time.perf_counter()
        result = work()
        self.wait()
        return result, time.perf_counter() - start

    def wait(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.synchronize()

    @property
    def memory(self) -> float:
        """Bytes of the device that a check may plan with."""
        import torch

        if not self.cuda:
            return float("inf")
        return ROOM * torch.cuda.get_device_properties(0).total_memory

    def causal(self, shape: Shape) -> CausalLM:
        return shapes.causal(shape, self.folder, self.device, self.dtype)

    def readable(self) -> Shape:
        """The largest shape that can be kept on the disk and read with: its weights and half as much beside them."""
        for shape in (self.sizes.large, self.sizes.middle):
            if 1.5 * 2 * shape.parameters < self.memory and self.has_room(shape):
                return shape
        return self.sizes.small

    def has_room(self, shape: Shape) -> bool:
        """Whether a shape's weights can be made on the device and kept on the disk, or are kept there."""
        size = 2 * shape.parameters
        free = shutil.disk_usage(self.folder).free - SPARE
        return shapes.place(shape, self.folder).exists() or not self.cuda or size < min(self.memory, free)

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Afterwards the device's memory is free again."""
        import torch

        try:
            yield
        finally:
            gc.collect()
            if self.cuda:
                torch.cuda.empty_cache()


Check = Callable[[Machine], Iterator[Row]]
"""Yields what it measures; raises `Skip` where the machine has not what it needs."""


def need(condition: bool, why: str) -> None:
    """Raise `Skip` where something is not there."""
    if not condition:
        raise Skip(why)


def best(machine: Machine, work: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and its seconds, after one that is not counted."""
    work()
    return machine.timed(work)


def finite(values: Any) -> None:
    """Raise ValueError for numbers that are none."""
    if not np.isfinite(values).all():
        raise ValueError("there are numbers that are not finite")
