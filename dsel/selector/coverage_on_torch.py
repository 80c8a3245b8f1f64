"""The exact lazy greedy of `dsel.selector.coverage` in torch, all of it on a device. Import this inside functions.

Gains of d only fall, so an old value bounds the new one (CELF: Leskovec et al. 2007). What comes to the top is looked
at more and more closely: its similarities with all examples in float16, where a device is fast at it, then in float32,
each with room for its rounding, then those that matter in float64. Rounding never decides. As soon as there is room for
lists of the examples that matter to each candidate, bounds are sums over these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray

from dsel.arrays import Doubles, Floats, Indices
from dsel.blocks import full_precision
from dsel.selector.lazy import DECIMALS, ROUNDING, SERVED
from dsel.selector.products import slices

TILE = 2**27  # numbers in a tile of products, where a device has room for a few of them
FIRST = 256  # candidates brought up to date at once, at first; then more and more
LISTED = 0.5  # of a device's free memory, for lists
COARSELY = 4096  # candidates in one product of float16, at most
TOGETHER = 16  # candidates computed in float64 at once
ROOM = float(ROUNDING)  # for the error of a similarity in float32
SUMS = 1 + 3e-5  # for that of a sum in float32
HALF_SUMS = SUMS + 2**-11  # for that of such a sum of numbers in float16
LISTS = 1e-7  # for that of a sum over a list: the difference of two in float64
LAST = 1e-9  # for that of a gain in float64: one of the last decimal that counts

STALE, COARSE, FINE, EXACT = range(4)  # what is known of a candidate's gain at this pick


def lazy_greedy(
    x: Floats, budget: int, weight: float, bonus: Doubles, device: torch.device, advance: Callable[[int], None]
) -> Indices:
    """`coverage.lazy_greedy` of unit rows [n, d]; `advance` is told of each pick."""
    with full_precision(), _full_sums(), torch.inference_mode():
        greedy = _Greedy(x, weight, bonus, device)
        for _ in range(budget):
            greedy.pick()
            advance(1)
        return torch.cat(greedy.chosen).cpu().numpy()  # type: ignore[no-any-return]


@contextmanager
def _full_sums() -> Iterator[None]:
    """Sums in products of float16 are of float32 within the block."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_fp16_reduced_precision_reduction = matmul.allow_fp16_reduced_precision_reduction, False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before


def has_halves(device: torch.device) -> bool:
    """Whether products of float16 are many times as fast."""
    return device.type == "cuda"


