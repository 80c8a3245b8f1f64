"""What selectors compute on a GPU, in torch. Import this inside functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dsel.arrays import Floats, Indices
from dsel.blocks import Matrix, full_precision, parts, read
from dsel.selector.traversal import Traversal

CENTRES = 256  # that points meet in one product, before those that fell back are left out
MEMORY = 2**29  # bytes of a device for points, and what is computed from them, at once


def rows_on(x: Matrix, device: torch.device) -> Callable[[Indices], Any]:
    """What reads rows of a matrix [n, d] as float32 on a device, where all of it lies if half its memory is enough."""
    whole = None
    if device.type == "cuda" and x.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        whole = torch.empty(x.shape, dtype=getattr(torch, x.dtype.name), device=device)
        for part in parts(len(x), x.nbytes // len(x)):
            whole[part] = torch.from_numpy(np.array(x[part])).to(device)

    def rows(ids: Indices) -> Any:
        if whole is None:
            return torch.from_numpy(read(x, ids)).to(device)
        return whole[torch.from_numpy(ids).to(device)].float()

    return rows


def refresher(t: Traversal, device: torch.device) -> Callable[[Indices, np.float32], None]:
    """What has points of k-center meet the centres that are new to them, as `dsel.selector.kcenter` does on the CPU.

    Distances are summed in float64 here too, in another order. Memory: `MEMORY`, the centres, the points if they fit.
    """
    rows_of, origin = rows_on(t.x, device), torch.from_numpy(t.origin).to(device)
    total, d = t.rows.shape
    centres, centred_centres = (torch.empty(total, d, device=device) for _ in range(2))
    known = 0

    def meet(points: Indices, least: float) -> None:
        rows, gap = rows_of(points), torch.from_numpy(t.gap[points]).to(device)
        centred, squares = rows - origin, torch.from_numpy(t.squares[points]).to(device)
        open_ = torch.arange(len(points), device=device)
        met = torch.full((len(points),), t.count, dtype=torch.int32, device=device)
        for lo in range(int(t.met[points].min()), t.count, CENTRES):
            hi = min(lo + CENTRES, t.count)
            own = torch.from_numpy(t.squares[t.order[lo:hi]]).to(device)
            bounds = (squares[open_, None] + own).addmm_(centred[open_], centred_centres[lo:hi].T, alpha=-2)
            while True:  # the nearest first: mostly there is no second that could be as near
                bound, nearest = bounds.min(dim=1)
                near = torch.nonzero(bound < gap[open_]).squeeze(1)
                if not len(near):
                    break
                at, centre = open_[near], nearest[near]
                distances = (rows[at].double() - centres[lo + centre].double()).square().sum(dim=1).float()
                gap[at] = torch.minimum(gap[at], distances)
                bounds[near, centre] = torch.inf
            fallen = gap[open_] < least
            met[open_[fallen]] = hi
            open_ = open_[~fallen]
            if not len(open_):
                break
        t.gap[points], t.met[points] = gap.cpu().numpy(), met.cpu().numpy()

    def refresh(points: Indices, least: np.float32) -> None:
        nonlocal known
        new = slice(known, t.count)
        centres[new], centred_centres[new] = (torch.from_numpy(a[new]).to(device) for a in (t.rows, t.centred))
        known = t.count
        with full_precision(), torch.inference_mode():
            for part in parts(len(points), 16 * d + 12 * CENTRES, MEMORY):
                meet(points[part], float(least))

    return refresh


def closest(kept: Floats, metric: str, device: torch.device) -> Callable[[Floats, slice], Floats]:
    """Deita's closeness of rows to the nearest of a slice of the `kept`, which are read once they are asked for."""
    there, squares, known = torch.empty(kept.shape, device=device), torch.empty(len(kept), device=device), 0

    def highest(rows: Floats, those: slice) -> Floats:
        nonlocal known
        if those.stop > known:
            there[known : those.stop] = torch.from_numpy(kept[known : those.stop]).to(device)
            squares[known : those.stop] = there[known : those.stop].square().sum(dim=1)
            known = those.stop
        with full_precision(), torch.inference_mode():
            ours = torch.from_numpy(rows).to(device)
            close = ours @ there[those].T
            if metric == "l2":
                close = 2 * close - ours.square().sum(dim=1, keepdim=True) - squares[those]
            return close.amax(dim=1).cpu().numpy()  # type: ignore[no-any-return]

    return highest


def highest_cosines(x: Matrix, scale: Floats, device: torch.device) -> Callable[..., Floats]:
    """The highest cosine of each of some rows with others, or, `before`, with those of the same that come before it."""
    rows_of, scales = rows_on(x, device), torch.from_numpy(scale).to(device)

    def unit(rows: Indices) -> Any:
        return rows_of(rows) / scales[torch.from_numpy(rows).to(device), None]

    def nearest(rows: Indices, others: Indices, *, before: bool) -> Floats:
        with full_precision(), torch.inference_mode():
            ours = unit(rows)
            similar = ours @ (ours if before else unit(others)).T
            if before:
                similar.masked_fill_(torch.ones_like(similar, dtype=torch.bool).triu(), -1)
            return similar.amax(dim=1).cpu().numpy()  # type: ignore[no-any-return]

    return nearest
