"""What choosing comes to, known before it starts, and what that means on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from dsel.blocks import full_precision, torch_device

LONG = 3600.0  # seconds that are worth a word before
SOON = 1e10  # operations that any machine does in a second
PROBE = 1024  # rows of the products that a device's speed is measured by


@dataclass(frozen=True)
class Cost:
    """What a kernel takes, roughly and rather too much than too little.

    Attributes:
        operations: In matrix products of float32: a multiplication and an addition are two.
        memory: Bytes at once, vectors that stay on disk not counted.
        device: Where products are computed, as `torch_device` reads it.
    """

    operations: float = 0
    memory: float = 0
    device: str = "cpu"

    @property
    def seconds(self) -> float:
        """At the speed of the device; nothing for what is soon done anywhere."""
        return self.operations / speed(self.device) if self.operations > SOON else 0.0


@cache
def speed(device: str = "cpu") -> float:
    """Operations a second in products of float32 on a device, measured now: some 30 ms."""
    place = torch_device(device)
    if place is None:
        rows = np.ones((PROBE, 384), dtype=np.float32)
        return max(2 * PROBE**2 * 384 / _timed(lambda: rows @ rows.T) for _ in range(5))
    import torch

    many = torch.ones((8 * PROBE, 384), device=place)

    def product() -> None:
        many @ many.T
        if place.type == "cuda":
            torch.cuda.synchronize(place)

    with full_precision():
        return max(2 * (8 * PROBE) ** 2 * 384 / _timed(product) for _ in range(5))


def free() -> float:
    """Bytes of memory that a program can have now."""
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return 1024.0 * int(line.split()[1])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def warnings(what: str, cost: Cost) -> Iterator[str]:
    """A line for what takes more than an hour, and one for what does not fit into memory."""
    if cost.seconds > LONG:
        yield (
            f"{what} may take {cost.seconds / 3600:.1f} h: up to {cost.operations:.1e} operations, of which this "
            f"machine does {speed(cost.device):.1e} a second"
        )
    if cost.memory > free():
        yield f"{what} may not fit: it takes about {cost.memory / 1e9:.0f} GB, and {free() / 1e9:.0f} GB are free"


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