class _Greedy:
    """A greedy selection so far."""

    def __init__(self, x: Floats, weight: float, bonus: Doubles, device: torch.device):
        n, d = x.shape
        self.x = torch.from_numpy(x).to(device)
        self.half = self.x.half() if has_halves(device) else None
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**30
        self.tile = min(TILE, free // 128)
        self.weight, self.bonus = weight, torch.tensor(bonus, dtype=torch.float64, device=device)
        self.chosen: list[torch.Tensor] = []

        # Of each example: its similarity to the nearest chosen one, and what one in float32 must exceed to matter.
        self.best = torch.full_like(self.bonus, -1)
        self.floor = torch.full((n,), -1 - ROOM, device=device)

        # Of each candidate: a bound of its gain, what it would add at most in units of the last decimal that counts,
        # and what is known of it now: if it is exact, EXACT and the number of its batch. Of each batch: who is in it,
        # whom its best would serve, and how well.
        self.norms, self.bound = torch.empty_like(self.bonus), torch.empty_like(self.bonus)
        self.state = torch.zeros(n, dtype=torch.int64, device=device)
        self.exact: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

        # Lists of whom a candidate would serve, one after the other; a length of -1 is none.
        room = min(int(LISTED * free / 8), n * n)
        self.rows = torch.empty(room, dtype=torch.int32, device=device)
        self.similar = torch.empty(room, device=device)
        self.start, self.length = torch.zeros_like(self.state), torch.full_like(self.state, -1)
        self.used, self.listing, self.look = 0, False, 1  # pick before which it is next seen whether they fit

        # d of the empty set is taken as -n: then the first value is the definition's.
        total, error = torch.zeros(d, dtype=torch.float64, device=device), self.floor.new_zeros(())
        for part in self.parts(n, 4 * d):
            rows = self.x[part]
            self.norms[part] = rows.double().norm(dim=1)
            total += (rows.double() / self.norms[part, None]).sum(0)
            if self.half is not None:
                error = torch.maximum(error, (rows - self.half[part].float()).norm(dim=1).max())
        for part in self.parts(n, 4 * d):
            self.bound[part] = n + self.x[part].double() @ total / self.norms[part]
        self.keys = self.key(slice(None))
        # How far a similarity in float16 may be below the true one, and the floor above its own: by Cauchy and Schwarz
        # the errors of two rows, then those of rounding numbers of up to one or little more.
        self.half_room = 2.1 * float(error) + 2 * 2**-11 + ROOM

    def parts(self, n: int, row: int) -> Iterator[slice]:
        """Slices of n rows, of which each takes so many numbers of a tile."""
        return slices(n, _even(self.tile // row))

    def key(self, candidates: torch.Tensor | slice) -> torch.Tensor:
        return ((self.weight * self.bound[candidates] + self.bonus[candidates]) * DECIMALS).round_()

    def pick(self) -> None:
        """Choose one more: the lowest of those whose key is the largest, once its gain is exact."""
        if len(self.chosen) == 1:
            self.bound_all()
        if len(self.chosen) >= self.look and not self.listing:
            self.look_for_room()
        width = FIRST
        while True:
            due = self.keys.clone()
            due[self.keys.argmax(dim=0, keepdim=True)] = torch.inf  # the lowest of equals, which topk does not say
            those = due.topk(min(width, len(due))).indices
            states, lengths = torch.stack([self.state[those], self.length[those]]).cpu().numpy()
            if states[0] >= EXACT:
                return self.choose(those[:1], int(states[0]) - EXACT)
            if not self.chosen:  # its bound is exact, but for the order of a sum
                self.compute(those[:1], lengths[:1])
                return self.choose(those[:1], 0)
            closer = states >= (EXACT if states[0] == FINE else FINE)  # below such a one nothing matters yet
            take = np.flatnonzero(states[: closer.argmax() if closer.any() else None] == states[0])
            if states[0] == FINE:
                take = take[:TOGETHER]
                self.compute(_at(those, take), lengths[take])
            else:
                self.bound_again(_at(those, take), lengths[take], coarse=states[0] == STALE)
                width = min(2 * width, max(FIRST, len(due) // 16))

    def bound_again(self, those: torch.Tensor, lengths: NDArray[np.int64], *, coarse: bool) -> None:
        """Lower bounds to what they are now."""
        listed, others = np.flatnonzero(lengths >= 0), np.flatnonzero(lengths < 0)
        if len(listed):
            self.bound_by_lists(_at(those, listed), lengths[listed])
        if len(others):
            bound = self.bound_coarsely if coarse and self.half is not None and not self.listing else self.bound_finely
            bound(_at(those, others))
        self.keys[those] = self.key(those)

    def bound_coarsely(self, those: torch.Tensor) -> None:
        """Bounds in float16."""
        assert self.half is not None
        for c in slices(len(those), COARSELY):
            some = those[c]
            gains = torch.zeros_like(self.bound[some])
            for part in self.parts(len(self.keys), len(some)):
                gains += _over(self.half[some] @ self.half[part].T, self.low(part), 1)
            self.bound[some] = torch.minimum(self.bound[some], gains * HALF_SUMS)
        self.state[those] = COARSE

    def low(self, part: slice) -> torch.Tensor:
        """What a similarity must exceed to matter, in float16 where there is that."""
        return self.floor[part] if self.half is None else (self.floor[part] + (ROOM - self.half_room)).half()

    def bound_finely(self, those: torch.Tensor) -> None:
        """Bounds in float32; and lists, from when on there is room for those of all."""
        for part in self.parts(len(those), len(self.keys)):
            some = those[part]
            over = (self.x[some] @ self.x.T).sub_(self.floor)
            if self.listing:
                of, rows = (over > 0).nonzero().unbind(1)
                new = slice(self.used, self.used + len(rows))
                if new.stop <= len(self.rows):
                    lengths = of.bincount(minlength=len(some))
                    self.rows[new], self.similar[new] = rows.int(), over[of, rows] + self.floor[rows]
                    self.start[some], self.length[some] = self.used + lengths.cumsum(0) - lengths, lengths
                    self.used = new.stop
            gains = over.clamp_(min=0).sum(1).double()
            self.bound[some] = torch.minimum(self.bound[some], gains * SUMS)
        self.state[those] = FINE

    def look_for_room(self) -> None:
        """See whether all lists would fit, by a sample of them."""
        n, done = len(self.keys), len(self.chosen)
        sample = self.x[:: -(-n // 128)]
        near = [(sample @ self.x[part].T > self.floor[part]).sum() for part in self.parts(n, len(sample))]
        self.listing = 1.25 * int(torch.stack(near).sum()) / len(sample) * n <= len(self.rows)
        self.look = done + 1 + done // 8

    def bound_by_lists(self, those: torch.Tensor, lengths: NDArray[np.int64]) -> None:
        """Bounds in float32, of those that have lists."""
        cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // (self.tile // 4))) + 1
        for lo, hi in zip([0, *cuts], [*cuts, len(lengths)], strict=True):
            some = those[lo:hi]
            _, over, ends = self.listed(some, int(lengths[lo:hi].sum()))
            sums = torch.cat([over.new_zeros(1, dtype=torch.float64), over.clamp_(min=0).double().cumsum(0)])
            gains = sums[ends] - sums[ends - self.length[some]]
            self.bound[some] = torch.minimum(self.bound[some], gains + LISTS)
        self.state[those] = FINE

    def listed(self, those: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Whom they would serve, `total` in all, by how much more than what matters; and where each list ends there."""
        lengths = self.length[those]
        ends = lengths.cumsum(0)
        of = torch.repeat_interleave(lengths, output_size=total)
        at = (self.start[those] - ends + lengths)[of] + torch.arange(total, device=those.device)
        rows = self.rows[at]
        return rows, self.similar[at] - self.floor[rows], ends

    def bound_all(self) -> None:
        """Bounds of all where most matter still: each product once is half of the work."""
        top, n = self.keys.topk(min(FIRST, len(self.keys))).indices, len(self.keys)
        self.bound_finely(top)
        self.keys[top] = self.key(top)
        if 2 * int((self.keys > self.keys[top].max()).sum()) <= n:
            return
        self.bound.zero_()
        points = self.x if self.half is None else self.half
        side = _even(isqrt(self.tile))
        for a in slices(n, side):
            for b in slices(n, side, a.start):
                tile = points[a] @ points[b].T
                if a != b:
                    self.bound[b] += _over(tile.clone(), self.low(a)[:, None], 0)
                self.bound[a] += _over(tile, self.low(b), 1)
        self.bound *= SUMS if self.half is None else HALF_SUMS
        self.state.fill_(FINE if self.half is None else COARSE)
        self.keys = self.key(slice(None))

    def compute(self, those: torch.Tensor, lengths: NDArray[np.int64]) -> None:
        """Gains in float64."""
        theirs, n = self.x[those], len(self.keys)
        near = self.state.new_zeros(n + 1, dtype=torch.bool)  # those that any of them would serve
        if (lengths >= 0).all():
            rows, over, _ = self.listed(those, int(lengths.sum()))
            near[torch.where(over > 0, rows, n)] = True
        else:
            for part in self.parts(n, len(those)):
                near[part] = (self.x[part] @ theirs.T > self.floor[part, None]).any(1)
        rows = near[:n].nonzero().squeeze(1)
        similar = self.best.new_empty(len(rows), len(those))
        units = (theirs.double() / self.norms[those, None]).T
        for part in self.parts(len(rows), 4 * theirs.shape[1]):
            similar[part] = self.x[rows[part]].double() @ units / self.norms[rows[part], None]
        similar.clamp_(max=1)
        self.bound[those] = (similar - self.best[rows, None]).clamp_(min=0).sum(0)
        self.keys[those] = self.key(those)
        self.state[those] = EXACT + len(self.exact)
        keys = self.keys[those]
        best = torch.where(keys == keys.max(), those, n).argmin(dim=0, keepdim=True)
        self.exact.append((those, rows, similar[:, best].squeeze(1)))

    def choose(self, one: torch.Tensor, batch: int) -> None:
        """Choose the best of a batch of exact ones."""
        _, rows, high = self.exact[batch]
        better = (high > self.best[rows]).nonzero().squeeze(1)
        rows, high = rows[better], high[better]
        self.best[rows] = high
        # A cosine of one cannot be beaten: such an example is served.
        self.floor[rows] = torch.where(high > SERVED, torch.inf, high - ROOM).float()
        self.bonus[one] = -torch.inf  # nothing that is computed later brings it back
        for those, _, _ in self.exact:  # from now on these are bounds
            self.bound[those] += LAST
            self.keys[those] = self.key(those)
        self.exact.clear()
        self.state.fill_(STALE)
        self.chosen.append(one.clone())  # the others go


def _even(rows: int) -> int:
    """So many rows, or a few less: what products are made in."""
    return rows - rows % 64 if rows > 64 else max(1, rows)


def _over(tile: torch.Tensor, low: torch.Tensor, dim: int) -> torch.Tensor:
    """Sums in float32 of how far a tile, which this overwrites, is above `low`."""
    return tile.sub_(low).clamp_(min=0).sum(dim, dtype=torch.float32)


def _at(those: torch.Tensor, take: NDArray[np.int64]) -> torch.Tensor:
    """Some of those: mostly the first ones."""
    if take[-1] == len(take) - 1:
        return those[: len(take)]
    return those[torch.from_numpy(take).to(those.device, non_blocking=True)]
