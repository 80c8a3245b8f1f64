"""What facility location does on a GPU, counted on the processor, and how long a GPU might take for it.

    python -m tests.bench.bench_coverage_on_torch --as-n 200000 --as-budget 2000
    python -m tests.bench.bench_coverage_on_torch --as-n 1000000 --as-budget 10000 --budget 1000

Fewer points of fewer dimensions are chosen from, with as many lists for their number as a GPU of --memory GB has room
for. Of each phase of `dsel.selector.coverage_on_torch`: products as a share of n², bytes that kernels read and write,
kernels and waits for the device, as it would be for --as-n points and --as-budget. Seconds are those of operations and
bytes at the rates below, or of launches where these take longer, and of waits: no GPU was asked.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dsel.arrays import unit_rows
from dsel.selector import coverage_on_torch
from tests.gpu.kernels import points

PHASES = (
    "__init__", "bound_all", "bound_coarsely", "bound_finely", "bound_by_lists", "look_for_room", "pick", "bound_again",
    "compute", "choose",
)  # fmt: skip
RATES = {"halves": 500e12, "float32": 50e12, "float64": 30e12}  # operations a second that an H100 may reach
BANDWIDTH, LAUNCH, WAIT = 3e12, 10e-6, 50e-6  # bytes a second; seconds
WAITS = {"aten::nonzero", "aten::bincount", "aten::_local_scalar_dense"}
NOTHING = {"aten::empty", "aten::empty_like", "aten::new_empty", "aten::detach"}


class Counting(TorchDispatchMode):
    """Counts what torch is asked for, by phase."""

    def __init__(self, halves: bool) -> None:
        super().__init__()
        self.halves, self.phase = halves, ["other"]
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, phase = func._schema.name, self.phase[-1]
        if func.is_view or name in NOTHING:
            return out
        counts = self.counts[phase]
        ins = [a for a in args if isinstance(a, torch.Tensor)] if name != "aten::index" else [out]
        outs = [o for o in (out if isinstance(out, tuple | list) else [out]) if isinstance(o, torch.Tensor)]
        if name == "aten::matmul" and min(ins[0].shape[0], ins[1].shape[-1]) >= 64:
            ins_read: list[torch.Tensor] = []  # while it computes
        else:
            ins_read = ins
        halves = self.halves and phase in ("bound_all", "bound_coarsely")
        counts["bytes"] += sum(t.numel() * t.element_size() for t in ins_read + outs) // (1 + halves)
        counts["kernels"] += 1
        counts["waits"] += name in WAITS
        if name in ("aten::mm", "aten::matmul"):
            a, b = ins
            products = a.shape[0] * (b.shape[1] if b.ndim == 2 else 1)
            kind = "float64" if a.dtype == torch.float64 else "float32"
            kind = "halves" if halves else kind
            counts[kind] += products
        return out

    @contextmanager
    def phases(self) -> Iterator[None]:
        with ExitStack() as patches:
            for name in PHASES:
                method = self.within(name, getattr(coverage_on_torch._Greedy, name))
                patches.enter_context(patch.object(coverage_on_torch._Greedy, name, method))
            yield

    def within(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.phase.append(name)
            self.counts[name]["calls"] += 1
            try:
                return method(*args, **kwargs)
            finally:
                self.phase.pop()

        return wrapped


@contextmanager
def as_on_a_gpu(halves: bool, share: float) -> Iterator[None]:
    """float16 is kept as the same numbers in float32, as a processor is slow with it; lists have so much room."""
    start = coverage_on_torch._Greedy.__init__

    def with_room(self: Any, *args: Any) -> None:
        start(self, *args)
        self.rows = self.rows[: int(share * len(self.x) ** 2)]
        self.half = self.half.float() if halves else None

    with (
        patch.object(coverage_on_torch._Greedy, "__init__", with_room),
        patch.object(coverage_on_torch, "has_halves", lambda device: halves),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--diffuse", action="store_true", help="points without any groups")
    parser.add_argument("--no-halves", action="store_true", help="all bounds in float32")
    parser.add_argument("--first", type=int, default=16, help="FIRST of the module, which is more for more points")
    parser.add_argument("--as-n", type=int, default=1_000_000)
    parser.add_argument("--as-d", type=int, default=1024)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--as-budget", type=int, default=10_000)
    parser.add_argument("--memory", type=float, default=78, help="GB of the device that is thought of")
    o = parser.parse_args()
    coverage_on_torch.FIRST = o.first
    budget, as_budget, growth = o.budget, o.as_budget, (o.as_n / o.n) ** 2
    free = 1e9 * o.memory - (4 if o.no_halves else 6) * o.as_n * o.as_d
    share = min(1.0, coverage_on_torch.LISTED * free / 8 / o.as_n**2)
    x = points(o.n, o.d)
    if o.diffuse:
        x = np.random.default_rng(0).standard_normal((o.n, o.d), dtype=np.float32)
    counting = Counting(not o.no_halves)
    start = time.process_time()
    with as_on_a_gpu(not o.no_halves, share), counting.phases(), counting:
        coverage_on_torch.lazy_greedy(unit_rows(x), budget, 1.0, np.zeros(o.n), torch.device("cpu"), lambda count: None)
    counts = counting.counts
    counts["pick"]["waits"] += counts["bound_again"]["calls"] + counts["compute"]["calls"] + budget
    print(
        f"{budget:,} of {o.n:,} x {o.d} in {time.process_time() - start:.0f} s of CPU; lists: {share:.2%} of all pairs"
    )
    print(f"as {as_budget:,} of {o.as_n:,} x {o.as_d}\n")
    print("| phase | products / n²: halves | float32 | float64 | bytes | kernels a pick | waits a pick | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    whole = 0.0
    for name in PHASES:
        c = counts[name]
        work = sum(2.0 * c[kind] * growth * o.as_d / rate for kind, rate in RATES.items())
        work += c["bytes"] * growth / BANDWIDTH
        seconds = max(work, LAUNCH * c["kernels"] / budget * as_budget) + WAIT * c["waits"] / budget * as_budget
        whole += seconds
        shares = " | ".join(f"{c[kind] / o.n**2:.3f}" for kind in RATES)
        calls = f"{c['kernels'] / budget:.1f} | {c['waits'] / budget:.2f}"
        print(f"| {name} | {shares} | {c['bytes'] * growth:.1e} | {calls} | {seconds:.1f} |")
    print(f"\nestimated: {whole:.0f} s")


if __name__ == "__main__":
    main()
